// exp, tanh, silu and gelu of float vectors.  Polynomials are weighted minimax fits of our own (relative error below 1e-8
// before rounding); what remains is the rounding of a handful of float32 operations.
#pragma once

#include "generic/vector_simd.hpp"

namespace anybit::ANYBIT_VECTOR_ISA {

// e^x, error below 2 ulp where the result is normal; 0 below -104, infinity above 88.73; NaN stays NaN.
inline Vec exp_of(Vec x) {
  x = max_of(min_of(x, splat(89.0f)), splat(-104.0f));
  const Vec magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer in the low mantissa bits
  const Vec shifted = fma_of(x, splat(1.44269504f), magic);
  const Vec n = shifted - magic;
  // ln 2 in two parts; n times the first is exact
  const Vec r = fma_of(n, splat(-1.42860682030941723212e-6f), fma_of(n, splat(-0.693145751953125f), x));
  Vec p = splat(1.381446674e-3f);
  p = fma_of(p, r, splat(8.368780429e-3f));
  p = fma_of(p, r, splat(4.166839422e-2f));
  p = fma_of(p, r, splat(1.666652011e-1f));
  p = fma_of(p, r, splat(4.999999341e-1f));
  p = fma_of(p * r, r, r) + 1.0f;
  return times_power_of_two(p, n);
}

inline Vec tanh_of(Vec x) {
  const Vec a = abs_of(x), u = x * x;
  Vec p = splat(-5.717044515e-3f);
  p = fma_of(p, u, splat(2.065058679e-2f));
  p = fma_of(p, u, splat(-5.374349792e-2f));
  p = fma_of(p, u, splat(1.333149128e-1f));
  p = fma_of(p, u, splat(-3.333328393e-1f));
  const Vec small = fma_of(p * u, x, x);
  const Vec big = 1.0f - 2.0f / (exp_of(a + a) + 1.0f);
  const Vec signed_big = float_of(bits_of(big) | (bits_of(x) & splat(static_cast<std::int32_t>(0x80000000u))));
  return select(a < splat(0.625f), small, signed_big);
}

inline Vec silu_of(Vec x) { return x / (1.0f + exp_of(-x)); }

// 0.5 x (1 + tanh(s)) is x * sigmoid(2 s): one exponential, no cancellation.
inline Vec gelu_tanh_of(Vec x) {
  const Vec s2 = x * (1.5957691216057308f + 0.07135481282552484f * (x * x));
  return x / (1.0f + exp_of(-s2));
}

// x * Phi(x); Phi(-|x|) = erfc(z) / 2 with z = |x| / sqrt 2 and erfc(z) = exp(-z^2) t P(t), t = 1 / (1 + 0.4 z).
inline Vec gelu_of(Vec x) {
  const Vec z = min_of(abs_of(x) * 0.70710678f, splat(10.5f));
  const Vec t = 1.0f / (1.0f + 0.4f * z);
  Vec p = splat(-2.863682072e-2f);
  p = fma_of(p, t, splat(1.928219823e-1f));
  p = fma_of(p, t, splat(-4.866290178e-1f));
  p = fma_of(p, t, splat(5.312276184e-1f));
  p = fma_of(p, t, splat(-2.709240999e-1f));
  p = fma_of(p, t, splat(2.648743877e-1f));
  p = fma_of(p, t, splat(1.321562324e-1f));
  p = fma_of(p, t, splat(2.143907831e-1f));
  p = fma_of(p, t, splat(2.250152681e-1f));
  p = fma_of(p, t, splat(2.257036756e-1f));
  const Vec tail = 0.5f * t * p * exp_of(-(z * z));
  return x * select(x > 0.0f, 1.0f - tail, tail);
}

}  // namespace anybit::ANYBIT_VECTOR_ISA
