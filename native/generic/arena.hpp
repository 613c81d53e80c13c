// Memory for weights: large, read every step, never moved.
//
// 2 MiB pages give 1.25 to 1.7 times the read bandwidth of 4 KiB pages, so blocks come from 2 MiB-aligned chunks that the kernel is
// asked (madvise) to back with huge pages.  Where it declines, the memory is the same, only slower.  Untouched pages of a chunk cost
// nothing; a chunk is returned when its last block is.
#pragma once

#include <cstddef>
#include <memory>

namespace anybit {

// `bytes` zeroed bytes, aligned to 64, followed by at least 64 readable ones.  Throws std::bad_alloc.
std::shared_ptr<std::byte> arena_allocate(size_t bytes);

// The same in a mapping of its own, returned with it: for results, which come and go and must not pin a chunk that weights share.
std::shared_ptr<std::byte> arena_allocate_alone(size_t bytes);

// Bytes of chunks now mapped (address space) for `doctor`.
size_t arena_mapped();

}  // namespace anybit
