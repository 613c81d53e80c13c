// AVX-512 with VNNI: 16 rows are one 512-bit register.
#pragma once

#ifdef ANYBIT_SIMDE  // tests: the same code on any machine, every instruction emulated
#include "emulated_avx512.hpp"
#else
#include <immintrin.h>
#endif

#include <cstdint>
#include <type_traits>
#include <utility>

#include "generic/inline.hpp"
#include "generic/number.inl"

namespace anybit::avx512 {
namespace {

constexpr const char* kName = "avx512";
constexpr int kPrefetch = 2048;  // bytes ahead in the weight stream
constexpr int kFusedRows = 8, kMostFused = 8;
constexpr int kTablePlanes = 4;  // looked up side by side for one row of x: three sums each
constexpr int kCountSide = 4;  // rows of bits that are counted against as many: 16 counts and 8 lines in registers
constexpr int kTileRows = 4, kTilePanels = 3;  // 12 sums of integers and 12 of blocks in registers: 7 loads for 12 instructions
constexpr int kShortRows = 8;                   // of integers of 16 bits: 24 sums
constexpr int64_t kMostRows = 256, kPassBytes = 512 << 10;  // of x a pass over the weights: half of an L2
constexpr int kExactRows = 8, kExactPanels = 3, kExactFused = 8;  // rows times panels of float32 sums; rows that unpack on the way
constexpr bool kFewRegisters = false;
constexpr int kChains = 8;  // that hide the latency of vpdpbusd where a tile has fewer sums
constexpr int kPeakSums = 12;  // of the probe of the peak
constexpr int kWordBias = 16384;
constexpr int kByteOffset = 0;
constexpr bool kProductsOfBytes = true;  // of any byte times x, summed exactly
constexpr bool kFloatDigits = true;  // x of bf16 may come in digits (digits.inl)

struct B { __m512i v; };
struct I { __m512i v; };
struct F { __m512 v; };

ANYBIT_INLINE B load(const uint8_t* p) { return {_mm512_load_si512(p)}; }
ANYBIT_INLINE void store(uint8_t* p, B b) { _mm512_store_si512(p, b.v); }
// A vector that stays in a register, where the compiler would read it again for each use.
template <class T> ANYBIT_INLINE T held(T t) {
#ifndef ANYBIT_SIMDE
  asm("" : "+v"(t.v));
#endif
  return t;
}
ANYBIT_INLINE B splat_b(uint8_t x) { return {_mm512_set1_epi8(static_cast<char>(x))}; }
ANYBIT_INLINE B xor_b(B a, B b) { return {_mm512_xor_si512(a.v, b.v)}; }
ANYBIT_INLINE B and_b(B a, B b) { return {_mm512_and_si512(a.v, b.v)}; }
ANYBIT_INLINE B or_b(B a, B b) { return {_mm512_or_si512(a.v, b.v)}; }
template <int N> ANYBIT_INLINE B shr_b(B a) { return {_mm512_srli_epi16(a.v, N)}; }
template <int N> ANYBIT_INLINE B shl_b(B a) { return {_mm512_slli_epi16(a.v, N)}; }
#ifndef ANYBIT_SHIFTS_BITS
#define ANYBIT_MOVES_BITS 1
// Bits [From, From + P) of each byte at [Pos, Pos + P), zeros elsewhere: a product with an 8 x 8 matrix of bits, whose byte 7 - i makes bit i.
template <int P, int From, int Pos> ANYBIT_INLINE B move_bits(B a) {
  constexpr uint64_t kMatrix = [] {
    uint64_t rows = 0;
    for (int i = Pos; i < Pos + P; ++i) rows |= uint64_t{1} << (8 * (7 - i) + i - Pos + From);
    return rows;
  }();
  return {_mm512_gf2p8affine_epi64_epi8(a.v, _mm512_set1_epi64(static_cast<int64_t>(kMatrix)), 0)};
}
#endif
ANYBIT_INLINE B table16(const uint8_t* table) {
  return {_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)))};
}
ANYBIT_INLINE B lookup(B table, B index) { return {_mm512_shuffle_epi8(table.v, index.v)}; }
ANYBIT_INLINE B add_b(B a, B b) { return {_mm512_add_epi8(a.v, b.v)}; }
ANYBIT_INLINE B count_b(B a) { return {_mm512_popcnt_epi8(a.v)}; }  // bits set in each byte
// 16-bit lanes
ANYBIT_INLINE B add_h(B a, B b) { return {_mm512_add_epi16(a.v, b.v)}; }
ANYBIT_INLINE B sub_h(B a, B b) { return {_mm512_sub_epi16(a.v, b.v)}; }
ANYBIT_INLINE B low_h(B a) { return {_mm512_and_si512(a.v, _mm512_set1_epi16(255))}; }
ANYBIT_INLINE B high_h(B a) { return {_mm512_srli_epi16(a.v, 8)}; }
ANYBIT_INLINE B low_up_h(B a) { return {_mm512_slli_epi16(a.v, 8)}; }
ANYBIT_INLINE B times64_h(B a) { return {_mm512_slli_epi16(a.v, 6)}; }
// The same value, of which the compiler knows nothing.
ANYBIT_INLINE B opaque(B b) {
#ifndef ANYBIT_SIMDE
  asm volatile("" : "+v"(b.v));
#endif
  return b;
}
ANYBIT_INLINE B broadcast4(const int8_t* x) {
  int32_t word;
  __builtin_memcpy(&word, x, 4);
  return {_mm512_set1_epi32(word)};
}

ANYBIT_INLINE I as_ints(B b) { return {b.v}; }
ANYBIT_INLINE I load_i(const int32_t* p) { return {_mm512_load_si512(p)}; }
ANYBIT_INLINE void store_i(int32_t* p, I a) { _mm512_store_si512(p, a.v); }
ANYBIT_INLINE I zero_i() { return {_mm512_setzero_si512()}; }
ANYBIT_INLINE I splat_i(int32_t x) { return {_mm512_set1_epi32(x)}; }
ANYBIT_INLINE I add_i(I a, I b) { return {_mm512_add_epi32(a.v, b.v)}; }
ANYBIT_INLINE I sub_i(I a, I b) { return {_mm512_sub_epi32(a.v, b.v)}; }
ANYBIT_INLINE I mul_i(I a, I b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
ANYBIT_INLINE I shl_i(I a, int n) { return {_mm512_sll_epi32(a.v, _mm_cvtsi32_si128(n))}; }
template <int N> ANYBIT_INLINE I sar_i(I a) { return {_mm512_srai_epi32(a.v, N)}; }
ANYBIT_INLINE I max_i(I a, I b) { return {_mm512_max_epi32(a.v, b.v)}; }
ANYBIT_INLINE I load_u8(const uint8_t* p) { return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))}; }
template <int J> ANYBIT_INLINE I byte(B b) {
  if constexpr (J == 3) return {_mm512_srli_epi32(b.v, 24)};
  else if constexpr (J == 0) return {_mm512_and_si512(b.v, _mm512_set1_epi32(255))};
  else return {_mm512_and_si512(_mm512_srli_epi32(b.v, 8 * J), _mm512_set1_epi32(255))};
}
ANYBIT_INLINE int32_t reduce_max(I a) { return _mm512_reduce_max_epi32(a.v); }
ANYBIT_INLINE int32_t reduce_add(I a) {
  __m256i h = _mm256_add_epi32(_mm512_castsi512_si256(a.v), _mm512_extracti64x4_epi64(a.v, 1));
  __m128i q = _mm_add_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
  q = _mm_add_epi32(q, _mm_shuffle_epi32(q, 0x4e));
  q = _mm_add_epi32(q, _mm_shuffle_epi32(q, 0xb1));
  return _mm_cvtsi128_si32(q);
}

// 16 rows x 2 k of 16 bits, and 2 k of x
using PairsOfK = B;
using PairOfX = B;
ANYBIT_INLINE PairsOfK load_pairs(const uint8_t* p) { return load(p); }
ANYBIT_INLINE PairOfX broadcast_pair(const int8_t* x) { return broadcast4(x); }
ANYBIT_INLINE I dot_pairs(I sum, PairsOfK w, PairOfX x) { return {_mm512_dpwssd_epi32(sum.v, w.v, x.v)}; }
ANYBIT_INLINE I add_upper(I high, I low) { return {_mm512_dpwssd_epi32(high.v, low.v, _mm512_set1_epi32(0x10000))}; }  // lower * 0 + upper * 1
ANYBIT_INLINE I lower(I a) { return {_mm512_and_si512(a.v, _mm512_set1_epi32(65535))}; }
// The number nearest to high * 2^16 + low.
ANYBIT_INLINE F joined(I high, I low) {
  const __m512d unit = _mm512_set1_pd(65536.0);
  const auto half = [&](__m256i h, __m256i l) ANYBIT_UNROLLED { return _mm512_cvtpd_ps(_mm512_fmadd_pd(_mm512_cvtepi32_pd(h), unit, _mm512_cvtepi32_pd(l))); };
  const __m256 a = half(_mm512_castsi512_si256(high.v), _mm512_castsi512_si256(low.v));
  const __m256 b = half(_mm512_extracti64x4_epi64(high.v, 1), _mm512_extracti64x4_epi64(low.v, 1));
  return {_mm512_castpd_ps(_mm512_insertf64x4(_mm512_castpd256_pd512(_mm256_castps_pd(a)), _mm256_castps_pd(b), 1))};
}
ANYBIT_INLINE I s16_even(B b) { return {_mm512_srai_epi32(_mm512_slli_epi32(b.v, 16), 16)}; }
ANYBIT_INLINE I s16_odd(B b) { return {_mm512_srai_epi32(b.v, 16)}; }

// Unsigned 16-bit sums of the 16 rows, of which four parts of 16 bytes have a share each, row 4v + d at byte 4d + v: those of even bytes
// and those of odd ones.  All parts together fit 16 bits.
ANYBIT_INLINE I rows_h(B even, B odd) {
  const __m512i two = _mm512_add_epi16(_mm512_shuffle_i32x4(even.v, odd.v, 0x88), _mm512_shuffle_i32x4(even.v, odd.v, 0xdd));  // e e o o
  const __m512i all = _mm512_add_epi16(_mm512_shuffle_i32x4(two, two, 0x88), _mm512_shuffle_i32x4(two, two, 0xdd));            // e o e o
  return {_mm512_srli_epi32(_mm512_sllv_epi32(all, _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 16, 16, 16, 16, 16, 16, 16, 16)), 16)};
}

ANYBIT_INLINE F zero_f() { return {_mm512_setzero_ps()}; }
ANYBIT_INLINE F splat_f(float x) { return {_mm512_set1_ps(x)}; }
ANYBIT_INLINE F load_f(const float* p) { return {_mm512_loadu_ps(p)}; }
ANYBIT_INLINE void store_f(float* p, F f) { _mm512_storeu_ps(p, f.v); }
ANYBIT_INLINE F add_f(F a, F b) { return {_mm512_add_ps(a.v, b.v)}; }
ANYBIT_INLINE F sub_f(F a, F b) { return {_mm512_sub_ps(a.v, b.v)}; }
ANYBIT_INLINE F mul_f(F a, F b) { return {_mm512_mul_ps(a.v, b.v)}; }
ANYBIT_INLINE F div_f(F a, F b) { return {_mm512_div_ps(a.v, b.v)}; }
ANYBIT_INLINE F fma_f(F a, F b, F c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
ANYBIT_INLINE F to_f(I a) { return {_mm512_cvtepi32_ps(a.v)}; }
ANYBIT_INLINE I round_i(F a) { return {_mm512_cvtps_epi32(a.v)}; }
ANYBIT_INLINE I abs_bits(F a) { return {_mm512_and_si512(_mm512_castps_si512(a.v), _mm512_set1_epi32(0x7fffffff))}; }
ANYBIT_INLINE void store_s8(int8_t* p, I a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(a.v)); }
ANYBIT_INLINE void store_s16(int16_t* p, I a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtsepi32_epi16(a.v)); }
ANYBIT_INLINE F load_fp16(const uint8_t* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}; }
ANYBIT_INLINE F load_bf16(const uint8_t* p) {
  const __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(words, 16))};
}
ANYBIT_INLINE F load_e8m0(const uint8_t* p) {
  const __m512i e = load_u8(p).v, odd = _mm512_set1_epi32(0x00400000);  // 2^-127 is subnormal; 255 is NaN
  const __mmask16 special = _mm512_cmpeq_epi32_mask(e, _mm512_setzero_si512()) | _mm512_cmpeq_epi32_mask(e, _mm512_set1_epi32(255));
  const __m512i bits = _mm512_slli_epi32(e, 23);
  return {_mm512_castsi512_ps(_mm512_mask_or_epi32(bits, special, bits, odd))};
}
ANYBIT_INLINE F bf16_even(B b) { return {_mm512_castsi512_ps(_mm512_slli_epi32(b.v, 16))}; }
ANYBIT_INLINE F bf16_odd(B b) {
  return {_mm512_castsi512_ps(_mm512_and_si512(b.v, _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
}
struct T { __m512 v; };
ANYBIT_INLINE T table_f(const float* p) { return {_mm512_loadu_ps(p)}; }
ANYBIT_INLINE F lookup_f(T t, I i) { return {_mm512_permutexvar_ps(i.v, t.v)}; }
constexpr bool kRawLookup = true;  // vpermps takes four bits of an index
constexpr bool kRawFields = true;
template <int N> ANYBIT_INLINE B shr_d(B a) { return {_mm512_srli_epi32(a.v, N)}; }
template <int N> ANYBIT_INLINE B shl_d(B a) { return {_mm512_slli_epi32(a.v, N)}; }
// 2^(23 - P) + the field of so many bits at bit P of each dword, whatever lies beside it.
template <int P, int Bits> ANYBIT_INLINE F field_f(B raw) {
  const __m512i mask = _mm512_set1_epi32(((1 << Bits) - 1) << P), exponent = _mm512_set1_epi32((150 - P) << 23);
  return {_mm512_castsi512_ps(_mm512_ternarylogic_epi32(raw.v, mask, exponent, 0xea))};  // (raw & mask) | exponent
}
template <int Shift> ANYBIT_INLINE F lookup_raw(T t, B b) { return {_mm512_permutexvar_ps(_mm512_srli_epi32(b.v, Shift), t.v)}; }

ANYBIT_INLINE void prefetch(const void* p) { __builtin_prefetch(p); }

template <int Max> struct Acc {
  static constexpr int kRun = 8;
  I total;
  ANYBIT_INLINE void start(const I& from) { total = from; }
  ANYBIT_INLINE I result() const { return total; }
  ANYBIT_INLINE void add(const B& w, const B& x) { total.v = _mm512_dpbusd_epi32(total.v, w.v, x.v); }
  ANYBIT_INLINE void flush() {}
  ANYBIT_INLINE void stay() { total = held(total); }  // in its register from turn to turn: else some of many are spilled
};

// level + 16384 as 128 * high + low, both unsigned bytes
struct Word {
  B low, high;
  explicit Word(const int16_t* levels) {
    alignas(16) uint8_t l[16], u[16];
    for (int i = 0; i < 16; ++i) l[i] = (levels[i] + kWordBias) & 127, u[i] = static_cast<uint8_t>((levels[i] + kWordBias) >> 7);
    low = table16(l);
    high = table16(u);
  }
};
ANYBIT_INLINE void arrange_word(B&, B&) {}
struct WordAcc {
  static constexpr int kRun = 8;
  I lows, highs;
  ANYBIT_INLINE void start(const I& from) { lows = from, highs = zero_i(); }
  ANYBIT_INLINE I result() const { return {_mm512_add_epi32(lows.v, _mm512_slli_epi32(highs.v, 7))}; }
  ANYBIT_INLINE void add(const B& low, const B& high, const B& x) {
    lows.v = _mm512_dpbusd_epi32(lows.v, low.v, x.v);
    highs.v = _mm512_dpbusd_epi32(highs.v, high.v, x.v);
  }
  ANYBIT_INLINE void flush() {}
};

}  // namespace
}  // namespace anybit::avx512
