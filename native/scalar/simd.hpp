// The instruction set that every other one is held to: 16 lanes written as plain loops.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <cstring>

#define ANYBIT_PLAIN_CALLS 1  // a fallback that compiles fast
#include "generic/inline.hpp"
#include "generic/number.inl"

namespace anybit::scalar {
namespace {

constexpr const char* kName = "scalar";
constexpr int kPrefetch = 0;  // bytes ahead in the weight stream
constexpr int kFusedRows = 2, kMostFused = 4;  // rows of x that share one unpacking, and up to which rows are unpacked for again
constexpr int kTablePlanes = 1;  // looked up side by side for one row of x: three sums each
constexpr int kCountSide = 1;  // rows of bits that are counted against as many
constexpr int kTileRows = 2, kShortRows = 2, kTilePanels = 1;  // rows and panels of the micro-kernel over unpacked weights
constexpr int64_t kMostRows = 128, kPassBytes = 256 << 10;  // rows, and bytes of x, a pass over the weights
constexpr int kExactRows = 2, kExactPanels = 1, kExactFused = 1;  // rows times panels of float32 sums; rows that unpack on the way
constexpr bool kFewRegisters = false;
constexpr int kChains = 1, kPeakSums = 12;
constexpr bool kFloatDigits = false;  // whether x of bf16 may come in digits of its own (avx512/digits.inl)
constexpr int kWordBias = 0;   // Word accumulators return sum (level + kWordBias) * x
constexpr int kByteOffset = 0; // Acc<255> returns sum (u - kByteOffset) * x
constexpr bool kProductsOfBytes = false; // whether codes may be multiplied where they lie in their bytes: sar_i<N> then

struct B { uint8_t v[64]; };  // 16 rows x 4 bytes
struct I { int32_t v[16]; };
struct F { float v[16]; };

template <class T, class Op> inline T lanes16(Op op) {
  T out;
  for (int i = 0; i < 16; ++i) out.v[i] = op(i);
  return out;
}
template <class Op> inline B lanes64(Op op) {
  B out;
  for (int i = 0; i < 64; ++i) out.v[i] = static_cast<uint8_t>(op(i));
  return out;
}

ANYBIT_INLINE B load(const uint8_t* p) { B b; std::memcpy(b.v, p, 64); return b; }
ANYBIT_INLINE void store(uint8_t* p, B b) { std::memcpy(p, b.v, 64); }
ANYBIT_INLINE B held(B b) { return b; }
ANYBIT_INLINE B splat_b(uint8_t x) { return lanes64([&](int) { return x; }); }
ANYBIT_INLINE B xor_b(B a, B b) { return lanes64([&](int i) { return a.v[i] ^ b.v[i]; }); }
ANYBIT_INLINE B and_b(B a, B b) { return lanes64([&](int i) { return a.v[i] & b.v[i]; }); }
ANYBIT_INLINE B or_b(B a, B b) { return lanes64([&](int i) { return a.v[i] | b.v[i]; }); }
// shifts may move bits in from a neighbouring byte; callers mask
template <int N> ANYBIT_INLINE B shr_b(B a) { return lanes64([&](int i) { return a.v[i] >> N; }); }
template <int N> ANYBIT_INLINE B shl_b(B a) { return lanes64([&](int i) { return a.v[i] << N; }); }
ANYBIT_INLINE B table16(const uint8_t* table) { return lanes64([&](int i) { return table[i & 15]; }); }
ANYBIT_INLINE B lookup(B table, B index) {  // each 16 bytes in their own 16
  return lanes64([&](int i) { return table.v[(i & 48) + (index.v[i] & 15)]; });
}
ANYBIT_INLINE B add_b(B a, B b) { return lanes64([&](int i) { return a.v[i] + b.v[i]; }); }
ANYBIT_INLINE B count_b(B a) { return lanes64([&](int i) { return __builtin_popcount(a.v[i]); }); }  // bits set in each byte
// 16-bit lanes
template <class Op> inline B lanes_h(B a, Op op) {
  for (int i = 0; i < 64; i += 2) {
    uint16_t h;
    std::memcpy(&h, a.v + i, 2);
    h = static_cast<uint16_t>(op(h, i));
    std::memcpy(a.v + i, &h, 2);
  }
  return a;
}
ANYBIT_INLINE B add_h(B a, B b) {
  return lanes_h(a, [&](int h, int i) { uint16_t other; std::memcpy(&other, b.v + i, 2); return h + other; });
}
ANYBIT_INLINE B sub_h(B a, B b) {
  return lanes_h(a, [&](int h, int i) { uint16_t other; std::memcpy(&other, b.v + i, 2); return h - other; });
}
ANYBIT_INLINE B low_h(B a) { return lanes_h(a, [](int h, int) { return h & 255; }); }
ANYBIT_INLINE B high_h(B a) { return lanes_h(a, [](int h, int) { return h >> 8; }); }
ANYBIT_INLINE B low_up_h(B a) { return lanes_h(a, [](int h, int) { return h << 8; }); }
ANYBIT_INLINE B times64_h(B a) { return lanes_h(a, [](int h, int) { return h << 6; }); }
// The same value, of which the compiler knows nothing.
ANYBIT_INLINE B opaque(B b) {
  asm volatile("" : "+m"(b));
  return b;
}
ANYBIT_INLINE B broadcast4(const int8_t* x) { return lanes64([&](int i) { return static_cast<uint8_t>(x[i & 3]); }); }

ANYBIT_INLINE I load_i(const int32_t* p) { I i; std::memcpy(i.v, p, 64); return i; }
ANYBIT_INLINE void store_i(int32_t* p, I a) { std::memcpy(p, a.v, 64); }
ANYBIT_INLINE I as_ints(B b) { I i; std::memcpy(i.v, b.v, 64); return i; }
ANYBIT_INLINE I zero_i() { return I{}; }
ANYBIT_INLINE I splat_i(int32_t x) { return lanes16<I>([&](int) { return x; }); }
// Modulo 2^32, as in registers.
template <class Op> ANYBIT_INLINE I wrapped(I a, I b, Op op) {
  return lanes16<I>([&](int i) { return static_cast<int32_t>(op(static_cast<uint32_t>(a.v[i]), static_cast<uint32_t>(b.v[i]))); });
}
ANYBIT_INLINE I add_i(I a, I b) { return wrapped(a, b, [](uint32_t x, uint32_t y) { return x + y; }); }
ANYBIT_INLINE I sub_i(I a, I b) { return wrapped(a, b, [](uint32_t x, uint32_t y) { return x - y; }); }
ANYBIT_INLINE I mul_i(I a, I b) { return wrapped(a, b, [](uint32_t x, uint32_t y) { return x * y; }); }
ANYBIT_INLINE I shl_i(I a, int n) { return lanes16<I>([&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) << n); }); }
ANYBIT_INLINE I max_i(I a, I b) { return lanes16<I>([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; }); }
ANYBIT_INLINE I load_u8(const uint8_t* p) { return lanes16<I>([&](int i) { return p[i]; }); }
template <int J> ANYBIT_INLINE I byte(B b) { return lanes16<I>([&](int i) { return b.v[4 * i + J]; }); }
// 16 rows x 2 k of 16 bits, and 2 k of x
struct PairsOfK { int16_t v[32]; };
struct PairOfX { int16_t v[2]; };
ANYBIT_INLINE PairsOfK load_pairs(const uint8_t* p) { PairsOfK w; std::memcpy(w.v, p, 64); return w; }
ANYBIT_INLINE PairOfX broadcast_pair(const int8_t* x) { PairOfX two; std::memcpy(two.v, x, 4); return two; }
ANYBIT_INLINE I dot_pairs(I sum, PairsOfK w, PairOfX x) {
  return lanes16<I>([&](int i) { return sum.v[i] + w.v[2 * i] * x.v[0] + w.v[2 * i + 1] * x.v[1]; });
}
ANYBIT_INLINE I add_upper(I high, I low) { return lanes16<I>([&](int i) { return high.v[i] + (low.v[i] >> 16); }); }
ANYBIT_INLINE I lower(I a) { return lanes16<I>([&](int i) { return a.v[i] & 65535; }); }
// The number nearest to high * 2^16 + low.
ANYBIT_INLINE F joined(I high, I low) {
  return lanes16<F>([&](int i) { return static_cast<float>(int64_t{high.v[i]} * 65536 + low.v[i]); });
}
ANYBIT_INLINE I s16_even(B b) { return lanes16<I>([&](int i) { int16_t h; std::memcpy(&h, b.v + 4 * i, 2); return h; }); }
ANYBIT_INLINE I s16_odd(B b) { return lanes16<I>([&](int i) { int16_t h; std::memcpy(&h, b.v + 4 * i + 2, 2); return h; }); }
ANYBIT_INLINE int32_t reduce_max(I a) { int32_t m = a.v[0]; for (int x : a.v) m = x > m ? x : m; return m; }
ANYBIT_INLINE int32_t reduce_add(I a) { int32_t s = 0; for (int x : a.v) s += x; return s; }

// Unsigned 16-bit sums of the 16 rows, of which four parts of 16 bytes have a share each, row 4v + d at byte 4d + v: those of even bytes
// and those of odd ones.  All parts together fit 16 bits.
ANYBIT_INLINE I rows_h(B even, B odd) {
  return lanes16<I>([&](int row) {
    const int at = 4 * (row & 3) + (row >> 2);
    uint16_t sum = 0;
    for (int part = 0; part < 64; part += 16) {
      uint16_t h;
      std::memcpy(&h, (at & 1 ? odd : even).v + part + (at & ~1), 2);
      sum = static_cast<uint16_t>(sum + h);
    }
    return int32_t{sum};
  });
}

ANYBIT_INLINE F zero_f() { return F{}; }
ANYBIT_INLINE F splat_f(float x) { return lanes16<F>([&](int) { return x; }); }
ANYBIT_INLINE F load_f(const float* p) { F f; std::memcpy(f.v, p, 64); return f; }
ANYBIT_INLINE void store_f(float* p, F f) { std::memcpy(p, f.v, 64); }
ANYBIT_INLINE F add_f(F a, F b) { return lanes16<F>([&](int i) { return a.v[i] + b.v[i]; }); }
ANYBIT_INLINE F sub_f(F a, F b) { return lanes16<F>([&](int i) { return a.v[i] - b.v[i]; }); }
ANYBIT_INLINE F mul_f(F a, F b) { return lanes16<F>([&](int i) { return a.v[i] * b.v[i]; }); }
ANYBIT_INLINE F div_f(F a, F b) { return lanes16<F>([&](int i) { return a.v[i] / b.v[i]; }); }
ANYBIT_INLINE F fma_f(F a, F b, F c) { return lanes16<F>([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); }); }
ANYBIT_INLINE F to_f(I a) { return lanes16<F>([&](int i) { return static_cast<float>(a.v[i]); }); }
ANYBIT_INLINE I round_i(F a) { return lanes16<I>([&](int i) { return static_cast<int32_t>(std::nearbyintf(a.v[i])); }); }
ANYBIT_INLINE I abs_bits(F a) {
  return lanes16<I>([&](int i) { int32_t b; std::memcpy(&b, &a.v[i], 4); return b & 0x7fffffff; });
}
ANYBIT_INLINE void store_s8(int8_t* p, I a) { for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(a.v[i]); }
ANYBIT_INLINE void store_s16(int16_t* p, I a) { for (int i = 0; i < 16; ++i) p[i] = static_cast<int16_t>(std::clamp(a.v[i], -32768, 32767)); }
ANYBIT_INLINE F load_fp16(const uint8_t* p) {
  return lanes16<F>([&](int i) { uint16_t h; std::memcpy(&h, p + 2 * i, 2); return fp16_to_float(h); });
}
ANYBIT_INLINE F load_bf16(const uint8_t* p) {
  return lanes16<F>([&](int i) { uint16_t h; std::memcpy(&h, p + 2 * i, 2); return bf16_to_float(h); });
}
ANYBIT_INLINE F load_e8m0(const uint8_t* p) { return lanes16<F>([&](int i) { return e8m0_to_float(p[i]); }); }
// 16 rows x 2 k of bf16, a dword a row
ANYBIT_INLINE F bf16_even(B b) {
  return lanes16<F>([&](int i) { uint16_t h; std::memcpy(&h, b.v + 4 * i, 2); return bf16_to_float(h); });
}
ANYBIT_INLINE F bf16_odd(B b) {
  return lanes16<F>([&](int i) { uint16_t h; std::memcpy(&h, b.v + 4 * i + 2, 2); return bf16_to_float(h); });
}
// 16-entry table of floats indexed by lanes 0..15
struct T { float v[16]; };
constexpr bool kRawLookup = false, kRawFields = false;
template <int Shift> F lookup_raw(T, B);
template <int N> B shr_d(B);
template <int N> B shl_d(B);
template <int P, int Bits> F field_f(B);
ANYBIT_INLINE T table_f(const float* p) { T t; std::memcpy(t.v, p, 64); return t; }
ANYBIT_INLINE F lookup_f(T t, I index) { return lanes16<F>([&](int i) { return t.v[index.v[i] & 15]; }); }

inline void prefetch(const void*) {}

// Sums of u * x over quads; Max is the largest u.  start() with what is to be added to; flush() after every kRun add()s and before result().
template <int Max> struct Acc {
  static constexpr int kRun = 8;
  I total;
  void start(const I& from) { total = from; }
  I result() const { return total; }
  ANYBIT_INLINE void add(const B& w, const B& x) {
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < 4; ++j) total.v[i] += int{w.v[4 * i + j]} * static_cast<int8_t>(x.v[4 * i + j]);
  }
  void flush() {}
};

// Tables of 16-bit levels as two byte tables, and sums over them.
struct Word {
  B low, high;
  explicit Word(const int16_t* levels) {
    low = lanes64([&](int i) { return levels[i & 15] & 255; });
    high = lanes64([&](int i) { return (levels[i & 15] >> 8) & 255; });
  }
};
// How the accumulator wants what the two tables give.
ANYBIT_INLINE void arrange_word(B&, B&) {}
struct WordAcc {
  static constexpr int kRun = 8;
  I total;
  void start(const I& from) { total = from; }
  I result() const { return total; }
  ANYBIT_INLINE void add(const B& low, const B& high, const B& x) {
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < 4; ++j) {
        const int16_t level = static_cast<int16_t>(low.v[4 * i + j] | high.v[4 * i + j] << 8);
        total.v[i] += level * static_cast<int8_t>(x.v[4 * i + j]);
      }
  }
  void flush() {}
};

}  // namespace
}  // namespace anybit::scalar
