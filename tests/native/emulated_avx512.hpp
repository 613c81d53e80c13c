// AVX-512 for machines without it: SIMDe, and plain loops for the few instructions it lacks.
#pragma once

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <simde/x86/gfni.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "generic/number.inl"

using __mmask16 = simde__mmask16;
using __mmask32 = simde__mmask32;
#undef __m512bh
#define __m512bh __m512i

namespace emulated {
template <class T, class V> struct Lanes {
  T v[sizeof(V) / sizeof(T)];
  explicit Lanes(V x) { std::memcpy(v, &x, sizeof x); }
  Lanes() = default;
  V vector() const {
    V x;
    std::memcpy(&x, v, sizeof x);
    return x;
  }
};
#pragma GCC diagnostic ignored "-Wignored-attributes"
template <class To, class ToV, class From, class FromV, class Op> inline ToV each16(FromV a, Op op) {
  Lanes<From, FromV> in(a);
  Lanes<To, ToV> out;
  for (int i = 0; i < 16; ++i) out.v[i] = op(in.v[i]);
  return out.vector();
}
inline __m512i widen8(__m128i a) { return each16<int32_t, __m512i, uint8_t>(a, [](uint8_t x) { return int32_t{x}; }); }
inline __m512i widen16(__m256i a) { return each16<int32_t, __m512i, uint16_t>(a, [](uint16_t x) { return int32_t{x}; }); }
inline __m512 to_floats(__m512i a) { return each16<float, __m512, int32_t>(a, [](int32_t x) { return static_cast<float>(x); }); }
inline __m512i to_ints(__m512 a) {
  return each16<int32_t, __m512i, float>(a, [](float x) { return static_cast<int32_t>(std::nearbyintf(x)); });
}
inline __m512i shifted_down(__m512i a, int by) { return each16<int32_t, __m512i, int32_t>(a, [by](int32_t x) { return x >> by; }); }
inline __m512 halves(__m256i a) {
  return each16<float, __m512, uint16_t>(a, [](uint16_t x) {
    const __m128 f = simde_mm_cvtph_ps(simde_mm_set1_epi16(static_cast<int16_t>(x)));
    return Lanes<float, __m128>(f).v[0];
  });
}
inline __m512 fused(__m512 a, __m512 b, __m512 c) {  // SIMDe's own rounds twice
  const Lanes<float, __m512> x(a), y(b), z(c);
  Lanes<float, __m512> out;
  for (int i = 0; i < 16; ++i) out.v[i] = std::fma(x.v[i], y.v[i], z.v[i]);
  return out.vector();
}
inline __m512d doubles(__m256i a) {
  const Lanes<int32_t, __m256i> in(a);
  Lanes<double, __m512d> out;
  for (int i = 0; i < 8; ++i) out.v[i] = in.v[i];
  return out.vector();
}
inline __m256 narrowed(__m512d a) {
  const Lanes<double, __m512d> in(a);
  Lanes<float, __m256> out;
  for (int i = 0; i < 8; ++i) out.v[i] = static_cast<float>(in.v[i]);
  return out.vector();
}
inline __m256i lower_halves(__m512i a) { return each16<uint16_t, __m256i, uint32_t>(a, [](uint32_t x) { return static_cast<uint16_t>(x); }); }
inline __m128i lowest_bytes(__m512i a) { return each16<uint8_t, __m128i, uint32_t>(a, [](uint32_t x) { return static_cast<uint8_t>(x); }); }
// Pairs of bf16, the upper one first; sums are rounded as fma rounds, and subnormal numbers are kept, which the instruction takes for zeros.
inline __m512 dot_halves(__m512 sum, __m512i a, __m512i b) {
  const Lanes<uint32_t, __m512i> x(a), y(b);
  const Lanes<float, __m512> from(sum);
  Lanes<float, __m512> out;
  using anybit::float_of_bits;
  for (int i = 0; i < 16; ++i) {
    const float upper = std::fma(float_of_bits(x.v[i] & 0xffff0000u), float_of_bits(y.v[i] & 0xffff0000u), from.v[i]);
    out.v[i] = std::fma(float_of_bits(x.v[i] << 16), float_of_bits(y.v[i] << 16), upper);
  }
  return out.vector();
}
inline int32_t largest(__m512i a) {
  const Lanes<int32_t, __m512i> in(a);
  return *std::max_element(in.v, in.v + 16);
}
}  // namespace emulated

#define _mm512_cvtepu8_epi32 emulated::widen8
#define _mm512_cvtepu16_epi32 emulated::widen16
#define _mm512_cvtepi32_ps emulated::to_floats
#define _mm512_srai_epi32 emulated::shifted_down
#define _mm512_cvtps_epi32 emulated::to_ints
#define _mm512_cvtph_ps emulated::halves
#define _mm512_cvtepi32_pd emulated::doubles
#define _mm512_cvtpd_ps emulated::narrowed
#undef _mm512_fmadd_ps
#define _mm512_fmadd_ps emulated::fused
#define _mm512_cvtepi32_epi16 emulated::lower_halves
#define _mm512_cvtepi32_epi8 emulated::lowest_bytes
#undef _mm512_dpbf16_ps
#define _mm512_dpbf16_ps emulated::dot_halves
#define _mm512_reduce_max_epi32 emulated::largest
