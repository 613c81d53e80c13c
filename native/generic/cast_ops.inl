// The table of one instruction set's casts; included once by each <isa>/cast.cc.
#pragma once

#include "generic/cast_ops.hpp"
#include "generic/cast_simd.hpp"
#include "generic/cast_fp64.inl"
#include "generic/cast_levels.inl"
#include "generic/draws.inl"

namespace anybit::ANYBIT_VECTOR_ISA {

inline constexpr std::int32_t kInfinity = 0x7f800000, kQuiet = 0x00400000, kOne = 0x3f800000, kBelowHalf = 0x3effffff;

inline Vec sign_of(Vec x) { return float_of((bits_of(x) & ~splat(kMagnitude)) | splat(kOne)); }  // +-1

// x rounded to an integer.  NaN stays, and so does the sign of zero, except where stochastic rounding moves a negative number up to 0.
template <Mode M> inline Vec integer_of(Vec x, Vec draw) {
  if constexpr (M == Mode::nearest_even) return round_even_of(x);
  if constexpr (M == Mode::toward_zero) return trunc_of(x);
  if constexpr (M == Mode::up) return ceil_of(x);
  if constexpr (M == Mode::down) return floor_of(x);
  if constexpr (M == Mode::stochastic) {
    const Vec below = floor_of(x);
    return select(draw < x - below, below + 1.0f, below);
  }
  // A half would take 0.49999997 up to 1.  The number below it does not, and with a sum rounded to even still takes every tie there.
  if constexpr (M == Mode::nearest_away) return trunc_of(x + float_of((bits_of(x) & ~splat(kMagnitude)) | splat(kBelowHalf)));
  const Vec whole = trunc_of(x);
  IntVec away;
  if constexpr (M == Mode::odd) {
    const Vec half = whole * 0.5f;
    away = (x != whole) & (trunc_of(half) == half);
  } else {
    const Vec distance = abs_of(x - whole);
    if constexpr (M == Mode::nearest_zero) away = distance > 0.5f;
    if constexpr (M == Mode::nearest_up) away = (distance > 0.5f) | ((distance == 0.5f) & (x > 0.0f));
    if constexpr (M == Mode::nearest_down) away = (distance > 0.5f) | ((distance == 0.5f) & (x < 0.0f));
  }
  return select(away, whole + sign_of(x), whole);
}

// A format with fewer than 8 exponent bits.  x / 2^e * 2^m has its integers where the format has its values; multiplying by a
// power of two is exact, because 2^(min_exponent - m) <= 1.
template <Mode M> struct Narrow {
  struct Units {
    Vec units;
    IntVec power, spacing;
  };
  const Vec low, high;
  const IntVec least, shift;
  const bool bare;  // no mantissa: the last bit of a code is the exponent's
  const std::int32_t bias, mantissa, sign, nan_code;

  explicit Narrow(const Grid& g)
      : low(splat(g.low)), high(splat(g.high)), least(splat((g.min_exponent + 127) << 23)), shift(splat(g.mantissa_bits << 23)),
        bare(g.mantissa_bits == 0), bias(g.min_exponent + 127), mantissa(g.mantissa_bits),
        sign(static_cast<std::int32_t>(1u << (g.bits - 1))), nan_code(static_cast<std::int32_t>(g.nan_code)) {}

  Units units_of(Vec x, Vec draw) const {
    const Vec c = clamp_of(x, low, high);
    const IntVec power = max_int(bits_of(c) & kInfinity, least), spacing = power - shift;
    const Vec scaled = c * float_of(splat(254 << 23) - spacing);
    Vec units = integer_of<M>(scaled, draw);
    if constexpr (M == Mode::nearest_even || M == Mode::odd) {
      if (bare) {
        const IntVec odd_field = (((power >> 23) - bias) & 1) == 0;
        const Vec size = abs_of(scaled);
        if constexpr (M == Mode::nearest_even) units = select((size == 1.5f) & ~odd_field, sign_of(scaled), units);
        else units = select((size > 1.0f) & (size < 2.0f), sign_of(scaled) * select(odd_field, splat(1.0f), splat(2.0f)), units);
      }
    }
    return {units, power, spacing};
  }
  Vec value(Vec x, Vec draw) const {
    const Units u = units_of(x, draw);
    return u.units * float_of(u.spacing);
  }
  IntVec code(Vec x, Vec draw) const {
    const Units u = units_of(x, draw);
    // With 2^m <= |units| the leading one adds 1 to the exponent field by itself, and a carry to 2^(m+1) adds one more.
    const IntVec magnitude = (((u.power >> 23) - bias) << mantissa) + int_of(abs_of(u.units));
    return select_int(x != x, splat(nan_code), magnitude | ((bits_of(u.units) >> 31) & sign));
  }
};

// A format with float32's exponents: the upper bits of the pattern.
template <Mode M> struct Upper {
  const Vec low, high;
  const std::int32_t shift, mask, half, nan_code, sign;

  explicit Upper(const Grid& g)
      : low(splat(g.low)), high(splat(g.high)), shift(23 - g.mantissa_bits), mask((1 << shift) - 1), half(1 << (shift - 1)),
        nan_code(static_cast<std::int32_t>(g.nan_code)), sign(static_cast<std::int32_t>(1u << (g.bits - 1))) {}

  IntVec pattern(Vec x, Vec draw) const {
    const IntVec bits = bits_of(clamp_of(x, low, high)), a = bits & kMagnitude, minus = bits & ~splat(kMagnitude);
    const IntVec negative = bits >> 31, cut = splat(~mask);
    IntVec r;
    if constexpr (M == Mode::nearest_even) r = plus(a, ((a >> shift) & 1) + (half - 1)) & cut;
    if constexpr (M == Mode::nearest_away) r = plus(a, splat(half)) & cut;
    if constexpr (M == Mode::nearest_zero) r = plus(a, splat(half - 1)) & cut;
    if constexpr (M == Mode::nearest_up) r = plus(a, half + negative) & cut;
    if constexpr (M == Mode::nearest_down) r = plus(a, half - 1 - negative) & cut;
    if constexpr (M == Mode::toward_zero) r = a & cut;
    if constexpr (M == Mode::up) r = plus(a, mask & ~negative) & cut;
    if constexpr (M == Mode::down) r = plus(a, mask & negative) & cut;
    if constexpr (M == Mode::odd) r = (a & cut) | (((a & mask) != 0) & (mask + 1));
    if constexpr (M == Mode::stochastic) {
      // The position above the lower neighbour, exact: the cut bits are 16 to 22.
      const IntVec rest = a & mask;
      const IntVec upper = draw < float_from(select_int(negative, (mask + 1) - rest, rest)) * float_of(splat((127 - shift) << 23));
      const IntVec away = (upper ^ negative) & (rest != 0) & (mask + 1);
      r = plus(a & cut, away);
      // A negative number that moved up to zero lost its sign.
      return r | (minus & ~((r == 0) & (rest != 0)));
    }
    return r | minus;
  }
  Vec value(Vec x, Vec draw) const {
    return float_of(select_int(x != x, bits_of(x) | kQuiet, pattern(x, draw)));
  }
  IntVec code(Vec x, Vec draw) const {
    const IntVec r = pattern(x, draw);
    return select_int(x != x, splat(nan_code), ((r & kMagnitude) >> shift) | ((r >> 31) & sign));
  }
};

// float32 itself, where no mode has anything to do.
struct Single {
  const Vec low, high;
  const std::int32_t nan_code;
  explicit Single(const Grid& g) : low(splat(g.low)), high(splat(g.high)), nan_code(static_cast<std::int32_t>(g.nan_code)) {}
  Vec value(Vec x, Vec) const { return float_of(select_int(x != x, bits_of(x) | kQuiet, bits_of(clamp_of(x, low, high)))); }
  IntVec code(Vec x, Vec) const { return select_int(x != x, splat(nan_code), bits_of(clamp_of(x, low, high))); }
};

template <Mode M> struct Whole {
  const Vec low, high, unit, scale;
  const std::int32_t mask;
  explicit Whole(const Grid& g)
      : low(splat(g.low)), high(splat(g.high)), unit(splat(g.unit)), scale(splat(1.0f / g.unit)), mask((1 << g.bits) - 1) {}
  Vec units(Vec x, Vec draw) const { return integer_of<M>(clamp_of(x, low, high) * scale, draw); }
  Vec value(Vec x, Vec draw) const { return units(x, draw) * unit + 0.0f; }  // there is no -0
  IntVec code(Vec x, Vec draw) const { return int_of(units(x, draw)) & mask; }
};

// What takes the place of results beyond the range, where one is given.
struct Ends {
  const Vec above, below;
  const IntVec high, low;
  const bool any;
  Ends(const Beyond* b, std::int32_t high_result, std::int32_t low_result)
      : above(splat(b ? static_cast<float>(b->above) : 0.0f)), below(splat(b ? static_cast<float>(b->below) : 0.0f)),
        high(splat(high_result)), low(splat(low_result)), any(b != nullptr) {}
  IntVec put(Vec x, IntVec r) const { return any ? select_int(x > above, high, select_int(x < below, low, r)) : r; }
};
inline Ends value_ends(const Beyond* b) { return {b, b ? b->high_value : 0, b ? b->low_value : 0}; }
inline Ends code_ends(const Beyond* b) { return {b, b ? b->high_code : 0, b ? b->low_code : 0}; }

template <class G>
inline bool round_piece(const Grid& grid, const Beyond* beyond, const float* drawn, const float* x, float* y, std::size_t n) {
  const G g(grid);
  const Ends ends = value_ends(beyond);
  return each_vector(x, drawn, n, [&](std::size_t i, Vec v, Vec draw, std::size_t count) {
    const Vec r = float_of(ends.put(v, bits_of(g.value(v, draw))));
    if (count == kLanes) store(y + i, r);
    else store_part(y + i, r, count);
  });
}

template <class G>
inline bool encode_piece(const Grid& grid, const Beyond* beyond, const float* drawn, const float* x, std::int32_t* codes, std::size_t n) {
  const G g(grid);
  const Ends ends = code_ends(beyond);
  return each_vector(x, drawn, n, [&](std::size_t i, Vec v, Vec draw, std::size_t count) {
    const IntVec c = ends.put(v, g.code(v, draw));
    std::memcpy(codes + i, &c, 4 * count);
  });
}

template <Mode M>
inline bool round_in_mode(const Grid& g, const Beyond* beyond, const float* drawn, const float* x, float* y, std::size_t n) {
  if (is_fp32(g)) return round_piece<Single>(g, beyond, drawn, x, y, n);
  if (g.kind == GridKind::integer) return round_piece<Whole<M>>(g, beyond, drawn, x, y, n);
  if (g.exponent_bits == 8) return round_piece<Upper<M>>(g, beyond, drawn, x, y, n);
  return round_piece<Narrow<M>>(g, beyond, drawn, x, y, n);
}

template <Mode M>
inline bool encode_in_mode(const Grid& g, const Beyond* beyond, const float* drawn, const float* x, std::int32_t* codes, std::size_t n) {
  if (is_fp32(g)) return encode_piece<Single>(g, beyond, drawn, x, codes, n);
  if (g.kind == GridKind::integer) return encode_piece<Whole<M>>(g, beyond, drawn, x, codes, n);
  if (g.exponent_bits == 8) return encode_piece<Upper<M>>(g, beyond, drawn, x, codes, n);
  return encode_piece<Narrow<M>>(g, beyond, drawn, x, codes, n);
}

#define ANYBIT_MODE_CASES(call)                                  \
  switch (mode) {                                                \
    case Mode::nearest_even: return call<Mode::nearest_even>;    \
    case Mode::nearest_away: return call<Mode::nearest_away>;    \
    case Mode::nearest_zero: return call<Mode::nearest_zero>;    \
    case Mode::nearest_up: return call<Mode::nearest_up>;        \
    case Mode::nearest_down: return call<Mode::nearest_down>;    \
    case Mode::toward_zero: return call<Mode::toward_zero>;      \
    case Mode::up: return call<Mode::up>;                        \
    case Mode::down: return call<Mode::down>;                    \
    case Mode::odd: return call<Mode::odd>;                      \
    default: return call<Mode::stochastic>;                      \
  }
using RoundPiece = bool (*)(const Grid&, const Beyond*, const float*, const float*, float*, std::size_t);
using EncodePiece = bool (*)(const Grid&, const Beyond*, const float*, const float*, std::int32_t*, std::size_t);
inline RoundPiece round_for(Mode mode) { ANYBIT_MODE_CASES(round_in_mode) }
inline EncodePiece encode_for(Mode mode) { ANYBIT_MODE_CASES(encode_in_mode) }
using NarrowPiece = void (*)(const double*, const double*, float*, std::size_t);
inline NarrowPiece narrow_for(Mode mode) { ANYBIT_MODE_CASES(narrow_in_mode) }
#undef ANYBIT_MODE_CASES

inline void narrow_fp64(Mode mode, const double* drawn, const double* x, float* y, std::size_t n) { narrow_for(mode)(drawn, x, y, n); }

inline bool encode(const Grid& g, Mode mode, const Beyond* beyond, const float* drawn, const float* x, std::int32_t* codes, std::size_t n) {
  if (g.kind != GridKind::table) return encode_for(mode)(g, beyond, drawn, x, codes, n);
  const bool nan = encode_levels(g, mode, drawn, x, codes, n);
  if (beyond) replace<float>(*beyond, nullptr, x, beyond->high_code, beyond->low_code, codes, n);
  return nan;
}

inline bool round(const Grid& g, Mode mode, const Beyond* beyond, const float* drawn, const float* x, float* y, std::size_t n) {
  if (g.kind != GridKind::table) return round_for(mode)(g, beyond, drawn, x, y, n);
  const bool nan = round_levels(g, mode, drawn, x, y, n);
  if (beyond) replace<float>(*beyond, nullptr, x, beyond->high_value, beyond->low_value, reinterpret_cast<std::int32_t*>(y), n);
  return nan;
}

inline void narrow8(const std::int32_t* codes, std::uint8_t* out, std::size_t n) {
  std::size_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) narrow_bytes(codes + i, out + i);
  for (; i < n; ++i) out[i] = static_cast<std::uint8_t>(codes[i]);
}

inline void narrow16(const std::int32_t* codes, std::uint16_t* out, std::size_t n) {
  typedef std::uint16_t Shorts __attribute__((vector_size(2 * kLanes)));
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Shorts s = __builtin_convertvector(reinterpret_cast<WordVec>(load_int(codes + i)), Shorts);
    std::memcpy(out + i, &s, sizeof s);
  }
  for (; i < n; ++i) out[i] = static_cast<std::uint16_t>(codes[i]);
}

inline std::int32_t magnitude_bits(float x) {
  std::int32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits & kMagnitude;
}

inline void absmax(const float* x, std::size_t n, std::size_t width, std::uint32_t* out) {
  for (std::size_t begin = 0; begin < n; begin += width) {
    const std::size_t end = begin + width < n ? begin + width : n;
    IntVec top[2] = {};
    std::size_t i = begin;
    for (; i + 2 * kLanes <= end; i += 2 * kLanes) {
      top[0] = max_int(top[0], bits_of(load(x + i)) & kMagnitude);
      top[1] = max_int(top[1], bits_of(load(x + i + kLanes)) & kMagnitude);
    }
    std::int32_t most = largest_int(max_int(top[0], top[1]));
    for (; i < end; ++i) {
      const std::int32_t bits = magnitude_bits(x[i]);
      most = bits > most ? bits : most;
    }
    *out++ = static_cast<std::uint32_t>(most);
  }
}

inline void divide(const float* x, std::size_t n, std::size_t width, const float* divisors, float* y) {
  for (std::size_t begin = 0; begin < n; begin += width) {
    const std::size_t end = begin + width < n ? begin + width : n;
    const float divisor = *divisors++;
    const Vec d = splat(divisor);
    std::size_t i = begin;
    for (; i + kLanes <= end; i += kLanes) store(y + i, load(x + i) / d);
    for (; i < end; ++i) y[i] = x[i] / divisor;
  }
}

inline void shift(float* y, std::size_t n, std::size_t width, const float* offsets) {
  for (std::size_t begin = 0; begin < n; begin += width) {
    const std::size_t end = begin + width < n ? begin + width : n;
    const float offset = *offsets++;
    const Vec o = splat(offset);
    std::size_t i = begin;
    for (; i + kLanes <= end; i += kLanes) store(y + i, load(y + i) + o);
    for (; i < end; ++i) y[i] += offset;
  }
}

inline Vec at(const float* p, Vec) { return load(p); }
inline float at(const float* p, float) { return *p; }
inline Vec all(float x, Vec) { return splat(x); }
inline float all(float x, float) { return x; }

// The sum of term(i) over [begin, end): chains of terms sixteen apart, then halves added to halves.
template <class Term> inline float chained(std::size_t begin, std::size_t end, Term&& term) {
  constexpr std::size_t kChains = 16, kVectors = kChains / kLanes;
  Vec sums[kVectors] = {};
  std::size_t i = begin;
  for (; i + kChains <= end; i += kChains) {
    for (std::size_t v = 0; v < kVectors; ++v) sums[v] += term(i + v * kLanes, Vec{});
  }
  alignas(64) float chain[kChains];
  for (std::size_t v = 0; v < kVectors; ++v) store(chain + v * kLanes, sums[v]);
  for (std::size_t c = 0; i < end; ++i, ++c) chain[c] += term(i, 0.0f);
  for (std::size_t half = kChains / 2; half; half /= 2) {
    for (std::size_t c = 0; c < half; ++c) chain[c] += chain[c + half];
  }
  return chain[0];
}

template <bool kWeighted>
inline void errors_of(const float* units, const float* x, const float* weights, std::size_t n, std::size_t width, const float* steps,
                      const float* zeros, float* sums) {
  for (std::size_t begin = 0; begin < n; begin += width) {
    const float step = *steps++, zero = zeros ? *zeros++ : 0.0f;
    *sums++ = chained(begin, begin + width < n ? begin + width : n, [&](std::size_t i, auto kind) {
      const auto wrong = (at(units + i, kind) - all(zero, kind)) * all(step, kind) - at(x + i, kind);
      if constexpr (kWeighted) return wrong * wrong * at(weights + i, kind);
      else return wrong * wrong;
    });
  }
}
inline void errors(const float* units, const float* x, const float* weights, std::size_t n, std::size_t width, const float* steps,
                   const float* zeros, float* sums) {
  (weights ? errors_of<true> : errors_of<false>)(units, x, weights, n, width, steps, zeros, sums);
}

template <bool kWeighted>
inline void projections_of(const float* units, const float* x, const float* weights, std::size_t n, std::size_t width, const float* zeros,
                           float* on_x, float* norms) {
  for (std::size_t begin = 0; begin < n; begin += width) {
    const std::size_t end = begin + width < n ? begin + width : n;
    const float zero = zeros ? *zeros++ : 0.0f;
    const auto weighed = [&](std::size_t i, auto unit) {
      if constexpr (kWeighted) return unit * at(weights + i, unit);
      else return unit;
    };
    *on_x++ = chained(begin, end, [&](std::size_t i, auto kind) {
      return weighed(i, at(units + i, kind) - all(zero, kind)) * at(x + i, kind);
    });
    *norms++ = chained(begin, end, [&](std::size_t i, auto kind) {
      const auto unit = at(units + i, kind) - all(zero, kind);
      return weighed(i, unit) * unit;
    });
  }
}
inline void projections(const float* units, const float* x, const float* weights, std::size_t n, std::size_t width, const float* zeros,
                        float* on_x, float* norms) {
  (weights ? projections_of<true> : projections_of<false>)(units, x, weights, n, width, zeros, on_x, norms);
}

inline void widen_bf16(const std::uint16_t* x, float* y, std::size_t n) {
  typedef std::uint16_t Shorts __attribute__((vector_size(2 * kLanes)));
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    Shorts s;
    std::memcpy(&s, x + i, sizeof s);
    store(y + i, reinterpret_cast<Vec>(__builtin_convertvector(s, WordVec) << 16));
  }
  for (; i < n; ++i) {
    const std::uint32_t bits = static_cast<std::uint32_t>(x[i]) << 16;
    std::memcpy(y + i, &bits, 4);
  }
}

inline void widen_fp16(const std::uint16_t* x, float* y, std::size_t n) {
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, load(reinterpret_cast<const Half*>(x + i)));
  for (; i < n; ++i) y[i] = half_to_float(x[i]);
}

inline void stream(const float* x, float* y, std::size_t n) {
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store_past(y + i, load(x + i));
  for (; i < n; ++i) y[i] = x[i];
}

inline CastOps make_cast_table(const char* isa) {
  return {isa, round, encode, replace<float>, replace<double>, narrow8, narrow16, draws<float>, draws<double>, absmax, divide, shift, errors, projections, widen_bf16,
          widen_fp16, narrow_fp64, widen_fp32, stream, store_fence};
}

}  // namespace anybit::ANYBIT_VECTOR_ISA
