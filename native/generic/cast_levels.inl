// Casts to a table of levels: codebooks, posits, powers of two, and the floats that are not of the common kind.
#pragma once

#include "generic/cast_ops.hpp"
#include "generic/cast_simd.hpp"

namespace anybit::ANYBIT_VECTOR_ISA {

using Mode = CastMode;

// Calls f(i, x, draws, elements) for every vector; the last may be part of one.  Returns whether there was a NaN.
template <class F> inline bool each_vector(const float* x, const float* drawn, std::size_t n, F f) {
  IntVec nan{};
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Vec v = load(x + i);
    nan |= v != v;
    f(i, v, drawn ? load(drawn + i) : Vec{}, static_cast<std::size_t>(kLanes));
  }
  if (i < n) {
    const Vec v = load_part(x + i, n - i, 0.0f);
    nan |= v != v;
    f(i, v, drawn ? load_part(drawn + i, n - i, 0.0f) : Vec{}, n - i);
  }
  return any_of(nan);
}

// codes = the number of thresholds below x
inline bool count_below(const Grid& g, const float* x, std::int32_t* codes, std::size_t n) {
  if (g.count <= kFewLevels) {
    return each_vector(x, nullptr, n, [&](std::size_t i, Vec v, Vec, std::size_t part) {
      IntVec index{};
      for (int t = 0; t < g.count - 1; ++t) index -= v > splat(g.thresholds[t]);
      std::memcpy(codes + i, &index, 4 * part);
    });
  }
  // The upper bits of a number say where to begin; a few halvings without branches do the rest, several elements at a time so
  // that their loads overlap.
  bool nan = false;
  constexpr std::size_t kTogether = 16;
  for (std::size_t i = 0; i < n; i += kTogether) {
    const std::size_t part = n - i < kTogether ? n - i : kTogether;
    std::int32_t at[kTogether];
    for (std::size_t j = 0; j < part; ++j) {
      std::uint32_t bits;
      std::memcpy(&bits, x + i + j, 4);
      at[j] = g.first[bits >> kKeyShift];
      nan |= x[i + j] != x[i + j];
    }
    for (int step = g.stride; step > 0; step /= 2) {
      for (std::size_t j = 0; j < part; ++j) at[j] += g.thresholds[at[j] + step - 1] < x[i + j] ? step : 0;
    }
    for (std::size_t j = 0; j < part; ++j) codes[i + j] = at[j];
  }
  return nan;
}

// codes: of the lower neighbours by count_below; becomes the chosen ones
inline void choose_neighbours(const Grid& g, const float* drawn, const float* x, std::int32_t* codes, std::size_t n) {
  const Vec lowest = splat(g.low), highest = splat(g.high);
  each_vector(x, drawn, n, [&](std::size_t i, Vec v, Vec draw, std::size_t part) {
    alignas(sizeof(Vec)) float below[kLanes] = {}, above[kLanes] = {};
    std::int32_t low[kLanes] = {};
    for (std::size_t j = 0; j < part; ++j) {
      low[j] = codes[i + j] < g.count - 2 ? codes[i + j] : g.count - 2;
      below[j] = g.levels[low[j]], above[j] = g.levels[low[j] + 1];
    }
    const Vec from = load(below), position = (clamp_of(v, lowest, highest) - from) / (load(above) - from);
    const IntVec chosen = load_int(low) - (draw < position);
    std::memcpy(codes + i, &chosen, 4 * part);
  });
}

inline bool find_levels(const Grid& g, Mode mode, const float* drawn, const float* x, std::int32_t* codes, std::size_t n) {
  const bool nan = count_below(g, x, codes, n);
  if (is_random(mode)) choose_neighbours(g, drawn, x, codes, n);
  return nan;
}

inline bool encode_levels(const Grid& g, Mode mode, const float* drawn, const float* x, std::int32_t* codes, std::size_t n) {
  const bool nan = find_levels(g, mode, drawn, x, codes, n);
  if (g.codes) {
    for (std::size_t i = 0; i < n; ++i) codes[i] = g.codes[codes[i]];
  }
  if (nan && g.has_nan) {
    for (std::size_t i = 0; i < n; ++i) codes[i] = x[i] != x[i] ? static_cast<std::int32_t>(g.nan_code) : codes[i];
  }
  return nan;
}

inline bool round_levels(const Grid& g, Mode mode, const float* drawn, const float* x, float* y, std::size_t n) {
  std::int32_t codes[kCastPiece];
  const bool nan = find_levels(g, mode, drawn, x, codes, n);
  if (nan) {
    for (std::size_t i = 0; i < n; ++i) {
      y[i] = x[i] == x[i] ? g.levels[codes[i]] : g.keeps_nan ? x[i] + x[i] : __builtin_nanf("");
    }
  } else {
    for (std::size_t i = 0; i < n; ++i) y[i] = g.levels[codes[i]];
  }
  return nan;
}

}  // namespace anybit::ANYBIT_VECTOR_ISA
