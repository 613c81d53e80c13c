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

template <class Mask> inline IntVec narrow_mask(Mask m) { return __builtin_convertvector(m, IntVec); }
inline Doubles widened(Vec v) { return __builtin_convertvector(v, Doubles); }

// d as float32.  Rounding to the nearest is the processor's; its result says which two values d lies between.
template <Mode M> inline Vec narrowed(Doubles d, Doubles draw) {
  const Vec near = __builtin_convertvector(d, Vec);
  if constexpr (M == Mode::nearest_even) return near;
  const Doubles back = widened(near);
  const IntVec inexact = narrow_mask((back < d) | (back > d));  // false for NaN
  const IntVec negative = narrow_mask(d < 0.0);
  const IntVec too_far = (narrow_mask(back < d) ^ negative) + 1;  // 1 where |near| > |d|
  // -0 and 0 lie on their own sides: the pattern of the neighbour away from zero is one more on both.
  const IntVec inner = bits_of(near) - (inexact & too_far), outer = inner - inexact;
  IntVec away;
  if constexpr (M == Mode::toward_zero) away = IntVec{};
  if constexpr (M == Mode::up) away = ~negative;
  if constexpr (M == Mode::down) away = negative;
  if constexpr (M == Mode::odd) away = (inner & 1) - 1;
  if constexpr (M == Mode::nearest_away || M == Mode::nearest_zero || M == Mode::nearest_up || M == Mode::nearest_down) {
    const Doubles middle = (widened(float_of(inner)) + widened(float_of(outer))) * 0.5;
    const IntVec tie = narrow_mask(d == middle), further = narrow_mask((d > middle) ^ (d < 0.0)) & ~tie;
    if constexpr (M == Mode::nearest_away) away = further | tie;
    if constexpr (M == Mode::nearest_zero) away = further;
    if constexpr (M == Mode::nearest_up) away = further | (tie & ~negative);
    if constexpr (M == Mode::nearest_down) away = further | (tie & negative);
  }
  if constexpr (M == Mode::stochastic) {
    const Doubles low = widened(float_of(select_int(negative, outer, inner))), high = widened(float_of(select_int(negative, inner, outer)));
    const IntVec up = narrow_mask(draw < (d - low) / (high - low));
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
    const Vec r = narrowed<M>(load_lanes(x + i, part), drawn ? load_lanes(drawn + i, part) : Doubles{});
    if (part == kLanes) store(y + i, r);
    else store_part(y + i, r, part);
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
    IntVec over, under;
    if (drawn) {
      // Positions beyond the last value, rounded as the reference rounds them: it adds the parity, and 1 more below.
      const auto t = load_lanes(drawn + i, part);
      auto p = (v - top) * up, q = (bottom - v) * down;
      const decltype(p) zero{}, one = zero + 1;
      p = p < 0 ? zero : p > 1 ? one : p;
      q = q < 0 ? zero : q > 1 ? one : q;
      over = narrow_mask(t < (p + odd_top) - odd_top);
      under = narrow_mask(t >= (1 + odd_bottom) - (q + odd_bottom));
    } else {
      over = narrow_mask(v > above), under = narrow_mask(v < below);
    }
    IntVec r{};
    std::memcpy(&r, y + i, 4 * part);
    r = select_int(over, splat(high), select_int(under, splat(low), r));
    std::memcpy(y + i, &r, 4 * part);
  }
}

}  // namespace anybit::ANYBIT_VECTOR_ISA
