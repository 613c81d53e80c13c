// NEON with dot products (Armv8.2): 16 rows are four 128-bit registers.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <type_traits>
#include <utility>
#include <cstring>

#include "generic/inline.hpp"
#include "generic/number.inl"

namespace anybit::neon {
namespace {

constexpr const char* kName = "neon";
constexpr int kPrefetch = 1024;  // bytes ahead in the weight stream
constexpr int kFusedRows = 4, kMostFused = 8;  // 16 of 32 registers are accumulators
constexpr int kTablePlanes = 2;  // looked up side by side for one row of x: three sums each
constexpr int kCountSide = 1;  // rows of bits that are counted against as many
constexpr int kTileRows = 4, kShortRows = 4, kTilePanels = 1;
constexpr int64_t kMostRows = 128, kPassBytes = 256 << 10;  // of x a pass over the weights: half of a small L2
constexpr int kExactRows = 4, kExactPanels = 1, kExactFused = 3;  // rows times panels of float32 sums; rows that unpack on the way
constexpr bool kFewRegisters = false;
constexpr int kChains = 1, kPeakSums = 6;
constexpr bool kFloatDigits = false;
constexpr int kWordBias = 0;
constexpr int kByteOffset = 128;  // vdot is signed: u - 128
constexpr bool kProductsOfBytes = false;

struct B { uint8x16_t v[4]; };
struct I { int32x4_t v[4]; };
struct F { float32x4_t v[4]; };

template <class R, class Op> ANYBIT_INLINE R four(Op op) { return {{op(0), op(1), op(2), op(3)}}; }
#define ANYBIT_FOUR(R, expression) return four<R>([&](int h) ANYBIT_UNROLLED { return expression; });

ANYBIT_INLINE B load(const uint8_t* p) { ANYBIT_FOUR(B, vld1q_u8(p + 16 * h)) }
ANYBIT_INLINE void store(uint8_t* p, B b) { for (int h = 0; h < 4; ++h) vst1q_u8(p + 16 * h, b.v[h]); }
ANYBIT_INLINE B held(B b) { return b; }
ANYBIT_INLINE B splat_b(uint8_t x) { ANYBIT_FOUR(B, (void(h), vdupq_n_u8(x))) }
ANYBIT_INLINE B xor_b(B a, B b) { ANYBIT_FOUR(B, veorq_u8(a.v[h], b.v[h])) }
ANYBIT_INLINE B and_b(B a, B b) { ANYBIT_FOUR(B, vandq_u8(a.v[h], b.v[h])) }
ANYBIT_INLINE B or_b(B a, B b) { ANYBIT_FOUR(B, vorrq_u8(a.v[h], b.v[h])) }
template <int N> ANYBIT_INLINE B shr_b(B a) { ANYBIT_FOUR(B, vshrq_n_u8(a.v[h], N)) }
template <int N> ANYBIT_INLINE B shl_b(B a) { ANYBIT_FOUR(B, vshlq_n_u8(a.v[h], N)) }
ANYBIT_INLINE B table16(const uint8_t* table) { ANYBIT_FOUR(B, (void(h), vld1q_u8(table))) }
ANYBIT_INLINE B lookup(B table, B index) { ANYBIT_FOUR(B, vqtbl1q_u8(table.v[h], index.v[h])) }
ANYBIT_INLINE B add_b(B a, B b) { ANYBIT_FOUR(B, vaddq_u8(a.v[h], b.v[h])) }
ANYBIT_INLINE B count_b(B a) { ANYBIT_FOUR(B, vcntq_u8(a.v[h])) }  // bits set in each byte
// 16-bit lanes
ANYBIT_INLINE uint16x8_t halves(uint8x16_t v) { return vreinterpretq_u16_u8(v); }
ANYBIT_INLINE uint8x16_t bytes_of(uint16x8_t v) { return vreinterpretq_u8_u16(v); }
ANYBIT_INLINE B add_h(B a, B b) { ANYBIT_FOUR(B, bytes_of(vaddq_u16(halves(a.v[h]), halves(b.v[h])))) }
ANYBIT_INLINE B sub_h(B a, B b) { ANYBIT_FOUR(B, bytes_of(vsubq_u16(halves(a.v[h]), halves(b.v[h])))) }
ANYBIT_INLINE B low_h(B a) { ANYBIT_FOUR(B, bytes_of(vandq_u16(halves(a.v[h]), vdupq_n_u16(255)))) }
ANYBIT_INLINE B high_h(B a) { ANYBIT_FOUR(B, bytes_of(vshrq_n_u16(halves(a.v[h]), 8))) }
ANYBIT_INLINE B low_up_h(B a) { ANYBIT_FOUR(B, bytes_of(vshlq_n_u16(halves(a.v[h]), 8))) }
ANYBIT_INLINE B times64_h(B a) { ANYBIT_FOUR(B, bytes_of(vshlq_n_u16(halves(a.v[h]), 6))) }
// The same value, of which the compiler knows nothing.
ANYBIT_INLINE B opaque(B b) {
  asm volatile("" : "+w"(b.v[0]), "+w"(b.v[1]), "+w"(b.v[2]), "+w"(b.v[3]));
  return b;
}
ANYBIT_INLINE B broadcast4(const int8_t* x) {
  uint32_t word;
  std::memcpy(&word, x, 4);
  ANYBIT_FOUR(B, (void(h), vreinterpretq_u8_u32(vdupq_n_u32(word))))
}

ANYBIT_INLINE I load_i(const int32_t* p) { ANYBIT_FOUR(I, vld1q_s32(p + 4 * h)) }
ANYBIT_INLINE void store_i(int32_t* p, I a) { for (int h = 0; h < 4; ++h) vst1q_s32(p + 4 * h, a.v[h]); }
ANYBIT_INLINE I as_ints(B b) { ANYBIT_FOUR(I, vreinterpretq_s32_u8(b.v[h])) }
ANYBIT_INLINE I splat_i(int32_t x) { ANYBIT_FOUR(I, (void(h), vdupq_n_s32(x))) }
ANYBIT_INLINE I zero_i() { return splat_i(0); }
ANYBIT_INLINE I add_i(I a, I b) { ANYBIT_FOUR(I, vaddq_s32(a.v[h], b.v[h])) }
ANYBIT_INLINE I sub_i(I a, I b) { ANYBIT_FOUR(I, vsubq_s32(a.v[h], b.v[h])) }
ANYBIT_INLINE I mul_i(I a, I b) { ANYBIT_FOUR(I, vmulq_s32(a.v[h], b.v[h])) }
ANYBIT_INLINE I shl_i(I a, int n) { const int32x4_t by = vdupq_n_s32(n); ANYBIT_FOUR(I, vshlq_s32(a.v[h], by)) }
ANYBIT_INLINE I max_i(I a, I b) { ANYBIT_FOUR(I, vmaxq_s32(a.v[h], b.v[h])) }
ANYBIT_INLINE I load_u8(const uint8_t* p) {
  const uint8x16_t bytes = vld1q_u8(p);
  const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_u8(vget_high_u8(bytes));
  return {{vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))), vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(low))),
           vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))), vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(high)))}};
}
template <int J> ANYBIT_INLINE I byte(B b) {
  const uint32x4_t mask = vdupq_n_u32(255);
  if constexpr (J == 0) { ANYBIT_FOUR(I, vreinterpretq_s32_u32(vandq_u32(vreinterpretq_u32_u8(b.v[h]), mask))) }
  else { ANYBIT_FOUR(I, vreinterpretq_s32_u32(vandq_u32(vshrq_n_u32(vreinterpretq_u32_u8(b.v[h]), 8 * J), mask))) }
}
ANYBIT_INLINE int32_t reduce_max(I a) {
  return vmaxvq_s32(vmaxq_s32(vmaxq_s32(a.v[0], a.v[1]), vmaxq_s32(a.v[2], a.v[3])));
}
ANYBIT_INLINE int32_t reduce_add(I a) {
  return vaddvq_s32(vaddq_s32(vaddq_s32(a.v[0], a.v[1]), vaddq_s32(a.v[2], a.v[3])));
}

// 16 rows x 2 k of 16 bits, apart by k, and 2 k of x
struct PairsOfK { int16x8x2_t v[2]; };
using PairOfX = int16x4_t;
ANYBIT_INLINE PairsOfK load_pairs(const uint8_t* p) {
  return {{vld2q_s16(reinterpret_cast<const int16_t*>(p)), vld2q_s16(reinterpret_cast<const int16_t*>(p) + 16)}};
}
ANYBIT_INLINE PairOfX broadcast_pair(const int8_t* x) {
  int32_t word;
  std::memcpy(&word, x, 4);
  return vreinterpret_s16_s32(vdup_n_s32(word));
}
ANYBIT_INLINE I dot_pairs(I sum, PairsOfK w, PairOfX x) {
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    sum.v[2 * h] = vmlal_lane_s16(sum.v[2 * h], vget_low_s16(w.v[h].val[0]), x, 0);
    sum.v[2 * h + 1] = vmlal_high_lane_s16(sum.v[2 * h + 1], w.v[h].val[0], x, 0);
    sum.v[2 * h] = vmlal_lane_s16(sum.v[2 * h], vget_low_s16(w.v[h].val[1]), x, 1);
    sum.v[2 * h + 1] = vmlal_high_lane_s16(sum.v[2 * h + 1], w.v[h].val[1], x, 1);
  }
  return sum;
}
ANYBIT_INLINE I add_upper(I high, I low) { ANYBIT_FOUR(I, vsraq_n_s32(high.v[h], low.v[h], 16)) }
ANYBIT_INLINE I lower(I a) { ANYBIT_FOUR(I, vandq_s32(a.v[h], vdupq_n_s32(65535))) }
// The number nearest to high * 2^16 + low.
ANYBIT_INLINE F joined(I high, I low) {
  const auto two = [](int32x2_t h, int32x2_t l) ANYBIT_UNROLLED {
    return vcvt_f32_f64(vcvtq_f64_s64(vaddq_s64(vshlq_n_s64(vmovl_s32(h), 16), vmovl_s32(l))));
  };
  ANYBIT_FOUR(F, vcombine_f32(two(vget_low_s32(high.v[h]), vget_low_s32(low.v[h])), two(vget_high_s32(high.v[h]), vget_high_s32(low.v[h]))))
}
ANYBIT_INLINE I s16_even(B b) { ANYBIT_FOUR(I, vshrq_n_s32(vshlq_n_s32(vreinterpretq_s32_u8(b.v[h]), 16), 16)) }
ANYBIT_INLINE I s16_odd(B b) { ANYBIT_FOUR(I, vshrq_n_s32(vreinterpretq_s32_u8(b.v[h]), 16)) }

// Unsigned 16-bit sums of the 16 rows, of which four parts of 16 bytes have a share each, row 4v + d at byte 4d + v: those of even bytes
// and those of odd ones.  All parts together fit 16 bits.
ANYBIT_INLINE I rows_h(B even, B odd) {
  const auto all = [](const B& b) {
    const uint16x8_t one = vaddq_u16(halves(b.v[0]), halves(b.v[1])), two = vaddq_u16(halves(b.v[2]), halves(b.v[3]));
    return vreinterpretq_u32_u16(vaddq_u16(one, two));
  };
  const uint32x4_t e = all(even), o = all(odd), lower = vdupq_n_u32(0xffff);
  return {{vreinterpretq_s32_u32(vandq_u32(e, lower)), vreinterpretq_s32_u32(vandq_u32(o, lower)),
           vreinterpretq_s32_u32(vshrq_n_u32(e, 16)), vreinterpretq_s32_u32(vshrq_n_u32(o, 16))}};
}

ANYBIT_INLINE F splat_f(float x) { ANYBIT_FOUR(F, (void(h), vdupq_n_f32(x))) }
ANYBIT_INLINE F zero_f() { return splat_f(0.0f); }
ANYBIT_INLINE F load_f(const float* p) { ANYBIT_FOUR(F, vld1q_f32(p + 4 * h)) }
ANYBIT_INLINE void store_f(float* p, F f) { for (int h = 0; h < 4; ++h) vst1q_f32(p + 4 * h, f.v[h]); }
ANYBIT_INLINE F add_f(F a, F b) { ANYBIT_FOUR(F, vaddq_f32(a.v[h], b.v[h])) }
ANYBIT_INLINE F sub_f(F a, F b) { ANYBIT_FOUR(F, vsubq_f32(a.v[h], b.v[h])) }
ANYBIT_INLINE F mul_f(F a, F b) { ANYBIT_FOUR(F, vmulq_f32(a.v[h], b.v[h])) }
ANYBIT_INLINE F div_f(F a, F b) { ANYBIT_FOUR(F, vdivq_f32(a.v[h], b.v[h])) }
ANYBIT_INLINE F fma_f(F a, F b, F c) { ANYBIT_FOUR(F, vfmaq_f32(c.v[h], a.v[h], b.v[h])) }
ANYBIT_INLINE F to_f(I a) { ANYBIT_FOUR(F, vcvtq_f32_s32(a.v[h])) }
ANYBIT_INLINE I round_i(F a) { ANYBIT_FOUR(I, vcvtnq_s32_f32(a.v[h])) }
ANYBIT_INLINE I abs_bits(F a) { ANYBIT_FOUR(I, vandq_s32(vreinterpretq_s32_f32(a.v[h]), vdupq_n_s32(0x7fffffff))) }
ANYBIT_INLINE void store_s8(int8_t* p, I a) {
  const int16x8_t low = vcombine_s16(vqmovn_s32(a.v[0]), vqmovn_s32(a.v[1])), high = vcombine_s16(vqmovn_s32(a.v[2]), vqmovn_s32(a.v[3]));
  vst1q_s8(p, vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
}
ANYBIT_INLINE void store_s16(int16_t* p, I a) {
  vst1q_s16(p, vcombine_s16(vqmovn_s32(a.v[0]), vqmovn_s32(a.v[1])));
  vst1q_s16(p + 8, vcombine_s16(vqmovn_s32(a.v[2]), vqmovn_s32(a.v[3])));
}
ANYBIT_INLINE F load_fp16(const uint8_t* p) {
  ANYBIT_FOUR(F, vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p + 8 * h))))
}
ANYBIT_INLINE F load_bf16(const uint8_t* p) {
  ANYBIT_FOUR(F, vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p + 8 * h)), 16)))
}
ANYBIT_INLINE F load_e8m0(const uint8_t* p) {
  const I e = load_u8(p);
  const int32x4_t odd = vdupq_n_s32(0x00400000), zero = vdupq_n_s32(0), most = vdupq_n_s32(255);  // 2^-127 is subnormal; 255 is NaN
  ANYBIT_FOUR(F, vreinterpretq_f32_s32(vorrq_s32(
                     vshlq_n_s32(e.v[h], 23),
                     vandq_s32(odd, vreinterpretq_s32_u32(vorrq_u32(vceqq_s32(e.v[h], zero), vceqq_s32(e.v[h], most)))))))
}
ANYBIT_INLINE F bf16_even(B b) { ANYBIT_FOUR(F, vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_u8(b.v[h]), 16))) }
ANYBIT_INLINE F bf16_odd(B b) {
  ANYBIT_FOUR(F, vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_u8(b.v[h]), vdupq_n_u32(0xffff0000u))))
}
struct T { uint8x16x4_t v; };
constexpr bool kRawLookup = false, kRawFields = false;
template <int Shift> F lookup_raw(T, B);
template <int N> B shr_d(B);
template <int N> B shl_d(B);
template <int P, int Bits> F field_f(B);
ANYBIT_INLINE T table_f(const float* p) {
  T t;
  for (int i = 0; i < 4; ++i) t.v.val[i] = vreinterpretq_u8_f32(vld1q_f32(p + 4 * i));
  return t;
}
ANYBIT_INLINE F lookup_f(T t, I index) {  // byte i of entry e of the table is byte 4e + i
  ANYBIT_FOUR(F, vreinterpretq_f32_u8(vqtbl4q_u8(
                     t.v, vreinterpretq_u8_s32(vmlaq_s32(vdupq_n_s32(0x03020100), index.v[h], vdupq_n_s32(0x04040404))))))
}

ANYBIT_INLINE void prefetch(const void* p) { __builtin_prefetch(p); }

ANYBIT_INLINE I dot(I total, B w, B x) {
  ANYBIT_FOUR(I, vdotq_s32(total.v[h], vreinterpretq_s8_u8(w.v[h]), vreinterpretq_s8_u8(x.v[h])))
}

template <int Max> struct Acc {  // u <= 127 is a signed byte as it is
  static constexpr int kRun = 8;
  I total;
  ANYBIT_INLINE void start(const I& from) { total = from; }
  ANYBIT_INLINE I result() const { return total; }
  ANYBIT_INLINE void add(const B& w, const B& x) {
    if constexpr (Max == 255) {
      const uint8x16_t flip = vdupq_n_u8(128);
      total = dot(total, {{veorq_u8(w.v[0], flip), veorq_u8(w.v[1], flip), veorq_u8(w.v[2], flip), veorq_u8(w.v[3], flip)}}, x);
    } else {
      total = dot(total, w, x);
    }
  }
  ANYBIT_INLINE void flush() {}
};

// level = 128 * high + low with high signed and low in 0..127
struct Word {
  B low, high;
  explicit Word(const int16_t* levels) {
    alignas(16) uint8_t l[16], u[16];
    for (int i = 0; i < 16; ++i) l[i] = levels[i] & 127, u[i] = static_cast<uint8_t>(levels[i] >> 7);
    low = table16(l);
    high = table16(u);
  }
};
ANYBIT_INLINE void arrange_word(B&, B&) {}
struct WordAcc {
  static constexpr int kRun = 8;
  I lows, highs;
  ANYBIT_INLINE void start(const I& from) { lows = from, highs = zero_i(); }
  ANYBIT_INLINE I result() const { return add_i(lows, shl_i(highs, 7)); }
  ANYBIT_INLINE void add(const B& low, const B& high, const B& x) {
    lows = dot(lows, low, x);
    highs = dot(highs, high, x);
  }
  ANYBIT_INLINE void flush() {}
};

}  // namespace
}  // namespace anybit::neon
