// Keys and values of one sequence, in tiles of 64 positions (layout: vector_ops.hpp).  A tile holds all layers and kv heads, so
// that growing is one allocation and a tile's address is one table look-up plus a constant of (layer, head).
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "generic/arena.hpp"
#include "generic/vector_ops.hpp"

namespace anybit {

class KvCache {
 public:
  KvCache(int layers, int kv_heads, int head_dim, CacheType type)
      : kv_heads_(kv_heads), type_(type), head_bytes_(tile_bytes(type, head_dim)), layers_(layers) {}

  // Makes room for `positions` positions; what is stored stays.  Throws std::bad_alloc.
  void reserve(int positions) {
    const std::size_t wanted = static_cast<std::size_t>((positions + kTilePositions - 1) / kTilePositions);
    while (memory_.size() < wanted) {
      memory_.push_back(arena_allocate(bytes_per_tile()));
      tiles_.push_back(memory_.back().get());
    }
  }
  void clear() {
    memory_.clear();
    tiles_.clear();
  }

  CacheType type() const { return type_; }
  const std::byte* const* tiles() const { return tiles_.data(); }
  std::size_t offset(int layer, int head) const {
    return head_bytes_ * (static_cast<std::size_t>(layer) * static_cast<std::size_t>(kv_heads_) +
                          static_cast<std::size_t>(head));
  }
  std::byte* at(int position, int layer, int head) const {
    return memory_[static_cast<std::size_t>(position / kTilePositions)].get() + offset(layer, head);
  }
  std::size_t bytes_per_tile() const { return head_bytes_ * static_cast<std::size_t>(layers_ * kv_heads_); }
  std::size_t bytes() const { return bytes_per_tile() * memory_.size(); }

 private:
  int kv_heads_;
  CacheType type_;
  std::size_t head_bytes_;
  int layers_;
  std::vector<std::shared_ptr<std::byte>> memory_;
  std::vector<const std::byte*> tiles_;
};

}  // namespace anybit
