#include "generic/arena.hpp"

#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <new>

namespace anybit {
namespace {

constexpr size_t kPage = size_t{2} << 20, kChunk = size_t{32} << 20, kLine = 64;
std::atomic<size_t> mapped{0};

struct Chunk {
  std::byte* base;
  size_t size;
  size_t used = 0;
  void* map;
  size_t map_size;

  explicit Chunk(size_t bytes) : size((bytes + kPage - 1) / kPage * kPage), map_size(size + kPage) {
    map = mmap(nullptr, map_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) throw std::bad_alloc();
    base = reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(map) + kPage - 1) / kPage * kPage);
    madvise(base, size, MADV_HUGEPAGE);  // advice only: without huge pages everything works, at a lower read bandwidth
    mapped += map_size;
  }
  ~Chunk() {
    munmap(map, map_size);
    mapped -= map_size;
  }
};

std::mutex lock;
std::weak_ptr<Chunk>& open_chunk() {
  static auto* chunk = new std::weak_ptr<Chunk>();
  return *chunk;
}

}  // namespace

std::shared_ptr<std::byte> arena_allocate(size_t bytes) {
  const size_t need = (bytes + kLine - 1) / kLine * kLine + kLine;
  std::lock_guard guard(lock);
  auto chunk = open_chunk().lock();
  if (!chunk || chunk->size - chunk->used < need) {
    auto fresh = std::make_shared<Chunk>(need > kChunk ? need : kChunk);
    // keep the emptier chunk open, so that one large matrix does not strand a half-used chunk
    if (!chunk || fresh->size - need > chunk->size - chunk->used) open_chunk() = fresh;
    chunk = std::move(fresh);
  }
  std::byte* block = chunk->base + chunk->used;
  chunk->used += need;
  return std::shared_ptr<std::byte>(std::move(chunk), block);
}

std::shared_ptr<std::byte> arena_allocate_alone(size_t bytes) {
  auto chunk = std::make_shared<Chunk>(bytes + kLine);
  std::byte* block = chunk->base;
  return std::shared_ptr<std::byte>(std::move(chunk), block);
}

size_t arena_mapped() { return mapped; }

}  // namespace anybit
