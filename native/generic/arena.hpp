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

// `bytes` of any contents for a result, in a mapping of its own, which must not pin a chunk that weights share.  The mapping is kept for
// the next result of about its size, up to 128 MiB in all: a fresh one costs the zeroing of its pages, about as much as a cast.
std::shared_ptr<std::byte> arena_allocate_result(size_t bytes);

// Does a result begin at `at` whose pages an earlier one had?
bool arena_result_is_reused(const void* at);

// Bytes of chunks now mapped (address space) for `doctor`.
size_t arena_mapped();

}  // namespace anybit
