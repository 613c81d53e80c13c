// The tile unit of AMX for machines without it: eight tiles a thread, and shapes that do not fit end the program.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "generic/number.inl"

namespace emulated {

struct Tile {
  int rows = 0, row_bytes = 0;
  alignas(64) std::uint8_t data[16][64] = {};
  template <class T> T at(int row, int i) const {
    T value;
    std::memcpy(&value, data[row] + i * sizeof(T), sizeof(T));
    return value;
  }
  template <class T> void set(int row, int i, T value) { std::memcpy(data[row] + i * sizeof(T), &value, sizeof(T)); }
};

inline thread_local Tile tiles[8];

inline void require(bool holds, const char* sentence) {
  if (holds) return;
  std::fprintf(stderr, "tile unit: %s\n", sentence);
  std::abort();
}

inline void configure(const void* from) {
  struct {
    std::uint8_t palette, start, reserved[14];
    std::uint16_t row_bytes[16];
    std::uint8_t rows[16];
  } shapes;
  static_assert(sizeof shapes == 64);
  std::memcpy(&shapes, from, sizeof shapes);
  require(shapes.palette == 1 && shapes.start == 0, "only palette 1 from the first row on");
  for (int i = 0; i < 8; ++i) {
    require(shapes.rows[i] <= 16 && shapes.row_bytes[i] <= 64 && shapes.row_bytes[i] % 4 == 0, "a shape beyond 16 rows of 64 bytes");
    tiles[i] = {shapes.rows[i], shapes.row_bytes[i], {}};
  }
}
inline void release() {
  for (Tile& tile : tiles) tile = {};
}
inline void zero(int i) {
  require(tiles[i].rows > 0, "a tile that has no shape");
  std::memset(tiles[i].data, 0, sizeof tiles[i].data);
}
inline void load(int to, const void* from, std::int64_t stride) {
  zero(to);
  for (int r = 0; r < tiles[to].rows; ++r) {
    std::memcpy(tiles[to].data[r], static_cast<const std::uint8_t*>(from) + r * stride, static_cast<std::size_t>(tiles[to].row_bytes));
  }
}
inline void store(int from, void* to, std::int64_t stride) {
  require(tiles[from].rows > 0, "a tile that has no shape");
  for (int r = 0; r < tiles[from].rows; ++r) {
    std::memcpy(static_cast<std::uint8_t*>(to) + r * stride, tiles[from].data[r], static_cast<std::size_t>(tiles[from].row_bytes));
  }
}
// sum[m][n] = add(sum[m][n], dword of a, dword of b) over the dwords of a row of a
template <class Sum, class Add> inline void multiply(int sum, int a, int b, Add add) {
  Tile &s = tiles[sum], &x = tiles[a], &w = tiles[b];
  require(sum != a && sum != b && a != b, "a product of tiles that are not three");
  require(s.rows > 0 && s.rows == x.rows && 4 * w.rows == x.row_bytes && s.row_bytes == w.row_bytes, "shapes that cannot be multiplied");
  for (int m = 0; m < s.rows; ++m) {
    for (int n = 0; n < s.row_bytes / 4; ++n) {
      Sum value = s.at<Sum>(m, n);
      for (int k = 0; k < w.rows; ++k) value = add(value, x.data[m] + 4 * k, w.data[k] + 4 * n);
      s.set(m, n, value);
    }
  }
}
template <class A, class B> inline void multiply_bytes(int sum, int a, int b) {
  multiply<std::int32_t>(sum, a, b, [](std::int32_t value, const std::uint8_t* x, const std::uint8_t* w) {
    for (int i = 0; i < 4; ++i) value += static_cast<A>(x[i]) * static_cast<B>(w[i]);
    return value;
  });
}
inline float half_at(const std::uint8_t* from) {  // a bf16
  std::uint16_t half;
  std::memcpy(&half, from, 2);
  return anybit::bf16_to_float(half);
}
inline void multiply_halves(int sum, int a, int b) {
  multiply<float>(sum, a, b, [](float value, const std::uint8_t* x, const std::uint8_t* w) {
    return value + half_at(x) * half_at(w) + half_at(x + 2) * half_at(w + 2);
  });
}
}  // namespace emulated

#define _tile_loadconfig emulated::configure
#define _tile_release emulated::release
#define _tile_zero emulated::zero
#define _tile_loadd emulated::load
#define _tile_stored emulated::store
#define _tile_dpbssd emulated::multiply_bytes<std::int8_t, std::int8_t>
#define _tile_dpbsud emulated::multiply_bytes<std::int8_t, std::uint8_t>
#define _tile_dpbusd emulated::multiply_bytes<std::uint8_t, std::int8_t>
#define _tile_dpbuud emulated::multiply_bytes<std::uint8_t, std::uint8_t>
#define _tile_dpbf16ps emulated::multiply_halves
