// Attention of 16 query rows and more on AMX tiles.  A number is split into two of bf16, x = high + low with an error below 2^-16 of x, and a
// product is high high + high low + low high (Henry, Tang and Heinecke, 2019, arXiv 1904.06376): what is left out is below 2^-15 of it, a
// sixteenth of the rounding of a key to the fp16 that the cache holds.
#pragma once

#include <immintrin.h>

#include "amx/shapes.hpp"
#include "generic/vector_attention.inl"

namespace anybit::ANYBIT_VECTOR_ISA {

using Words = __m512i;
inline constexpr int kSide = 16, kDepth = 32, kTileBytes = 1024, kFewestTileRows = 16;

struct Split {
  Words high, low;  // bf16 in the upper half of every 32 bits, the lower half is not zero
};
inline Split split(Vec x) {
  const IntVec half = splat(0x8000), mask = splat(static_cast<std::int32_t>(0xffff0000u));
  const IntVec high = (bits_of(x) + half) & mask;
  return {reinterpret_cast<Words>(high), reinterpret_cast<Words>(bits_of(x - float_of(high)) + half)};
}
// Neighbours in depth side by side, as the second operand of a product of tiles has them: a0 b0 a1 b1 ...
inline Words paired(Words a, Words b) { return _mm512_mask_blend_epi16(0xAAAAAAAAu, _mm512_srli_epi32(a, 16), b); }
// Neighbours in a row, as the first operand: four of a, four of b, four of a ...
inline Words in_row(Words a, Words b) { return _mm512_packus_epi32(_mm512_srli_epi32(a, 16), _mm512_srli_epi32(b, 16)); }
// Words 2 i and 2 i + 1 of rows made by in_row hold this depth and the next one.
constexpr int depth_of_pair(int i) { return i / kSide * kDepth + i % kSide / 4 * 4 + i % 2 * 2 + (i % 4 < 2 ? 0 : kSide); }

struct Operand {
  const std::byte *high, *low;
  std::size_t stride;  // bytes from row to row of a tile
  Operand at(std::size_t bytes) const { return {high + bytes, low + bytes, stride}; }
};

// Sums 0 to 3: R tiles of rows by C of columns, += a b for one step of depth.
template <int R, int C>
inline void multiply_tiles(const Operand& a, std::size_t a_down, const Operand& b, std::size_t b_right) {
  const auto dots = [] {
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (C > 1) _tile_dpbf16ps(1, 4, 7);
    if constexpr (R > 1) _tile_dpbf16ps(2, 5, 6);
    if constexpr (R > 1 && C > 1) _tile_dpbf16ps(3, 5, 7);
  };
  _tile_loadd(6, b.high, b.stride);
  if constexpr (C > 1) _tile_loadd(7, b.high + b_right, b.stride);
  _tile_loadd(4, a.low, a.stride);
  if constexpr (R > 1) _tile_loadd(5, a.low + a_down, a.stride);
  dots();
  _tile_loadd(4, a.high, a.stride);
  if constexpr (R > 1) _tile_loadd(5, a.high + a_down, a.stride);
  dots();
  _tile_loadd(6, b.low, b.stride);
  if constexpr (C > 1) _tile_loadd(7, b.low + b_right, b.stride);
  dots();
}

// c (+)= a b: R by C tiles, `steps` of depth.
template <int R, int C, bool Accumulate>
inline void product_of_tiles(Operand a, std::size_t a_down, Operand b, std::size_t b_right, std::size_t b_down, int steps, float* c, int ldc) {
  float *right = c + kSide, *below = c + kSide * ldc;
  const int stride = 4 * ldc;
  if constexpr (Accumulate) {
    _tile_loadd(0, c, stride);
    if constexpr (C > 1) _tile_loadd(1, right, stride);
    if constexpr (R > 1) _tile_loadd(2, below, stride);
    if constexpr (R > 1 && C > 1) _tile_loadd(3, below + kSide, stride);
  } else {
    _tile_zero(0);
    if constexpr (C > 1) _tile_zero(1);
    if constexpr (R > 1) _tile_zero(2);
    if constexpr (R > 1 && C > 1) _tile_zero(3);
  }
  for (int i = 0; i < steps; ++i) {
    multiply_tiles<R, C>(a, a_down, b, b_right);
    a = a.at(2 * kDepth), b = b.at(b_down);
  }
  _tile_stored(0, c, stride);
  if constexpr (C > 1) _tile_stored(1, right, stride);
  if constexpr (R > 1) _tile_stored(2, below, stride);
  if constexpr (R > 1 && C > 1) _tile_stored(3, below + kSide, stride);
}

// c [16 rows][16 columns] (+)= a b; b lies in tiles, `b_down` bytes from one step of depth to the next.
template <bool Accumulate>
inline void product_by_tiles(const Operand& a, int rows, const Operand& b, std::size_t b_down, int columns, int steps, float* c, int ldc) {
  asm volatile("" ::: "memory");  // the intrinsics do not say that they read memory
  const std::size_t a_down = kSide * a.stride;
  for (int r = 0; r < rows; r += 2) {
    for (int j = 0; j < columns; j += 2) {
      const Operand ar = a.at(r * a_down), bj = b.at(j * static_cast<std::size_t>(kTileBytes));
      float* to = c + (r * ldc + j) * kSide;
      const bool two_rows = r + 1 < rows, two_columns = j + 1 < columns;
      if (two_rows && two_columns) product_of_tiles<2, 2, Accumulate>(ar, a_down, bj, kTileBytes, b_down, steps, to, ldc);
      else if (two_rows) product_of_tiles<2, 1, Accumulate>(ar, a_down, bj, kTileBytes, b_down, steps, to, ldc);
      else if (two_columns) product_of_tiles<1, 2, Accumulate>(ar, a_down, bj, kTileBytes, b_down, steps, to, ldc);
      else product_of_tiles<1, 1, Accumulate>(ar, a_down, bj, kTileBytes, b_down, steps, to, ldc);
    }
  }
  asm volatile("" ::: "memory");
}

// As VectorProducts, rows in sixteens.
template <class T>
class TileProducts {
 public:
  static constexpr int kBlock = 2 * kSide, kRows = kSide;
  TileProducts(const Attention& p, int rows, float* scratch)
      : p_(p), rows_(rows), dp_(padded_dim(p.head_dim)), depth_((p.head_dim + kDepth - 1) / kDepth * kDepth) {
    const auto take = [&](std::size_t words) {
      const auto at = reinterpret_cast<std::byte*>(scratch);
      scratch += words;
      return Halves{at, at + 2 * words};
    };
    q_ = take(static_cast<std::size_t>(room(rows)) * depth_);
    keys_at_ = take(static_cast<std::size_t>(kTilePositions) * depth_);
    values_at_ = take(static_cast<std::size_t>(kTilePositions) * dp_);
    tiles_.shape(2 * amx::kTileX, 2 * kDepth);
  }
  void begin() {
    for (int r = 0; r < room(rows_); ++r) {
      const float* from = r < rows_ ? query_row(p_, r) : nullptr;
      const auto query = [&](int d) {
        const int left = from ? p_.head_dim - d : 0;
        if (left >= kSide) return load(from + d) * p_.scale;
        return left > 0 ? load_part(from + d, static_cast<std::size_t>(left), 0.0f) * p_.scale : Vec{};
      };
      for (int d = 0; d < depth_; d += kDepth) put_row(q_, 2 * (static_cast<std::size_t>(r) * depth_ + d), query(d), query(d + kSide));
    }
  }
  void enter(const std::byte* tile, int keys, const std::byte* /*next*/) {
    keys_ = keys;
    at_ = CachedTile<T>::of(tile, p_.head_dim);
    for (int i = 0; i < depth_ / 2; ++i) {
      const int d = depth_of_pair(i);
      for (int j = 0; j < keys; j += kSide) {
        put_pair(keys_at_, tile_at(2 * i, j / kSide, kTilePositions / kSide) + i % kSide * 64, key(d, j), key(d + 1, j));
      }
    }
    for (int i = 0; i < (keys + kDepth - 1) / kDepth * kSide; ++i) {
      const int position = depth_of_pair(i);
      for (int d = 0; d < dp_; d += kSide) {
        put_pair(values_at_, tile_at(2 * i, d / kSide, dp_ / kSide) + i % kSide * 64, value(position, d), value(position + 1, d));
      }
    }
  }
  void scores(int first, int count, int n, float* s) {
    const Operand q = Operand{q_.high, q_.low, 2 * static_cast<std::size_t>(depth_)}.at(2 * static_cast<std::size_t>(first) * depth_);
    const Operand k{keys_at_.high, keys_at_.low, 64};
    product_by_tiles<false>(q, room(count) / kSide, k, kTilePositions / kSide * kTileBytes, n / kSide, depth_ / kDepth, s, kTilePositions);
  }
  void values(int count, int /*keys*/, int n, float* s, float* acc) {
    alignas(64) std::byte weights[2][kBlock * kTilePositions * 2];
    for (int r = 0; r < room(count); ++r) {
      for (int j = 0; j < n; j += kDepth) {
        const float* from = s + r * kTilePositions + j;
        put_row({weights[0], weights[1]}, static_cast<std::size_t>(2 * (r * kTilePositions + j)), load(from), j + kSide < n ? load(from + kSide) : Vec{});
      }
    }
    const Operand w{weights[0], weights[1], 2 * kTilePositions}, v{values_at_.high, values_at_.low, 64};
    const int steps = (n + kDepth - 1) / kDepth;
    product_by_tiles<true>(w, room(count) / kSide, v, static_cast<std::size_t>(dp_ / kSide) * kTileBytes, dp_ / kSide, steps, acc, dp_);
  }

 private:
  struct Halves {
    std::byte *high = nullptr, *low = nullptr;
  };
  // Bytes to the tile of depth d and a block of columns.
  static std::size_t tile_at(int d, int column, int columns) {
    return static_cast<std::size_t>(d / kDepth * columns + column) * kTileBytes;
  }
  static constexpr int room(int rows) { return (rows + kSide - 1) / kSide * kSide; }
  static void put_pair(const Halves& to, std::size_t at, Vec a, Vec b) {
    const Split x = split(a), y = split(b);
    _mm512_storeu_si512(to.high + at, paired(x.high, y.high));
    _mm512_storeu_si512(to.low + at, paired(x.low, y.low));
  }
  static void put_row(const Halves& to, std::size_t at, Vec a, Vec b) {
    const Split x = split(a), y = split(b);
    _mm512_storeu_si512(to.high + at, in_row(x.high, y.high));
    _mm512_storeu_si512(to.low + at, in_row(x.low, y.low));
  }
  Vec key(int d, int j) const {
    if (d >= p_.head_dim) return Vec{};
    Vec x = load(at_.k + d * kTilePositions + j);
    if constexpr (sizeof(T) == 1) x = x * load(at_.scales + j);
    return x;
  }
  Vec value(int position, int d) const {
    if (position >= keys_) return Vec{};
    Vec x = load(at_.v + static_cast<std::size_t>(position) * dp_ + d);
    if constexpr (sizeof(T) == 1) x = x * at_.scales[kTilePositions + position];
    return x;
  }

  const Attention& p_;
  int rows_, dp_, depth_, keys_ = 0;
  Halves q_, keys_at_, values_at_;
  CachedTile<T> at_;
  amx::Tiles tiles_;
};

inline void attention_on_tiles(const Attention& p) {
  // A cache of float32 was asked for by somebody who wants float32.
  if (p.type == CacheType::fp32 || p.tokens * p.group < kFewestTileRows) return attention(p);
  attention_by<TileProducts>(p);
}

}  // namespace anybit::ANYBIT_VECTOR_ISA
