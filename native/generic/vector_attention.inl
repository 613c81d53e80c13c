// Attention over the tiled KV cache: for a block of query rows, one pass over the tiles with a running maximum and sum
// (online softmax: Milakov and Gimelshein, 2018, arXiv 1805.02867; blocked as in FlashAttention, 2022, arXiv 2205.14135).
// Both products are the same small matrix product C[rows][n] (+)= A[rows][k] B[k][n], because K is stored transposed.
#pragma once

#include "generic/vector_math.inl"
#include "generic/vector_ops.hpp"

namespace anybit::ANYBIT_VECTOR_ISA {

inline constexpr float kNothing = -__builtin_inff();

template <int R, int NV, class T>
inline void product_tile(const float* a, std::size_t lda, const T* b, std::size_t ldb, float* c, std::size_t ldc, int k,
                         bool accumulate) {
  Vec acc[R][NV];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) acc[r][v] = accumulate ? load(c + r * ldc + v * kLanes) : Vec{};
  }
  // Hold the smaller of the two operands and stream the other, or accumulators and operands together exceed the registers.
  // Unconverted B is best left to be a memory operand of the multiplication.
  for (int i = 0; i < k; ++i) {
    if constexpr (R < NV && sizeof(T) < sizeof(float)) {
      Vec x[R];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) x[r] = splat(a[r * lda + i]);
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) {
        const Vec bv = load(b + i * ldb + v * kLanes);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) acc[r][v] = fma_of(x[r], bv, acc[r][v]);
      }
    } else {
      Vec bv[NV];
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) bv[v] = load(b + i * ldb + v * kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const Vec x = splat(a[r * lda + i]);
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) acc[r][v] = fma_of(x, bv[v], acc[r][v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) store(c + r * ldc + v * kLanes, acc[r][v]);
  }
}

constexpr int widest(int rows) {
  int nv = 8;
  while (nv > 1 && nv * rows > kAccumulators) nv /= 2;
  return nv;
}

// n is a multiple of kLanes.
template <int R, int NV, class T>
inline void product_columns(const float* a, std::size_t lda, const T* b, std::size_t ldb, float* c, std::size_t ldc, int n,
                            int k, bool accumulate) {
  int j = 0;
  for (; j + NV * kLanes <= n; j += NV * kLanes) product_tile<R, NV>(a, lda, b + j, ldb, c + j, ldc, k, accumulate);
  if constexpr (NV > 1) {
    if (j < n) product_columns<R, NV / 2>(a, lda, b + j, ldb, c + j, ldc, n - j, k, accumulate);
  }
}

template <class T>
void product(const float* a, std::size_t lda, const T* b, std::size_t ldb, float* c, std::size_t ldc, int rows, int n, int k,
             bool accumulate) {
  int r = 0;
  for (; r + 6 <= rows && rows - r != 8; r += 6) {
    product_columns<6, widest(6)>(a + r * lda, lda, b, ldb, c + r * ldc, ldc, n, k, accumulate);
  }
  if (rows - r == 8) {  // two equal halves beat 6 and 2
    product_columns<4, widest(4)>(a + r * lda, lda, b, ldb, c + r * ldc, ldc, n, k, accumulate);
    r += 4;
  }
  const float* ar = a + r * lda;
  float* cr = c + r * ldc;
  switch (rows - r) {
    case 1: return product_columns<1, widest(1)>(ar, lda, b, ldb, cr, ldc, n, k, accumulate);
    case 2: return product_columns<2, widest(2)>(ar, lda, b, ldb, cr, ldc, n, k, accumulate);
    case 3: return product_columns<3, widest(3)>(ar, lda, b, ldb, cr, ldc, n, k, accumulate);
    case 4: return product_columns<4, widest(4)>(ar, lda, b, ldb, cr, ldc, n, k, accumulate);
    case 5: return product_columns<5, widest(5)>(ar, lda, b, ldb, cr, ldc, n, k, accumulate);
    default: return;
  }
}

// A tile of T as float32 with the scales multiplied in: worth it where many query rows read it.
template <class T>
void widen_tile(const std::byte* tile, int head_dim, float* keys, float* values) {
  const int dp = padded_dim(head_dim);
  const T* k = reinterpret_cast<const T*>(tile);
  const T* v = k + static_cast<std::size_t>(kTilePositions) * head_dim;
  const float* scales = reinterpret_cast<const float*>(v + static_cast<std::size_t>(kTilePositions) * dp);
  constexpr bool scaled = sizeof(T) == 1;
  for (int d = 0; d < head_dim; ++d) {
    for (int j = 0; j < kTilePositions; j += kLanes) {
      Vec x = load(k + d * kTilePositions + j);
      if constexpr (scaled) x = x * load(scales + j);
      store(keys + d * kTilePositions + j, x);
    }
  }
  for (int j = 0; j < kTilePositions; ++j) {
    for (int d = 0; d < dp; d += kLanes) {
      Vec x = load(v + j * dp + d);
      if constexpr (scaled) x = x * scales[kTilePositions + j];
      store(values + j * dp + d, x);
    }
  }
}

// Scores of one row become weights; returns the factor by which what was summed before shrinks.
inline float soften_row(float* s, int n, int begin, int end, float cap, float& max, float& sum) {
  for (int j = 0; j < begin; ++j) s[j] = kNothing;
  for (int j = end > 0 ? end : 0; j < n; ++j) s[j] = kNothing;
  Vec best = splat(kNothing);
  for (int j = 0; j < n; j += kLanes) {
    Vec x = load(s + j);
    if (cap != 0.0f) {
      const Vec capped = cap * tanh_of(x / cap);
      x = select(x == splat(kNothing), x, capped);
      store(s + j, x);
    }
    best = max_of(best, x);
  }
  const float tile_max = largest(best), new_max = tile_max > max ? tile_max : max;
  if (new_max == kNothing) {
    for (int j = 0; j < n; j += kLanes) store(s + j, Vec{});
    return 1.0f;
  }
  Vec total{};
  for (int j = 0; j < n; j += kLanes) {
    const Vec p = exp_of(load(s + j) - new_max);
    store(s + j, p);
    total += p;
  }
  const float shrink = new_max == max ? 1.0f : max == kNothing ? 0.0f : exp_of(splat(max - new_max))[0];
  max = new_max;
  sum = sum * shrink + anybit::ANYBIT_VECTOR_ISA::sum(total);
  return shrink;
}

template <class T>
void attend(const Attention& p, float* max, float* sum, float* acc, float* scratch) {
  constexpr bool scaled = sizeof(T) == 1;
  const int dp = padded_dim(p.head_dim), rows = p.tokens * p.group;
  float* q = scratch;
  float* scores = q + static_cast<std::size_t>(rows) * dp;
  float* wide_k = scores + static_cast<std::size_t>(rows) * kTilePositions;
  float* wide_v = wide_k + static_cast<std::size_t>(kTilePositions) * dp;
  const bool widen = sizeof(T) < 4 && rows > 8;

  for (int r = 0; r < rows; ++r) {
    const float* from = p.q + (r / p.group) * p.q_stride + static_cast<std::size_t>(r % p.group) * p.head_dim;
    for (int d = 0; d < p.head_dim; ++d) q[static_cast<std::size_t>(r) * dp + d] = from[d] * p.scale;
    max[r] = kNothing;
    sum[r] = 0.0f;
    for (int d = 0; d < dp; d += kLanes) store(acc + static_cast<std::size_t>(r) * dp + d, Vec{});
  }

  const int last = p.position + p.tokens - 1;
  for (int tile = p.tile_begin; tile < p.tile_end; ++tile) {
    const int base = tile * kTilePositions;
    const int keys = last + 1 - base < kTilePositions ? last + 1 - base : kTilePositions;
    if (keys <= 0) break;
    const int n = (keys + kLanes - 1) / kLanes * kLanes;
    const std::byte* bytes = p.tiles[tile] + p.tile_offset;
    const T* k = reinterpret_cast<const T*>(bytes);
    const T* v = k + static_cast<std::size_t>(kTilePositions) * p.head_dim;
    const float* scales = reinterpret_cast<const float*>(v + static_cast<std::size_t>(kTilePositions) * dp);

    if (widen) {
      widen_tile<T>(bytes, p.head_dim, wide_k, wide_v);
      product(q, dp, wide_k, kTilePositions, scores, kTilePositions, rows, n, p.head_dim, false);
    } else {
      product(q, dp, k, kTilePositions, scores, kTilePositions, rows, n, p.head_dim, false);
    }
    for (int r = 0; r < rows; ++r) {
      float* s = scores + static_cast<std::size_t>(r) * kTilePositions;
      if (scaled && !widen) {
        for (int j = 0; j < n; j += kLanes) store(s + j, load(s + j) * load(scales + j));
      }
      const int position = p.position + r / p.group;
      const int begin = p.window > 0 ? position - p.window + 1 - base : 0;
      const int end = position + 1 - base;
      const float shrink =
          soften_row(s, n, begin < n ? begin : n, end < n ? end : n, p.softcap, max[r], sum[r]);
      if (shrink != 1.0f) {
        float* out = acc + static_cast<std::size_t>(r) * dp;
        for (int d = 0; d < dp; d += kLanes) store(out + d, load(out + d) * shrink);
      }
      if (scaled && !widen) {
        for (int j = 0; j < n; j += kLanes) store(s + j, load(s + j) * load(scales + kTilePositions + j));
      }
    }
    if (widen) {
      product(scores, kTilePositions, wide_v, dp, acc, dp, rows, dp, keys, true);
    } else {
      product(scores, kTilePositions, v, dp, acc, dp, rows, dp, keys, true);
    }
  }
}

inline void attention_partial(const Attention& p, float* max, float* sum, float* acc) {
  switch (p.type) {
    case CacheType::fp32: return attend<float>(p, max, sum, acc, p.scratch);
    case CacheType::fp16: return attend<Half>(p, max, sum, acc, p.scratch);
    case CacheType::int8: return attend<std::int8_t>(p, max, sum, acc, p.scratch);
  }
}

inline void attention(const Attention& p) {
  const int dp = padded_dim(p.head_dim), rows = p.tokens * p.group;
  float* acc = p.scratch;
  float* max = acc + static_cast<std::size_t>(rows) * dp;
  float* sum = max + static_cast<std::size_t>(rows) * kLanePad;
  Attention inner = p;
  inner.scratch = sum + static_cast<std::size_t>(rows) * kLanePad;
  attention_partial(inner, max, sum, acc);
  for (int r = 0; r < rows; ++r) {
    float* out = p.out + (r / p.group) * p.out_stride + static_cast<std::size_t>(r % p.group) * p.head_dim;
    const float inverse = 1.0f / sum[r];
    for (int d = 0; d < p.head_dim; ++d) out[d] = acc[static_cast<std::size_t>(r) * dp + d] * inverse;
  }
}

inline void cache_store(std::byte* tile, CacheType type, int head_dim, int slot, const float* k, const float* v) {
  const int dp = padded_dim(head_dim);
  const std::size_t values = static_cast<std::size_t>(kTilePositions) * head_dim;
  if (type == CacheType::fp32) {
    float* t = reinterpret_cast<float*>(tile);
    for (int d = 0; d < head_dim; ++d) t[d * kTilePositions + slot] = k[d];
    std::memcpy(t + values + static_cast<std::size_t>(slot) * dp, v, head_dim * sizeof(float));
    return;
  }
  if (type == CacheType::fp16) {
    Half* t = reinterpret_cast<Half*>(tile);
    Half row[kLanes];
    // Saturate: an infinite key would turn the whole row of weights into NaN.
    const auto bounded = [](Vec x) { return max_of(min_of(x, splat(65504.0f)), splat(-65504.0f)); };
    for (int d = 0; d < head_dim; d += kLanes) {
      const int left = head_dim - d < kLanes ? head_dim - d : kLanes;
      store(row, bounded(load_part(k + d, left, 0.0f)));
      for (int i = 0; i < left; ++i) t[(d + i) * kTilePositions + slot] = row[i];
      store(row, bounded(load_part(v + d, left, 0.0f)));
      std::memcpy(t + values + static_cast<std::size_t>(slot) * dp + d, row, left * sizeof(Half));
    }
    return;
  }
  std::int8_t* t = reinterpret_cast<std::int8_t*>(tile);
  float* scales = reinterpret_cast<float*>(t + values + static_cast<std::size_t>(kTilePositions) * dp);
  for (int which = 0; which < 2; ++which) {
    const float* x = which == 0 ? k : v;
    float largest_abs = 0.0f;
    for (int d = 0; d < head_dim; ++d) {
      const float a = x[d] < 0 ? -x[d] : x[d];
      largest_abs = a > largest_abs ? a : largest_abs;
    }
    const float inverse = largest_abs > 0 ? 127.0f / largest_abs : 0.0f;
    scales[which * kTilePositions + slot] = largest_abs / 127.0f;
    for (int d = 0; d < head_dim; ++d) {
      const auto code = static_cast<std::int8_t>(static_cast<int>(__builtin_rintf(x[d] * inverse)));
      if (which == 0) {
        t[d * kTilePositions + slot] = code;
      } else {
        t[values + static_cast<std::size_t>(slot) * dp + d] = code;
      }
    }
  }
}

}  // namespace anybit::ANYBIT_VECTOR_ISA
