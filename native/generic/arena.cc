#include "generic/arena.hpp"

#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <list>
#include <mutex>
#include <new>
#include <set>

namespace anybit {
namespace {

constexpr size_t kPage = size_t{2} << 20, kChunk = size_t{32} << 20, kLine = 64, kKept = (size_t{128} << 20) + kPage;
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

// Chunks of results that were given back, oldest first.
struct Kept {
  std::mutex lock;
  std::list<std::unique_ptr<Chunk>> chunks;
  std::set<const std::byte*> given_again;
  size_t bytes = 0;

  // One of at least `size` bytes and at most a quarter more; null where there is none.
  std::unique_ptr<Chunk> take(size_t size) {
    std::lock_guard guard(lock);
    for (auto it = chunks.begin(); it != chunks.end(); ++it) {
      if ((*it)->size < size || (*it)->size > size + size / 4 + kPage) continue;
      auto found = std::move(*it);
      chunks.erase(it);
      bytes -= found->size;
      given_again.insert(found->base);
      return found;
    }
    return nullptr;
  }

  void put(std::unique_ptr<Chunk> chunk) {
    std::lock_guard guard(lock);
    given_again.erase(chunk->base);
    if (chunk->size > kKept) return;
    bytes += chunk->size;
    chunks.push_back(std::move(chunk));
    for (; bytes > kKept; chunks.pop_front()) bytes -= chunks.front()->size;
  }
};

Kept& kept() {
  static auto* value = new Kept();  // never destroyed: results may outlive every static
  return *value;
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

std::shared_ptr<std::byte> arena_allocate_result(size_t bytes) {
  auto chunk = kept().take(bytes + kLine);
  if (!chunk) chunk = std::make_unique<Chunk>(bytes + kLine);
  Chunk* raw = chunk.release();
  return std::shared_ptr<std::byte>(raw->base, [raw](std::byte*) { kept().put(std::unique_ptr<Chunk>(raw)); });
}

bool arena_result_is_reused(const void* at) {
  std::lock_guard guard(kept().lock);
  return kept().given_again.contains(static_cast<const std::byte*>(at));
}

size_t arena_mapped() { return mapped; }

}  // namespace anybit
