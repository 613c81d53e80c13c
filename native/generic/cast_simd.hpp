// What casts need beyond generic/vector_simd.hpp: rounding to integers, clamping that keeps NaN, narrowing, 32 x 32 bit products.
#pragma once

#include "generic/vector_simd.hpp"

namespace anybit::ANYBIT_VECTOR_ISA {

typedef std::uint32_t WordVec __attribute__((vector_size(4 * kLanes)));

inline IntVec load_int(const std::int32_t* p) {
  IntVec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store_int(std::int32_t* p, IntVec v) { std::memcpy(p, &v, sizeof v); }
inline bool any_of(IntVec mask) {
  std::int32_t lanes[kLanes], any = 0;
  std::memcpy(lanes, &mask, sizeof mask);
  for (int i = 0; i < kLanes; ++i) any |= lanes[i];
  return any != 0;
}
inline IntVec select_int(IntVec mask, IntVec a, IntVec b) { return mask ? a : b; }
// The sum modulo 2^32: that of a NaN's pattern means nothing, but must not be undefined.
inline IntVec plus(IntVec a, IntVec b) { return reinterpret_cast<IntVec>(reinterpret_cast<WordVec>(a) + reinterpret_cast<WordVec>(b)); }
inline IntVec max_int(IntVec a, IntVec b) { return select_int(a > b, a, b); }

inline std::int32_t largest_int(IntVec v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_epi32(reinterpret_cast<__m512i>(v));
#elif defined(__AVX2__)
  __m128i a = _mm_max_epi32(_mm256_castsi256_si128(reinterpret_cast<__m256i>(v)), _mm256_extracti128_si256(reinterpret_cast<__m256i>(v), 1));
  a = _mm_max_epi32(a, _mm_shuffle_epi32(a, 0x4e));
  a = _mm_max_epi32(a, _mm_shuffle_epi32(a, 0xb1));
  return _mm_cvtsi128_si32(a);
#else
  std::int32_t most = v[0];
  for (int i = 1; i < kLanes; ++i) most = v[i] > most ? v[i] : most;
  return most;
#endif
}

#if defined(__AVX512F__)
#define ANYBIT_ROUND(x, how) reinterpret_cast<Vec>(_mm512_roundscale_ps(reinterpret_cast<__m512>(x), (how) | _MM_FROUND_NO_EXC))
inline Vec round_even_of(Vec x) { return ANYBIT_ROUND(x, _MM_FROUND_TO_NEAREST_INT); }
inline Vec floor_of(Vec x) { return ANYBIT_ROUND(x, _MM_FROUND_TO_NEG_INF); }
inline Vec ceil_of(Vec x) { return ANYBIT_ROUND(x, _MM_FROUND_TO_POS_INF); }
inline Vec trunc_of(Vec x) { return ANYBIT_ROUND(x, _MM_FROUND_TO_ZERO); }
#undef ANYBIT_ROUND
inline IntVec int_of(Vec x) { return reinterpret_cast<IntVec>(_mm512_cvttps_epi32(reinterpret_cast<__m512>(x))); }
inline Vec float_from(IntVec x) { return reinterpret_cast<Vec>(_mm512_cvtepi32_ps(reinterpret_cast<__m512i>(x))); }
// The instructions give their second operand where one is NaN or both are zeros.
inline Vec clamp_of(Vec x, Vec low, Vec high) {
  const __m512 a = _mm512_max_ps(reinterpret_cast<__m512>(low), reinterpret_cast<__m512>(x));
  return reinterpret_cast<Vec>(_mm512_min_ps(reinterpret_cast<__m512>(high), a));
}
#elif defined(__AVX2__)
#define ANYBIT_ROUND(x, how) reinterpret_cast<Vec>(_mm256_round_ps(reinterpret_cast<__m256>(x), (how) | _MM_FROUND_NO_EXC))
inline Vec round_even_of(Vec x) { return ANYBIT_ROUND(x, _MM_FROUND_TO_NEAREST_INT); }
inline Vec floor_of(Vec x) { return ANYBIT_ROUND(x, _MM_FROUND_TO_NEG_INF); }
inline Vec ceil_of(Vec x) { return ANYBIT_ROUND(x, _MM_FROUND_TO_POS_INF); }
inline Vec trunc_of(Vec x) { return ANYBIT_ROUND(x, _MM_FROUND_TO_ZERO); }
#undef ANYBIT_ROUND
inline IntVec int_of(Vec x) { return reinterpret_cast<IntVec>(_mm256_cvttps_epi32(reinterpret_cast<__m256>(x))); }
inline Vec float_from(IntVec x) { return reinterpret_cast<Vec>(_mm256_cvtepi32_ps(reinterpret_cast<__m256i>(x))); }
// The instructions give their second operand where one is NaN or both are zeros.
inline Vec clamp_of(Vec x, Vec low, Vec high) {
  const __m256 a = _mm256_max_ps(reinterpret_cast<__m256>(low), reinterpret_cast<__m256>(x));
  return reinterpret_cast<Vec>(_mm256_min_ps(reinterpret_cast<__m256>(high), a));
}
#else
#if defined(__ARM_NEON)
inline Vec round_even_of(Vec x) { return reinterpret_cast<Vec>(vrndnq_f32(reinterpret_cast<float32x4_t>(x))); }
inline Vec floor_of(Vec x) { return reinterpret_cast<Vec>(vrndmq_f32(reinterpret_cast<float32x4_t>(x))); }
inline Vec ceil_of(Vec x) { return reinterpret_cast<Vec>(vrndpq_f32(reinterpret_cast<float32x4_t>(x))); }
inline Vec trunc_of(Vec x) { return reinterpret_cast<Vec>(vrndq_f32(reinterpret_cast<float32x4_t>(x))); }
inline IntVec int_of(Vec x) { return reinterpret_cast<IntVec>(vcvtq_s32_f32(reinterpret_cast<float32x4_t>(x))); }
inline Vec float_from(IntVec x) { return reinterpret_cast<Vec>(vcvtq_f32_s32(reinterpret_cast<int32x4_t>(x))); }
#else
inline Vec each(Vec x, float (*f)(float)) {
  for (int i = 0; i < kLanes; ++i) x[i] = f(x[i]);
  return x;
}
inline Vec round_even_of(Vec x) { return each(x, [](float v) { return __builtin_rintf(v); }); }
inline Vec floor_of(Vec x) { return each(x, [](float v) { return __builtin_floorf(v); }); }
inline Vec ceil_of(Vec x) { return each(x, [](float v) { return __builtin_ceilf(v); }); }
inline Vec trunc_of(Vec x) { return each(x, [](float v) { return __builtin_truncf(v); }); }
inline IntVec int_of(Vec x) {
  IntVec out;
  for (int i = 0; i < kLanes; ++i) out[i] = x[i] == x[i] ? static_cast<std::int32_t>(x[i]) : 0;
  return out;
}
inline Vec float_from(IntVec x) {
  Vec out;
  for (int i = 0; i < kLanes; ++i) out[i] = static_cast<float>(x[i]);
  return out;
}
#endif
inline Vec clamp_of(Vec x, Vec low, Vec high) {
  const Vec a = select(x < low, low, x);
  return select(a > high, high, a);
}
#endif

// Stores that do not read the line they fill: half the traffic of writing what nobody wrote before.
#if defined(__AVX512F__)
inline void store_past(float* p, Vec v) { _mm512_stream_ps(p, reinterpret_cast<__m512>(v)); }
inline void store_fence() { _mm_sfence(); }
#elif defined(__AVX2__)
inline void store_past(float* p, Vec v) { _mm256_stream_ps(p, reinterpret_cast<__m256>(v)); }
inline void store_fence() { _mm_sfence(); }
#else
inline void store_past(float* p, Vec v) { store(p, v); }
inline void store_fence() {}
#endif

// The low byte of each of 4 * kLanes codes, in order.
#if defined(__AVX512F__)
inline void narrow_bytes(const std::int32_t* codes, std::uint8_t* out) {
  for (int j = 0; j < 4; ++j) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16 * j), _mm512_cvtepi32_epi8(_mm512_loadu_si512(codes + 16 * j)));
  }
}
#elif defined(__AVX2__)
inline void narrow_bytes(const std::int32_t* codes, std::uint8_t* out) {
  const __m256i low = _mm256_set1_epi32(255);
  __m256i v[4];
  for (int j = 0; j < 4; ++j) v[j] = _mm256_and_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + 8 * j)), low);
  const __m256i packed = _mm256_packus_epi16(_mm256_packus_epi32(v[0], v[1]), _mm256_packus_epi32(v[2], v[3]));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
}
#else
inline void narrow_bytes(const std::int32_t* codes, std::uint8_t* out) {
  for (int i = 0; i < 4 * kLanes; ++i) out[i] = static_cast<std::uint8_t>(codes[i]);
}
#endif

}  // namespace anybit::ANYBIT_VECTOR_ISA
