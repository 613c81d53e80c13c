// x -> x D H along a row, H block-diagonal and orthonormal (transforms/hadamard.py): signs, a dense matrix of a small order, and the
// additions and subtractions of the doublings above it, the smaller ones first.  Entries of the dense matrix are 1 and -1, so products are
// exact and all instruction sets give the same bits.  Powers of two are doublings throughout: those within a vector and across eight of
// them on the way in, the others up to three at a time, so that 256 numbers are read and written twice.
#pragma once

#include "generic/vector_ops.hpp"
#include "generic/vector_simd.hpp"

namespace anybit::ANYBIT_VECTOR_ISA {

inline constexpr int kChunksAtOnce = 8;  // that share a row of the small matrix and hide the latency of fma
inline constexpr int kMostOrder = 128;

// `Chunks` neighbouring chunks of y, each times the matrix m [order][order].
template <int Chunks> inline void times_small(const float* m, int order, float* y) {
  alignas(64) float in[Chunks * kMostOrder];
  std::memcpy(in, y, sizeof(float) * static_cast<std::size_t>(Chunks) * order);
  int column = 0;
  for (; column + kLanes <= order; column += kLanes) {
    Vec sum[Chunks] = {};
    for (int j = 0; j < order; ++j) {
      const Vec row = load(m + j * order + column);
#pragma GCC unroll 8
      for (int c = 0; c < Chunks; ++c) sum[c] = fma_of(splat(in[c * order + j]), row, sum[c]);
    }
#pragma GCC unroll 8
    for (int c = 0; c < Chunks; ++c) store(y + c * order + column, sum[c]);
  }
  for (; column < order; ++column) {
    for (int c = 0; c < Chunks; ++c) {
      float sum = 0.0f;
      for (int j = 0; j < order; ++j) sum += in[c * order + j] * m[j * order + column];
      y[c * order + column] = sum;
    }
  }
}

// Doublings from `half` on within a block, two at a time.
inline void butterflies(float* y, int half, int block) {
  for (; 4 * half <= block; half *= 4) {
    for (int start = 0; start < block; start += 4 * half) {
      float* at = y + start;
      int i = 0;
      for (; i + kLanes <= half; i += kLanes) {
        const Vec a = load(at + i), b = load(at + half + i), c = load(at + 2 * half + i), d = load(at + 3 * half + i);
        const Vec p = a + b, q = a - b, r = c + d, s = c - d;
        store(at + i, p + r);
        store(at + half + i, q + s);
        store(at + 2 * half + i, p - r);
        store(at + 3 * half + i, q - s);
      }
      for (; i < half; ++i) {
        const float a = at[i], b = at[half + i], c = at[2 * half + i], d = at[3 * half + i];
        const float p = a + b, q = a - b, r = c + d, s = c - d;
        at[i] = p + r, at[half + i] = q + s, at[2 * half + i] = p - r, at[3 * half + i] = q - s;
      }
    }
  }
  for (; 2 * half <= block; half *= 2) {
    for (int start = 0; start < block; start += 2 * half) {
      float* at = y + start;
      int i = 0;
      for (; i + kLanes <= half; i += kLanes) {
        const Vec a = load(at + i), b = load(at + half + i);
        store(at + i, a + b);
        store(at + half + i, a - b);
      }
      for (; i < half; ++i) {
        const float a = at[i], b = at[half + i];
        at[i] = a + b, at[half + i] = a - b;
      }
    }
  }
}

// Lane i has what lane i ^ Half of v has.
template <int Half, int... I> inline Vec swapped(Vec v, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(v, v, (I ^ Half)...);
}
template <int Half, int... I> inline IntVec upper_negated(std::integer_sequence<int, I...>) {
  return IntVec{(I & Half ? static_cast<std::int32_t>(0x80000000u) : 0)...};
}

// The doublings within a vector: a + b in the lower of two lanes, a - b in the upper.
template <int Half = 1> inline Vec within(Vec v) {
  if constexpr (Half == kLanes) {
    return v;
  } else {
    constexpr std::make_integer_sequence<int, kLanes> kAll{};
    return within<2 * Half>(swapped<Half>(v, kAll) + float_of(bits_of(v) ^ upper_negated<Half>(kAll)));
  }
}

// The doublings across N vectors.
template <int N, int Half = 1> inline void across(Vec (&v)[N]) {
  if constexpr (Half < N) {
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) {
      if (i & Half) continue;
      const Vec a = v[i], b = v[i + Half];
      v[i] = a + b, v[i + Half] = a - b;
    }
    across<N, 2 * Half>(v);
  }
}

// All doublings of each N vectors of x[count], what is read by from(i) and written by to(i, vector).
template <int N, class From, class To> inline void first_doublings(int count, From&& from, To&& to) {
  for (int i = 0; i < count; i += N * kLanes) {
    Vec v[N];
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) v[j] = within(from(i + j * kLanes));
    across(v);
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) to(i + j * kLanes, v[j]);
  }
}

// The doublings of y[block] from `half` on to N * half, N of 2, 4, 8.
template <int N, class To> inline void later_doublings(const float* y, int half, int block, To&& to) {
  for (int start = 0; start < block; start += N * half) {
    for (int i = start; i < start + half; i += kLanes) {
      Vec v[N];
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) v[j] = load(y + i + j * half);
      across(v);
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) to(i + j * half, v[j]);
    }
  }
}

// A block of a power of two, of a vector or more; last(i, vector) writes what is done.
template <class From, class Last> inline void doublings(int block, From&& from, float* y, Last&& last) {
  const auto back = [y](int i, Vec v) { store(y + i, v); };
  int half = block < 8 * kLanes ? block : 8 * kLanes;
  const auto first = [&](auto&& to) {
    switch (half / kLanes) {
      case 8: return first_doublings<8>(block, from, to);
      case 4: return first_doublings<4>(block, from, to);
      case 2: return first_doublings<2>(block, from, to);
      default: return first_doublings<1>(block, from, to);
    }
  };
  if (half == block) return first(last);
  first(back);
  for (; 8 * half < block; half *= 8) later_doublings<8>(y, half, block, back);
  switch (block / half) {
    case 8: return later_doublings<8>(y, half, block, last);
    case 4: return later_doublings<4>(y, half, block, last);
    default: return later_doublings<2>(y, half, block, last);
  }
}

inline void hadamard_of_power_of_two(const HadamardShape& h, const float* signs, const float* x, float* y, std::size_t n) {
  const Vec factor = splat(1.0f / __builtin_sqrtf(static_cast<float>(h.block)));
  for (std::size_t start = 0; start < n; start += static_cast<std::size_t>(h.block)) {
    const float *in = x + start, *sign = signs ? signs + start : nullptr;
    float* out = y + start;
    const auto plain = [in](int i) { return load(in + i); };
    const auto scaled = [=](int i, Vec v) { store(out + i, v * factor); };
    if (!signs) doublings(h.block, plain, out, scaled);
    else if (h.inverse) doublings(h.block, plain, out, [=](int i, Vec v) { store(out + i, v * load(sign + i) * factor); });
    else doublings(h.block, [=](int i) { return load(in + i) * load(sign + i); }, out, scaled);
  }
}

inline void hadamard(const HadamardShape& h, const float* small, const float* signs, const float* x, float* y, std::size_t n) {
  const bool power_of_two = (h.block & (h.block - 1)) == 0;
  if (power_of_two && h.block >= kLanes) return hadamard_of_power_of_two(h, signs, x, y, n);
  const bool before = signs && !h.inverse, after = signs && h.inverse;
  const Vec factor = splat(1.0f / __builtin_sqrtf(static_cast<float>(h.block)));
  if (before) {
    map2(x, signs, y, n, [](Vec v, Vec s) { return v * s; });
  } else if (y != x) {
    std::memcpy(y, x, n * sizeof(float));
  }
  for (std::size_t start = 0; start < n; start += static_cast<std::size_t>(h.block)) {
    float* block = y + start;
    if (power_of_two) {  // narrower than a vector
      butterflies(block, 1, h.block);
      continue;
    }
    if (h.inverse) butterflies(block, h.order, h.block);
    int at = 0;
    for (; at + kChunksAtOnce * h.order <= h.block; at += kChunksAtOnce * h.order) times_small<kChunksAtOnce>(small, h.order, block + at);
    for (; at < h.block; at += h.order) times_small<1>(small, h.order, block + at);
    if (!h.inverse) butterflies(block, h.order, h.block);
  }
  if (after) {
    map2(y, signs, y, n, [=](Vec v, Vec s) { return v * s * factor; });
  } else {
    map(y, y, n, [=](Vec v) { return v * factor; });
  }
}

}  // namespace anybit::ANYBIT_VECTOR_ISA
