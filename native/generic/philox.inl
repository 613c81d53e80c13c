// Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011), several counters at a time.
//
// A 64-bit lane holds one word of one counter in its low half; the high half is rubbish, which 32 x 32 -> 64 bit products ignore.
#pragma once

#include "generic/cast_simd.hpp"

namespace anybit::ANYBIT_VECTOR_ISA {

inline constexpr std::uint32_t kPhiloxM0 = 0xD2511F53u, kPhiloxM1 = 0xCD9E8D57u, kPhiloxW0 = 0x9E3779B9u, kPhiloxW1 = 0xBB67AE85u;

inline void philox_one(std::uint64_t seed, std::uint64_t counter, std::uint32_t* words) {
  std::uint32_t c0 = static_cast<std::uint32_t>(counter), c1 = static_cast<std::uint32_t>(counter >> 32), c2 = 0, c3 = 0;
  std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{c0} * kPhiloxM0, b = std::uint64_t{c2} * kPhiloxM1;
    c0 = static_cast<std::uint32_t>(b >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(b);
    c2 = static_cast<std::uint32_t>(a >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(a);
    k0 += kPhiloxW0, k1 += kPhiloxW1;
  }
  words[0] = c0, words[1] = c1, words[2] = c2, words[3] = c3;
}

#if defined(__AVX512F__) || defined(__AVX2__)
// `Steps` vectors of counters at once, because one alone would wait for its own multiplications.
#if defined(__AVX512F__)
typedef __m512i Wide;
inline constexpr int kCounters = 8;
inline Wide wide_splat(std::uint64_t x) { return _mm512_set1_epi64(static_cast<long long>(x)); }
inline Wide wide_xor(Wide a, Wide b) { return _mm512_xor_si512(a, b); }
inline Wide wide_high(Wide a) { return _mm512_srli_epi64(a, 32); }
inline Wide wide_mul(Wide a, Wide b) { return _mm512_mul_epu32(a, b); }
// Counters are dealt to lanes 0 2 1 3 4 6 5 7, so that unpacking leaves the words of neighbours side by side.
inline Wide wide_counters(std::uint64_t first) {
  return _mm512_add_epi64(wide_splat(first), _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7));
}
inline void wide_store(std::uint32_t* words, Wide w0, Wide w1, Wide w2, Wide w3) {
  const Wide t01 = _mm512_mask_blend_epi32(0xAAAA, w0, _mm512_slli_epi64(w1, 32));
  const Wide t23 = _mm512_mask_blend_epi32(0xAAAA, w2, _mm512_slli_epi64(w3, 32));
  _mm512_storeu_si512(words, _mm512_unpacklo_epi64(t01, t23));
  _mm512_storeu_si512(words + 16, _mm512_unpackhi_epi64(t01, t23));
}
#else
typedef __m256i Wide;
inline constexpr int kCounters = 4;
inline Wide wide_splat(std::uint64_t x) { return _mm256_set1_epi64x(static_cast<long long>(x)); }
inline Wide wide_xor(Wide a, Wide b) { return _mm256_xor_si256(a, b); }
inline Wide wide_high(Wide a) { return _mm256_srli_epi64(a, 32); }
inline Wide wide_mul(Wide a, Wide b) { return _mm256_mul_epu32(a, b); }
inline Wide wide_counters(std::uint64_t first) {
  return _mm256_add_epi64(wide_splat(first), _mm256_setr_epi64x(0, 2, 1, 3));
}
inline void wide_store(std::uint32_t* words, Wide w0, Wide w1, Wide w2, Wide w3) {
  const Wide t01 = _mm256_blend_epi32(w0, _mm256_slli_epi64(w1, 32), 0xAA);
  const Wide t23 = _mm256_blend_epi32(w2, _mm256_slli_epi64(w3, 32), 0xAA);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(words), _mm256_unpacklo_epi64(t01, t23));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(words + 8), _mm256_unpackhi_epi64(t01, t23));
}
#endif

inline void philox(std::uint64_t seed, std::uint64_t first, std::uint32_t* words, std::size_t groups) {
  constexpr int kSteps = 2;
  std::size_t i = 0;
  const Wide m0 = wide_splat(kPhiloxM0), m1 = wide_splat(kPhiloxM1);
  for (; i + kSteps * kCounters <= groups; i += kSteps * kCounters) {
    Wide c0[kSteps], c1[kSteps], c2[kSteps], c3[kSteps];
    for (int s = 0; s < kSteps; ++s) {
      c0[s] = wide_counters(first + i + static_cast<std::size_t>(s) * kCounters);
      c1[s] = wide_high(c0[s]);
      c2[s] = c3[s] = wide_splat(0);
    }
    std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      const Wide key0 = wide_splat(k0), key1 = wide_splat(k1);
#pragma GCC unroll 2
      for (int s = 0; s < kSteps; ++s) {
        const Wide a = wide_mul(c0[s], m0), b = wide_mul(c2[s], m1);
        c0[s] = wide_xor(wide_xor(wide_high(b), c1[s]), key0);
        c1[s] = b;
        c2[s] = wide_xor(wide_xor(wide_high(a), c3[s]), key1);
        c3[s] = a;
      }
      k0 += kPhiloxW0, k1 += kPhiloxW1;
    }
    for (int s = 0; s < kSteps; ++s) {
      wide_store(words + 4 * (i + static_cast<std::size_t>(s) * kCounters), c0[s], c1[s], c2[s], c3[s]);
    }
  }
  for (; i < groups; ++i) philox_one(seed, first + i, words + 4 * i);
}
#else
inline void philox(std::uint64_t seed, std::uint64_t first, std::uint32_t* words, std::size_t groups) {
  for (std::size_t i = 0; i < groups; ++i) philox_one(seed, first + i, words + 4 * i);
}
#endif

}  // namespace anybit::ANYBIT_VECTOR_ISA
