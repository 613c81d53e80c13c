// float64 to float32 in every mode, and what becomes of numbers beyond a format's range.
#pragma once

#include "generic/cast_ops.hpp"
#include "generic/cast_simd.hpp"

namespace anybit::ANYBIT_VECTOR_ISA {

using Mode = CastMode;

inline constexpr std::int32_t kMagnitude = 0x7fffffff;

// As many numbers of a type as a Vec has.
template <class T> struct Lanes;
template <> struct Lanes<float> {
  using Vector = Vec;
  using Pattern = IntVec;
};
template <> struct Lanes<std::int32_t> {
  using Vector = IntVec;
};
template <> struct Lanes<double> {
  typedef double Vector __attribute__((vector_size(8 * kLanes)));
  typedef std::int64_t Pattern __attribute__((vector_size(8 * kLanes)));
};
using Doubles = Lanes<double>::Vector;

// n <= kLanes numbers; the others are zeros.
template <class T> inline typename Lanes<T>::Vector load_lanes(const T* p, std::size_t n) {
  typename Lanes<T>::Vector v{};
  if (n == kLanes) std::memcpy(&v, p, sizeof v);
  else std::memcpy(&v, p, sizeof(T) * n);
  return v;
}

template <class T> inline void store_lanes(T* p, typename Lanes<T>::Vector v, std::size_t n) {
  if (n == kLanes) std::memcpy(p, &v, sizeof v);
  else std::memcpy(p, &v, sizeof(T) * n);
}

// a < b, a mask as wide as the results; compilers take long ways to it from masks of 64 bits.
inline IntVec less_of(Vec a, Vec b) { return a < b; }
#if defined(__AVX512F__)
inline IntVec less_of(const Doubles& a, const Doubles& b) {
  __m512d p[2], q[2];
  std::memcpy(p, &a, sizeof a), std::memcpy(q, &b, sizeof b);
  const unsigned low = _mm512_cmp_pd_mask(p[0], q[0], _CMP_LT_OQ), high = _mm512_cmp_pd_mask(p[1], q[1], _CMP_LT_OQ);
  return reinterpret_cast<IntVec>(_mm512_maskz_set1_epi32(static_cast<__mmask16>(low | high << 8), -1));
}
#elif defined(__AVX2__)
inline IntVec less_of(const Doubles& a, const Doubles& b) {
  __m256d p[2], q[2];
  std::memcpy(p, &a, sizeof a), std::memcpy(q, &b, sizeof b);
  const __m256 low = _mm256_castpd_ps(_mm256_cmp_pd(p[0], q[0], _CMP_LT_OQ)), high = _mm256_castpd_ps(_mm256_cmp_pd(p[1], q[1], _CMP_LT_OQ));
  const __m256i both = _mm256_castps_si256(_mm256_shuffle_ps(low, high, 0x88));
  return reinterpret_cast<IntVec>(_mm256_permute4x64_epi64(both, 0xd8));
}
#else
inline IntVec less_of(const Doubles& a, const Doubles& b) { return __builtin_convertvector(a < b, IntVec); }
#endif
inline Doubles widened(Vec v) { return __builtin_convertvector(v, Doubles); }

// d as float32.  Rounding to the nearest is the processor's; its result says which two values d lies between.
template <Mode M> inline Vec narrowed(Doubles d, Doubles draw) {
  const Vec near = __builtin_convertvector(d, Vec);
  if constexpr (M == Mode::nearest_even) return near;
  const Doubles back = widened(near);
  const IntVec under = less_of(back, d), inexact = under | less_of(d, back);  // false for NaN
  const IntVec negative = less_of(d, Doubles{});
  const IntVec too_far = (under ^ negative) + 1;  // 1 where |near| > |d|
  // -0 and 0 lie on their own sides: the pattern of the neighbour away from zero is one more on both.
  const IntVec inner = bits_of(near) - (inexact & too_far), outer = inner - inexact;
  IntVec away;
  if constexpr (M == Mode::toward_zero) away = IntVec{};
  if constexpr (M == Mode::up) away = ~negative;
  if constexpr (M == Mode::down) away = negative;
  if constexpr (M == Mode::odd) away = (inner & 1) - 1;
  if constexpr (M == Mode::nearest_away || M == Mode::nearest_zero || M == Mode::nearest_up || M == Mode::nearest_down) {
    const Doubles middle = (widened(float_of(inner)) + widened(float_of(outer))) * 0.5;
    const IntVec above = less_of(middle, d), tie = ~(above | less_of(d, middle)), further = (above ^ negative) & ~tie;
    if constexpr (M == Mode::nearest_away) away = further | tie;
    if constexpr (M == Mode::nearest_zero) away = further;
    if constexpr (M == Mode::nearest_up) away = further | (tie & ~negative);
    if constexpr (M == Mode::nearest_down) away = further | (tie & negative);
  }
  if constexpr (M == Mode::stochastic) {
    const Doubles low = widened(float_of(select_int(negative, outer, inner))), high = widened(float_of(select_int(negative, inner, outer)));
    const IntVec up = less_of(draw, (d - low) / (high - low));
    away = up ^ negative;
    // A negative number that moved up to zero loses its sign.
    const IntVec chosen = select_int(away & inexact, outer, inner);
    return float_of(chosen & ~(inexact & ((chosen & kMagnitude) == 0) & ~splat(kMagnitude)));
  }
  return float_of(select_int(away & inexact, outer, inner));
}

template <Mode M> inline void narrow_in_mode(const double* drawn, const double* x, float* y, std::size_t n) {
  for (std::size_t i = 0; i < n; i += kLanes) {
    const std::size_t part = n - i < kLanes ? n - i : kLanes;
    store_lanes(y + i, narrowed<M>(load_lanes(x + i, part), drawn ? load_lanes(drawn + i, part) : Doubles{}), part);
  }
}

inline void widen_fp32(const float* x, double* y, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) y[i] = x[i];
}

// y: what saturating gave for x.
template <class T>
inline void replace(const Beyond& b, const T* drawn, const T* x, std::int32_t high, std::int32_t low, std::int32_t* y, std::size_t n) {
  const auto above = static_cast<T>(b.above), below = static_cast<T>(b.below);
  const auto top = static_cast<T>(b.high), bottom = static_cast<T>(b.low);
  const auto up = static_cast<T>(1 / b.high_step), down = static_cast<T>(1 / b.low_step);
  const auto odd_top = static_cast<T>(b.high_parity), odd_bottom = static_cast<T>(b.low_parity);
  for (std::size_t i = 0; i < n; i += kLanes) {
    const std::size_t part = n - i < kLanes ? n - i : kLanes;
    const auto v = load_lanes(x + i, part);
    const decltype(v - v) zero{};
    IntVec over, under;
    if (drawn) {
      // Positions beyond the last value, rounded as the reference rounds them: it adds the parity, and 1 more below.
      const auto t = load_lanes(drawn + i, part);
      auto p = (v - top) * up, q = (bottom - v) * down;
      const auto one = zero + 1;
      p = p < 0 ? zero : p > 1 ? one : p;
      q = q < 0 ? zero : q > 1 ? one : q;
      over = less_of(t, (p + odd_top) - odd_top);
      const auto stays = (1 + odd_bottom) - (q + odd_bottom);
      under = ~less_of(t, stays) & (less_of(stays, stays + 1));  // false for NaN
    } else {
      over = less_of(zero + above, v), under = less_of(v, zero + below);
    }
    const IntVec r = load_lanes(y + i, part);
    store_lanes(y + i, select_int(over, splat(high), select_int(under, splat(low), r)), part);
  }
}

}  // namespace anybit::ANYBIT_VECTOR_ISA
