// What the eight tiles of a thread hold, set by ldtilecfg.
#pragma once

#include <cstdint>

#include "amx/instructions.hpp"

namespace anybit::amx {

constexpr int64_t kTileX = 16;  // rows of x a tile

// The shapes of tiles in force on this thread.
class Tiles {
 public:
  Tiles() = default;
  Tiles(const Tiles&) = delete;
  ~Tiles() { _tile_release(); }
  // `rows` of x, 1 to 32, and `depth` k, 32 or 64.
  void shape(int64_t rows, int64_t depth) { shape_two(rows < kTileX ? rows : kTileX, rows < kTileX + 1 ? 1 : rows - kTileX, depth); }
  // Two tiles of x: 0, 1 and 2, 3 are their sums, 4 and 5 x, 6 and 7 weights.
  void shape_two(int64_t rows, int64_t more, int64_t depth) { set(rows, more, depth, {{0, 0, 1, 1, 2, 3, 4, 4}}); }
  // One: 0 to 2 are sums, 3 is x, 4 to 7 are weights.
  void shape_one(int64_t rows, int64_t depth) { set(rows, rows, depth, {{0, 0, 0, 2, 4, 4, 4, 4}}); }

 private:
  struct Kinds { uint8_t of[8]; };  // 0 and 1: sums of a tile of x; 2 and 3: x; 4: weights
  void set(int64_t rows, int64_t more, int64_t depth, const Kinds& kinds) {
    if (rows == rows_ && more == more_ && depth == depth_) return;
    rows_ = rows, more_ = more, depth_ = depth;
    struct alignas(64) {
      uint8_t palette = 1, start = 0, reserved[14] = {};
      uint16_t bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    for (int i = 0; i < 8; ++i) {
      const int kind = kinds.of[i];
      config.bytes[i] = static_cast<uint16_t>(kind == 2 || kind == 3 ? depth : 64);
      config.rows[i] = static_cast<uint8_t>(kind == 4 ? depth / 4 : kind % 2 ? more : rows);
    }
    asm volatile("" ::"r"(&config) : "memory");  // GCC 12 takes the stores before ldtilecfg for dead
    _tile_loadconfig(&config);
  }

  int64_t rows_ = 0, more_ = 0, depth_ = 0;
};

}  // namespace anybit::amx
