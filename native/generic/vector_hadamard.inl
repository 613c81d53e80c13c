// x -> x D H along a row, H block-diagonal and orthonormal (transforms/hadamard.py): signs, a dense matrix of a small order, and the
// additions and subtractions of the doublings above it.  Entries of the dense matrix are 1 and -1, so products are exact and all
// instruction sets give the same bits.
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

inline void hadamard(const HadamardShape& h, const float* small, const float* signs, const float* x, float* y, std::size_t n) {
  const bool before = signs && !h.inverse, after = signs && h.inverse;
  const Vec factor = splat(1.0f / __builtin_sqrtf(static_cast<float>(h.block)));
  if (before) {
    map2(x, signs, y, n, [](Vec v, Vec s) { return v * s; });
  } else if (y != x) {
    std::memcpy(y, x, n * sizeof(float));
  }
  for (std::size_t start = 0; start < n; start += static_cast<std::size_t>(h.block)) {
    float* block = y + start;
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
