// Attention over the tiled KV cache: for a block of query rows, one pass over the tiles with a running maximum and sum
// (online softmax: Milakov and Gimelshein, 2018, arXiv 1805.02867; blocked as in FlashAttention, 2022, arXiv 2205.14135).
// Both products are the same small matrix product C[rows][n] (+)= A[rows][k] B[k][n], because K is stored transposed.
#pragma once

#include "generic/vector_math.inl"
#include "generic/vector_ops.hpp"

namespace anybit::ANYBIT_VECTOR_ISA {

inline constexpr float kNothing = -__builtin_inff();

// `ahead`: bytes from B to what will be B next, whose lines are fetched on the way; 0 for none.
template <int R, int NV, class T>
inline void product_tile(const float* a, std::size_t lda, const T* b, std::size_t ldb, float* c, std::size_t ldc, int k,
                         bool accumulate, std::ptrdiff_t ahead) {
  Vec acc[R][NV];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) acc[r][v] = accumulate ? load(c + r * ldc + v * kLanes) : Vec{};
  }
  // Hold the smaller of the two operands and stream the other, or accumulators and operands together exceed the registers.
  // Unconverted B is best left to be a memory operand of the multiplication.
  for (int i = 0; i < k; ++i) {
    if (R < 6 && ahead) {
      const char* row = reinterpret_cast<const char*>(b + i * ldb) + ahead;
#pragma GCC unroll 8
      for (std::size_t line = 0; line < NV * kLanes * sizeof(T); line += 64) __builtin_prefetch(row + line);
    }
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
                            int k, bool accumulate, std::ptrdiff_t ahead) {
  int j = 0;
  for (; j + NV * kLanes <= n; j += NV * kLanes) product_tile<R, NV>(a, lda, b + j, ldb, c + j, ldc, k, accumulate, ahead);
  if constexpr (NV > 1) {
    if (j < n) product_columns<R, NV / 2>(a, lda, b + j, ldb, c + j, ldc, n - j, k, accumulate, ahead);
  }
}

template <class T>
void product(const float* a, std::size_t lda, const T* b, std::size_t ldb, float* c, std::size_t ldc, int rows, int n, int k,
             bool accumulate, std::ptrdiff_t ahead = 0) {
  int r = 0;
  for (; r + 6 <= rows && rows - r != 8; r += 6) {
    product_columns<6, widest(6)>(a + r * lda, lda, b, ldb, c + r * ldc, ldc, n, k, accumulate, ahead);
  }
  if (rows - r == 8) {  // two equal halves beat 6 and 2
    product_columns<4, widest(4)>(a + r * lda, lda, b, ldb, c + r * ldc, ldc, n, k, accumulate, ahead);
    r += 4;
  }
  const float* ar = a + r * lda;
  float* cr = c + r * ldc;
  switch (rows - r) {
    case 1: return product_columns<1, widest(1)>(ar, lda, b, ldb, cr, ldc, n, k, accumulate, ahead);
    case 2: return product_columns<2, widest(2)>(ar, lda, b, ldb, cr, ldc, n, k, accumulate, ahead);
    case 3: return product_columns<3, widest(3)>(ar, lda, b, ldb, cr, ldc, n, k, accumulate, ahead);
    case 4: return product_columns<4, widest(4)>(ar, lda, b, ldb, cr, ldc, n, k, accumulate, ahead);
    case 5: return product_columns<5, widest(5)>(ar, lda, b, ldb, cr, ldc, n, k, accumulate, ahead);
    default: return;
  }
}

// Where a tile's parts lie (vector_ops.hpp): of T, with scales of keys and then of values behind them where T has such.
template <class T>
struct CachedTile {
  const T *k = nullptr, *v = nullptr;
  const float* scales = nullptr;
  static CachedTile of(const std::byte* tile, int head_dim) {
    const T* k = reinterpret_cast<const T*>(tile);
    const T* v = k + static_cast<std::size_t>(kTilePositions) * head_dim;
    return {k, v, reinterpret_cast<const float*>(v + static_cast<std::size_t>(kTilePositions) * padded_dim(head_dim))};
  }
};

// A tile of T as float32 with the scales multiplied in: worth it where many query rows read it.
template <class T>
void widen_tile(const std::byte* tile, int head_dim, float* keys, float* values) {
  const int dp = padded_dim(head_dim);
  const auto [k, v, scales] = CachedTile<T>::of(tile, head_dim);
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

inline const float* query_row(const Attention& p, int r) {
  return p.q + (r / p.group) * p.q_stride + static_cast<std::size_t>(r % p.group) * p.head_dim;
}

// Running maximum and sum of up to kLanes rows; `shrink` is what their outputs so far are multiplied by.
struct Running {
  float *max, *sum;
  float shrink[kLanes];
};

// Scores of `count` rows, `first` and after, over the n positions from `base` on become weights. A row sees positions up to its own.
inline void soften_rows(const Attention& p, float* s, int first, int count, int base, int n, Running& run) {
  Vec part[kLanes];
  for (int i = 0; i < kLanes; ++i) part[i] = splat(kNothing);
  for (int i = 0; i < count; ++i) {
    float* row = s + i * kTilePositions;
    const int position = p.position + (first + i) / p.group - base;
    const int begin = p.window > 0 ? position - p.window + 1 : 0, end = position + 1;
    for (int j = 0; j < begin && j < n; ++j) row[j] = kNothing;
    for (int j = end > 0 ? end : 0; j < n; ++j) row[j] = kNothing;
    Vec best = splat(kNothing);
    for (int j = 0; j < n; j += kLanes) {
      Vec x = load(row + j);
      if (p.softcap != 0.0f) {
        const Vec capped = p.softcap * tanh_of(x / p.softcap);
        x = select(x == splat(kNothing), x, capped);
        store(row + j, x);
      }
      best = max_of(best, x);
    }
    part[i] = best;
  }
  const auto lanes = static_cast<std::size_t>(count);
  const Vec before = load_part(run.max, lanes, kNothing);
  const Vec top = max_of(before, reduce_each(part, [](Vec a, Vec b) { return max_of(a, b); }));
  // A row that has seen nothing yet keeps weights of exp(-inf) = 0.
  const Vec base_of = select(top == splat(kNothing), Vec{}, top), shrink = exp_of(before - base_of);
  store_part(run.max, top, lanes);
  store(run.shrink, shrink);
  float down[kLanes];
  store(down, base_of);
  for (int i = 0; i < kLanes; ++i) part[i] = Vec{};
  for (int i = 0; i < count; ++i) {
    float* row = s + i * kTilePositions;
    const Vec most = splat(down[i]);
    Vec total{};
    for (int j = 0; j < n; j += kLanes) {
      const Vec x = exp_of(load(row + j) - most);
      store(row + j, x);
      total += x;
    }
    part[i] = total;
  }
  const Vec total = reduce_each(part, [](Vec a, Vec b) { return a + b; });
  store_part(run.sum, load_part(run.sum, lanes, 0.0f) * shrink + total, lanes);
}

// How query rows meet one tile of keys and values: `begin` once, then `enter` for each tile, then `scores` and `values` for kBlock rows at
// a time, so that scores stay in the first cache.  This one multiplies float32 on vectors.
template <class T>
class VectorProducts {
 public:
  static constexpr int kBlock = 48, kRows = 1;  // sums have room for a multiple of kRows
  VectorProducts(const Attention& p, int rows, float* scratch)
      : p_(p), rows_(rows), dp_(padded_dim(p.head_dim)), widen_(sizeof(T) < 4 && rows > 8), q_(scratch) {
    wide_k_ = q_ + static_cast<std::size_t>(rows) * dp_;
    wide_v_ = wide_k_ + static_cast<std::size_t>(kTilePositions) * dp_;
  }
  void begin() {
    for (int r = 0; r < rows_; ++r) {
      const float* from = query_row(p_, r);
      for (int d = 0; d < p_.head_dim; ++d) q_[static_cast<std::size_t>(r) * dp_ + d] = from[d] * p_.scale;
    }
  }
  // No row of this tile sees more than its first `keys` positions; `next` is the tile after it, or null.
  void enter(const std::byte* tile, int /*keys*/, const std::byte* next) {
    ahead_ = next ? next - tile : 0;
    at_ = CachedTile<T>::of(tile, p_.head_dim);
    if (widen_) widen_tile<T>(tile, p_.head_dim, wide_k_, wide_v_);
  }
  // s [count][64] = q k for n positions, a multiple of kLanes.
  void scores(int first, int count, int n, float* s) {
    const float* q = q_ + static_cast<std::size_t>(first) * dp_;
    if (widen_) {
      product(q, dp_, wide_k_, kTilePositions, s, kTilePositions, count, n, p_.head_dim, false);
      return;
    }
    product(q, dp_, at_.k, kTilePositions, s, kTilePositions, count, n, p_.head_dim, false, ahead_);
    rescale(count, n, s, at_.scales);
  }
  // acc [count][DP] += s v; beyond the first `keys` of the n weights all are 0.
  void values(int count, int keys, int n, float* s, float* acc) {
    if (widen_) {
      product(s, kTilePositions, wide_v_, dp_, acc, dp_, count, dp_, keys, true);
      return;
    }
    rescale(count, n, s, at_.scales + kTilePositions);
    product(s, kTilePositions, at_.v, dp_, acc, dp_, count, dp_, keys, true, ahead_);
  }

 private:
  static void rescale(int count, int n, float* s, const float* scales) {
    if constexpr (sizeof(T) == 1) {
      for (int r = 0; r < count; ++r, s += kTilePositions) {
        for (int j = 0; j < n; j += kLanes) store(s + j, load(s + j) * load(scales + j));
      }
    }
  }
  const Attention& p_;
  int rows_, dp_;
  bool widen_;
  float *q_, *wide_k_, *wide_v_;
  CachedTile<T> at_;
  std::ptrdiff_t ahead_ = 0;
};

template <class Products>
void attend(const Attention& p, float* max, float* sum, float* acc, float* scratch) {
  alignas(64) float scores[Products::kBlock * kTilePositions];
  const int dp = padded_dim(p.head_dim), rows = p.tokens * p.group;
  const int room = (rows + Products::kRows - 1) / Products::kRows * Products::kRows;
  Products products(p, rows, scratch);
  products.begin();
  for (int r = 0; r < rows; ++r) max[r] = kNothing, sum[r] = 0.0f;
  for (std::size_t i = 0; i < static_cast<std::size_t>(room) * dp; i += kLanes) store(acc + i, Vec{});

  const auto seen = [&](int row) { return p.position + row / p.group + 1; };  // positions up to the row's own
  for (int tile = p.tile_begin; tile < p.tile_end; ++tile) {
    const int base = tile * kTilePositions, all = seen(rows - 1) - base;
    if (all <= 0) break;
    const std::byte* next = tile + 1 < p.tile_end ? p.tiles[tile + 1] + p.tile_offset : nullptr;
    products.enter(p.tiles[tile] + p.tile_offset, all < kTilePositions ? all : kTilePositions, next);
    for (int first = 0; first < rows; first += Products::kBlock) {
      const int count = rows - first < Products::kBlock ? rows - first : Products::kBlock;
      const int visible = seen(first + count - 1) - base, keys = visible < kTilePositions ? visible : kTilePositions;
      const bool gone = p.window > 0 && seen(first) - p.window >= base + kTilePositions;
      if (keys <= 0 || gone) continue;
      const int n = (keys + kLanes - 1) / kLanes * kLanes;
      float* out = acc + static_cast<std::size_t>(first) * dp;
      products.scores(first, count, n, scores);
      for (int r = 0; r < count; r += kLanes) {
        Running run{max + first + r, sum + first + r, {}};
        const int some = count - r < kLanes ? count - r : kLanes;
        soften_rows(p, scores + r * kTilePositions, first + r, some, base, n, run);
        for (int i = 0; i < some; ++i) {
          if (run.shrink[i] == 1.0f) continue;
          float* to = out + static_cast<std::size_t>(r + i) * dp;
          for (int d = 0; d < dp; d += kLanes) store(to + d, load(to + d) * run.shrink[i]);
        }
      }
      products.values(count, keys, n, scores, out);
    }
  }
}

// Products<T> for each kind of cache.
template <template <class> class Products>
void attend_cached(const Attention& p, float* max, float* sum, float* acc, float* scratch) {
  switch (p.type) {
    case CacheType::fp32: return attend<Products<float>>(p, max, sum, acc, scratch);
    case CacheType::fp16: return attend<Products<Half>>(p, max, sum, acc, scratch);
    case CacheType::int8: return attend<Products<std::int8_t>>(p, max, sum, acc, scratch);
  }
}

inline void attention_partial(const Attention& p, float* max, float* sum, float* acc) {
  attend_cached<VectorProducts>(p, max, sum, acc, p.scratch);
}

// Whole attention: the sums lie in the scratch and are divided at the end.
template <template <class> class Products>
void attention_by(const Attention& p) {
  const int dp = padded_dim(p.head_dim), rows = p.tokens * p.group, room = (rows + kLanePad - 1) / kLanePad * kLanePad;
  float* acc = p.scratch;
  float* max = acc + static_cast<std::size_t>(room) * dp;
  float* sum = max + room;
  attend_cached<Products>(p, max, sum, acc, sum + room);
  for (int r = 0; r < rows; ++r) {
    float* out = p.out + (r / p.group) * p.out_stride + static_cast<std::size_t>(r % p.group) * p.head_dim;
    const float inverse = 1.0f / sum[r], *from = acc + static_cast<std::size_t>(r) * dp;
    for (int d = 0; d < p.head_dim; d += kLanes) {
      const Vec x = load(from + d) * inverse;
      if (p.head_dim - d >= kLanes) store(out + d, x);
      else store_part(out + d, x, static_cast<std::size_t>(p.head_dim - d));
    }
  }
}

inline void attention(const Attention& p) { attention_by<VectorProducts>(p); }

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
