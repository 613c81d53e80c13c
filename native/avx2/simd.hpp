// AVX2 + FMA + F16C: 16 rows are two 256-bit registers.  With ANYBIT_VNNI (vnni.inl) bytes are multiplied by vpdpbusd.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <type_traits>
#include <utility>

#include "generic/inline.hpp"
#include "generic/number.inl"

#define ANYBIT_BYTE_TABLES 1  // byte_tables.inl, row_tables.inl

namespace anybit::avx2 {
namespace {

constexpr const char* kName = "avx2";
constexpr int kPrefetch = 2048;  // bytes ahead in the weight stream
constexpr int kFusedRows = 4, kMostFused = 8;  // 8 of 16 registers are accumulators
constexpr int kTablePlanes = 1;  // looked up side by side for one row of x: three sums each
constexpr int kCountSide = 2;  // rows of bits that are counted against as many
#ifdef ANYBIT_VNNI
constexpr int kTileRows = 6;  // 12 sums hide the latency of vpdpbusd
constexpr int kChains = 4, kPeakSums = 6, kByteOffset = 0;
constexpr bool kProductsOfBytes = true;  // of any byte times x, summed exactly
#else
constexpr int kTileRows = 4;
constexpr int kChains = 1, kPeakSums = 4;
constexpr int kByteOffset = 128;  // Acc<255> has u - 128
constexpr bool kProductsOfBytes = false;  // sums of 16 bits on the way
#endif
constexpr int kShortRows = 4, kTilePanels = 1;
constexpr int64_t kMostRows = 128, kPassBytes = 256 << 10;  // of x a pass over the weights: half of a small L2
constexpr int kExactRows = 6, kExactPanels = 1, kExactFused = 4;  // rows times panels of float32 sums; rows that unpack on the way
constexpr bool kFewRegisters = true;
constexpr bool kFloatDigits = false;
constexpr int kWordBias = 0;

struct B { __m256i v[2]; };
struct I { __m256i v[2]; };
struct F { __m256 v[2]; };

#define ANYBIT_BOTH(T, expression) \
  T out;                           \
  {                                \
    constexpr int h = 0;           \
    out.v[h] = expression;         \
  }                                \
  {                                \
    constexpr int h = 1;           \
    out.v[h] = expression;         \
  }                                \
  return out;

ANYBIT_INLINE B load(const uint8_t* p) { ANYBIT_BOTH(B, _mm256_load_si256(reinterpret_cast<const __m256i*>(p) + h)) }
ANYBIT_INLINE void store(uint8_t* p, B b) {
  _mm256_store_si256(reinterpret_cast<__m256i*>(p), b.v[0]);
  _mm256_store_si256(reinterpret_cast<__m256i*>(p) + 1, b.v[1]);
}
ANYBIT_INLINE B held(B b) { return b; }
ANYBIT_INLINE B splat_b(uint8_t x) { ANYBIT_BOTH(B, _mm256_set1_epi8(static_cast<char>(x))) }
ANYBIT_INLINE B xor_b(B a, B b) { ANYBIT_BOTH(B, _mm256_xor_si256(a.v[h], b.v[h])) }
ANYBIT_INLINE B and_b(B a, B b) { ANYBIT_BOTH(B, _mm256_and_si256(a.v[h], b.v[h])) }
ANYBIT_INLINE B or_b(B a, B b) { ANYBIT_BOTH(B, _mm256_or_si256(a.v[h], b.v[h])) }
template <int N> ANYBIT_INLINE B shr_b(B a) { ANYBIT_BOTH(B, _mm256_srli_epi16(a.v[h], N)) }
template <int N> ANYBIT_INLINE B shl_b(B a) { ANYBIT_BOTH(B, _mm256_slli_epi16(a.v[h], N)) }
ANYBIT_INLINE B table16(const uint8_t* table) {
  const __m256i t = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
  return {{t, t}};
}
ANYBIT_INLINE B lookup(B table, B index) { ANYBIT_BOTH(B, _mm256_shuffle_epi8(table.v[h], index.v[h])) }
ANYBIT_INLINE B add_b(B a, B b) { ANYBIT_BOTH(B, _mm256_add_epi8(a.v[h], b.v[h])) }
ANYBIT_INLINE B count_b(B a) {  // bits set in each byte
  const __m256i of = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
  const __m256i mask = _mm256_set1_epi8(15);
  ANYBIT_BOTH(B, _mm256_add_epi8(_mm256_shuffle_epi8(of, _mm256_and_si256(a.v[h], mask)),
                                 _mm256_shuffle_epi8(of, _mm256_and_si256(_mm256_srli_epi16(a.v[h], 4), mask))))
}
// 16-bit lanes
ANYBIT_INLINE B add_h(B a, B b) { ANYBIT_BOTH(B, _mm256_add_epi16(a.v[h], b.v[h])) }
ANYBIT_INLINE B sub_h(B a, B b) { ANYBIT_BOTH(B, _mm256_sub_epi16(a.v[h], b.v[h])) }
ANYBIT_INLINE B low_h(B a) { ANYBIT_BOTH(B, _mm256_and_si256(a.v[h], _mm256_set1_epi16(255))) }
ANYBIT_INLINE B high_h(B a) { ANYBIT_BOTH(B, _mm256_srli_epi16(a.v[h], 8)) }
ANYBIT_INLINE B low_up_h(B a) { ANYBIT_BOTH(B, _mm256_slli_epi16(a.v[h], 8)) }
ANYBIT_INLINE B times64_h(B a) { ANYBIT_BOTH(B, _mm256_slli_epi16(a.v[h], 6)) }
// The same value, of which the compiler knows nothing.
ANYBIT_INLINE B opaque(B b) {
  asm volatile("" : "+x"(b.v[0]), "+x"(b.v[1]));
  return b;
}
ANYBIT_INLINE B broadcast4(const int8_t* x) {
  int32_t word;
  __builtin_memcpy(&word, x, 4);
  const __m256i v = _mm256_set1_epi32(word);
  return {{v, v}};
}

ANYBIT_INLINE I as_ints(B b) { return {{b.v[0], b.v[1]}}; }
ANYBIT_INLINE I load_i(const int32_t* p) { ANYBIT_BOTH(I, _mm256_load_si256(reinterpret_cast<const __m256i*>(p) + h)) }
ANYBIT_INLINE void store_i(int32_t* p, I a) {
  _mm256_store_si256(reinterpret_cast<__m256i*>(p), a.v[0]);
  _mm256_store_si256(reinterpret_cast<__m256i*>(p) + 1, a.v[1]);
}
ANYBIT_INLINE I zero_i() { return {{_mm256_setzero_si256(), _mm256_setzero_si256()}}; }
ANYBIT_INLINE I splat_i(int32_t x) { const __m256i v = _mm256_set1_epi32(x); return {{v, v}}; }
ANYBIT_INLINE I add_i(I a, I b) { ANYBIT_BOTH(I, _mm256_add_epi32(a.v[h], b.v[h])) }
ANYBIT_INLINE I sub_i(I a, I b) { ANYBIT_BOTH(I, _mm256_sub_epi32(a.v[h], b.v[h])) }
ANYBIT_INLINE I mul_i(I a, I b) { ANYBIT_BOTH(I, _mm256_mullo_epi32(a.v[h], b.v[h])) }
ANYBIT_INLINE I shl_i(I a, int n) { const __m128i c = _mm_cvtsi32_si128(n); ANYBIT_BOTH(I, _mm256_sll_epi32(a.v[h], c)) }
template <int N> ANYBIT_INLINE I sar_i(I a) { ANYBIT_BOTH(I, _mm256_srai_epi32(a.v[h], N)) }
ANYBIT_INLINE I max_i(I a, I b) { ANYBIT_BOTH(I, _mm256_max_epi32(a.v[h], b.v[h])) }
ANYBIT_INLINE I load_u8(const uint8_t* p) {
  ANYBIT_BOTH(I, _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8 * h))))
}
template <int J> ANYBIT_INLINE I byte(B b) {
  if constexpr (J == 3) { ANYBIT_BOTH(I, _mm256_srli_epi32(b.v[h], 24)) }
  else if constexpr (J == 0) { ANYBIT_BOTH(I, _mm256_and_si256(b.v[h], _mm256_set1_epi32(255))) }
  else { ANYBIT_BOTH(I, _mm256_and_si256(_mm256_srli_epi32(b.v[h], 8 * J), _mm256_set1_epi32(255))) }
}
ANYBIT_INLINE int32_t reduce_max(I a) {
  alignas(32) int32_t v[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(v), _mm256_max_epi32(a.v[0], a.v[1]));
  int32_t m = v[0];
  for (int i = 1; i < 8; ++i) m = v[i] > m ? v[i] : m;
  return m;
}
ANYBIT_INLINE int32_t reduce_add(I a) {
  const __m256i s = _mm256_add_epi32(a.v[0], a.v[1]);
  __m128i t = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
  t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 0x4e));
  t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 0xb1));
  return _mm_cvtsi128_si32(t);
}

// 16 rows x 2 k of 16 bits, and 2 k of x
using PairsOfK = B;
using PairOfX = B;
ANYBIT_INLINE PairsOfK load_pairs(const uint8_t* p) { return load(p); }
ANYBIT_INLINE PairOfX broadcast_pair(const int8_t* x) { return broadcast4(x); }
ANYBIT_INLINE I dot_pairs(I sum, PairsOfK w, PairOfX x) { ANYBIT_BOTH(I, _mm256_add_epi32(sum.v[h], _mm256_madd_epi16(w.v[h], x.v[h]))) }
ANYBIT_INLINE I add_upper(I high, I low) { ANYBIT_BOTH(I, _mm256_add_epi32(high.v[h], _mm256_srai_epi32(low.v[h], 16))) }
ANYBIT_INLINE I lower(I a) { ANYBIT_BOTH(I, _mm256_and_si256(a.v[h], _mm256_set1_epi32(65535))) }
ANYBIT_INLINE I s16_even(B b) { ANYBIT_BOTH(I, _mm256_srai_epi32(_mm256_slli_epi32(b.v[h], 16), 16)) }
ANYBIT_INLINE I s16_odd(B b) { ANYBIT_BOTH(I, _mm256_srai_epi32(b.v[h], 16)) }
// The number nearest to high * 2^16 + low.
ANYBIT_INLINE F joined(I high, I low) {
  const auto four = [](__m128i h, __m128i l) ANYBIT_UNROLLED {
    return _mm256_cvtpd_ps(_mm256_fmadd_pd(_mm256_cvtepi32_pd(h), _mm256_set1_pd(65536.0), _mm256_cvtepi32_pd(l)));
  };
  ANYBIT_BOTH(F, _mm256_set_m128(four(_mm256_extracti128_si256(high.v[h], 1), _mm256_extracti128_si256(low.v[h], 1)),
                                 four(_mm256_castsi256_si128(high.v[h]), _mm256_castsi256_si128(low.v[h]))))
}

// Unsigned 16-bit sums of the 16 rows, of which four parts of 16 bytes have a share each, row 4v + d at byte 4d + v: those of even bytes
// and those of odd ones.  All parts together fit 16 bits.
ANYBIT_INLINE I rows_h(B even, B odd) {
  const __m256i e = _mm256_add_epi16(even.v[0], even.v[1]), o = _mm256_add_epi16(odd.v[0], odd.v[1]);
  const __m256i all = _mm256_add_epi16(_mm256_permute2x128_si256(e, o, 0x20), _mm256_permute2x128_si256(e, o, 0x31));
  return {{_mm256_and_si256(all, _mm256_set1_epi32(0xffff)), _mm256_srli_epi32(all, 16)}};
}

ANYBIT_INLINE F zero_f() { return {{_mm256_setzero_ps(), _mm256_setzero_ps()}}; }
ANYBIT_INLINE F splat_f(float x) { const __m256 v = _mm256_set1_ps(x); return {{v, v}}; }
ANYBIT_INLINE F load_f(const float* p) { ANYBIT_BOTH(F, _mm256_loadu_ps(p + 8 * h)) }
ANYBIT_INLINE void store_f(float* p, F f) { _mm256_storeu_ps(p, f.v[0]); _mm256_storeu_ps(p + 8, f.v[1]); }
ANYBIT_INLINE F add_f(F a, F b) { ANYBIT_BOTH(F, _mm256_add_ps(a.v[h], b.v[h])) }
ANYBIT_INLINE F sub_f(F a, F b) { ANYBIT_BOTH(F, _mm256_sub_ps(a.v[h], b.v[h])) }
ANYBIT_INLINE F mul_f(F a, F b) { ANYBIT_BOTH(F, _mm256_mul_ps(a.v[h], b.v[h])) }
ANYBIT_INLINE F div_f(F a, F b) { ANYBIT_BOTH(F, _mm256_div_ps(a.v[h], b.v[h])) }
ANYBIT_INLINE F fma_f(F a, F b, F c) { ANYBIT_BOTH(F, _mm256_fmadd_ps(a.v[h], b.v[h], c.v[h])) }
ANYBIT_INLINE F to_f(I a) { ANYBIT_BOTH(F, _mm256_cvtepi32_ps(a.v[h])) }
ANYBIT_INLINE I round_i(F a) { ANYBIT_BOTH(I, _mm256_cvtps_epi32(a.v[h])) }
ANYBIT_INLINE I abs_bits(F a) {
  ANYBIT_BOTH(I, _mm256_and_si256(_mm256_castps_si256(a.v[h]), _mm256_set1_epi32(0x7fffffff)))
}
ANYBIT_INLINE void store_s8(int8_t* p, I a) {
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a.v[0], a.v[1]), 0xd8);
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}
ANYBIT_INLINE void store_s16(int16_t* p, I a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(_mm256_packs_epi32(a.v[0], a.v[1]), 0xd8));
}
ANYBIT_INLINE F load_fp16(const uint8_t* p) {
  ANYBIT_BOTH(F, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p) + h)))
}
ANYBIT_INLINE F load_bf16(const uint8_t* p) {
  ANYBIT_BOTH(F, _mm256_castsi256_ps(_mm256_slli_epi32(
                     _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p) + h)), 16)))
}
ANYBIT_INLINE F load_e8m0(const uint8_t* p) {
  F out;
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    const __m256i e = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8 * h)));
    const __m256i tiny = _mm256_and_si256(_mm256_cmpeq_epi32(e, _mm256_setzero_si256()), _mm256_set1_epi32(0x00400000));
    const __m256i nan = _mm256_and_si256(_mm256_cmpeq_epi32(e, _mm256_set1_epi32(255)), _mm256_set1_epi32(0x00400000));
    out.v[h] = _mm256_castsi256_ps(_mm256_or_si256(_mm256_slli_epi32(e, 23), _mm256_or_si256(tiny, nan)));
  }
  return out;
}
ANYBIT_INLINE F bf16_even(B b) { ANYBIT_BOTH(F, _mm256_castsi256_ps(_mm256_slli_epi32(b.v[h], 16))) }
ANYBIT_INLINE F bf16_odd(B b) {
  ANYBIT_BOTH(F, _mm256_castsi256_ps(_mm256_and_si256(b.v[h], _mm256_set1_epi32(static_cast<int>(0xffff0000u)))))
}
constexpr bool kRawLookup = false, kRawFields = false;
template <int N> B shr_d(B);
template <int N> B shl_d(B);
template <int P, int Bits> F field_f(B);

ANYBIT_INLINE void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

ANYBIT_INLINE __m256i even_s8(__m256i x) { return _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8); }
ANYBIT_INLINE __m256i odd_s8(__m256i x) { return _mm256_srai_epi16(x, 8); }

#ifdef ANYBIT_VNNI
// sum + four products of unsigned and signed bytes
ANYBIT_INLINE __m256i dot_bytes(__m256i sum, __m256i u, __m256i x) {
#if defined(ANYBIT_EMULATED_VNNI)
  const __m256i low = _mm256_set1_epi16(255);
  sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_and_si256(u, low), even_s8(x)));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_srli_epi16(u, 8), odd_s8(x)));
#elif defined(__AVXVNNI__)
  return _mm256_dpbusd_avx_epi32(sum, u, x);
#else
  return _mm256_dpbusd_epi32(sum, u, x);
#endif
}

template <int Max> struct Acc {
  static constexpr int kRun = 8;
  I total;
  ANYBIT_INLINE void start(const I& from) { total = from; }
  ANYBIT_INLINE I result() const { return total; }
  ANYBIT_INLINE void add(const B& w, const B& x) { total = {{dot_bytes(total.v[0], w.v[0], x.v[0]), dot_bytes(total.v[1], w.v[1], x.v[1])}}; }
  ANYBIT_INLINE void flush() {}
};
#else
// u <= 127: pairs u*x + u*x in 16 bits (vpmaddubsw), as many of them added up as cannot overflow: kRun * 2 * 127 * Max <= 32767.
template <int Max> struct Acc {
  static constexpr int kRun = Max <= 15 ? 8 : Max <= 31 ? 4 : Max <= 63 ? 2 : 1;
  static_assert(kRun * 2 * 127 * Max <= 32767);
  I total, part;
  ANYBIT_INLINE void start(const I& from) { total = from, part = zero_i(); }
  ANYBIT_INLINE I result() const { return total; }
  ANYBIT_INLINE void add(const B& w, const B& x) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) part.v[h] = _mm256_add_epi16(part.v[h], _mm256_maddubs_epi16(w.v[h], x.v[h]));
  }
  ANYBIT_INLINE void flush() {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      total.v[h] = _mm256_add_epi32(total.v[h], _mm256_madd_epi16(part.v[h], _mm256_set1_epi16(1)));
      part.v[h] = _mm256_setzero_si256();
    }
  }
};

// u up to 255 would overflow: |u - 128| times x with the sign of u - 128 does not: codes of x are at most 127 in magnitude.
template <> struct Acc<255> {
  static constexpr int kRun = 8;
  I total;
  ANYBIT_INLINE void start(const I& from) { total = from; }
  ANYBIT_INLINE I result() const { return total; }
  ANYBIT_INLINE void add(const B& w, const B& x) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const __m256i level = _mm256_xor_si256(w.v[h], _mm256_set1_epi8(-128));
      const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(level), _mm256_sign_epi8(x.v[h], level));
      total.v[h] = _mm256_add_epi32(total.v[h], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
  }
  ANYBIT_INLINE void flush() {}
};
#endif

struct Word {
  B low, high;
  explicit Word(const int16_t* levels) {
    alignas(16) uint8_t l[16], u[16];
    for (int i = 0; i < 16; ++i) l[i] = levels[i] & 255, u[i] = (levels[i] >> 8) & 255;
    low = table16(l);
    high = table16(u);
  }
};
// Digits of 16-bit levels become the levels of even and odd bytes, which x is split into as well (vpmaddwd).
ANYBIT_INLINE void arrange_word(B& low, B& high) {
  const __m256i bytes = _mm256_set1_epi16(255);
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    const __m256i l = low.v[h], u = high.v[h];
    low.v[h] = _mm256_or_si256(_mm256_and_si256(l, bytes), _mm256_slli_epi16(u, 8));
    high.v[h] = _mm256_or_si256(_mm256_srli_epi16(l, 8), _mm256_andnot_si256(bytes, u));
  }
}
struct WordAcc {
  static constexpr int kRun = 8;
  I total;
  ANYBIT_INLINE void start(const I& from) { total = from; }
  ANYBIT_INLINE I result() const { return total; }
  ANYBIT_INLINE void add(const B& even, const B& odd, const B& x) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      total.v[h] = _mm256_add_epi32(total.v[h], _mm256_madd_epi16(even.v[h], even_s8(x.v[h])));
      total.v[h] = _mm256_add_epi32(total.v[h], _mm256_madd_epi16(odd.v[h], odd_s8(x.v[h])));
    }
  }
  ANYBIT_INLINE void flush() {}
};

// Of one row: digits zipped to words instead, which is less to do and has two sums for every output, as its four k lie side by side.
#define ANYBIT_ZIPS_WORDS 1
constexpr int kMostZipped = 1;  // rows: two take as long as arranged
struct ZippedAcc {
  static constexpr int kRun = 8;
  __m256i first[2], last[2];  // of outputs 0, 1, 4, 5 and 2, 3, 6, 7
  ANYBIT_INLINE void start(const I& from) {
    const __m256i none = _mm256_setzero_si256();
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) first[h] = _mm256_unpacklo_epi32(from.v[h], none), last[h] = _mm256_unpackhi_epi32(from.v[h], none);
  }
  ANYBIT_INLINE I result() const { ANYBIT_BOTH(I, _mm256_hadd_epi32(first[h], last[h])) }
  ANYBIT_INLINE void add(const B& low, const B& high, const B& x) {
    const __m256i four = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(x.v[0]));
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      first[h] = _mm256_add_epi32(first[h], _mm256_madd_epi16(_mm256_unpacklo_epi8(low.v[h], high.v[h]), four));
      last[h] = _mm256_add_epi32(last[h], _mm256_madd_epi16(_mm256_unpackhi_epi8(low.v[h], high.v[h]), four));
    }
  }
  ANYBIT_INLINE void flush() {}
};

#ifndef ANYBIT_VNNI
#define ANYBIT_WIDENS_CODES 1  // where rows are many
void widen_codes(const int8_t* codes, int64_t slots, uint16_t* halves) {
  const __m256i order = _mm256_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15, 0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15);
  for (int64_t k = 0; k < slots; k += 32) {
    const __m256i x = _mm256_shuffle_epi8(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + k)), order);
    auto* to = reinterpret_cast<__m256i*>(halves + k);
    _mm256_storeu_si256(to, _mm256_cvtepi8_epi16(_mm256_castsi256_si128(x)));
    _mm256_storeu_si256(to + 1, _mm256_cvtepi8_epi16(_mm256_extracti128_si256(x, 1)));
  }
}
#endif

}  // namespace
}  // namespace anybit::avx2
