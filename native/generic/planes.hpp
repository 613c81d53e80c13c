// Weights as planes of bits, for products that are counts of bits or lookups in tables of sums.
//
// The code u of b bits of a packed integer weight (matmul.hpp) is b planes, lowest first.  A tile of 16 rows and 32 slots is a line of
// 64 bytes a plane, lines of a tile one after the other, tiles of a panel one after the other:
//
//   bits     dword r holds the 32 slots of row r, the first in its lowest bit: a word of x meets all rows at once
//   nibbles  16 bytes (one part of a register) hold quads q and q + 4 of the slots, the earlier in the low half of each byte;
//            row 4v + d at byte 4d + v, so that a table of 16 sums serves the 16 rows of a part
//
// x is integers of up to 8 bits, as planes of its two's complement, or as tables: for every quad of slots the 16 sums of those that the
// bits of an index choose, up to 4 * 127, as a lower digit of 6 bits and an upper one of 4, a byte each and without signs, so that nothing
// is lost and a few of them can be added as bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "generic/matmul.hpp"

namespace anybit {

enum class PlaneOrder : uint8_t { bits, nibbles };

// `grid` is a packed weight whose codes are planes.
struct PlaneWeight {
  Weight grid;
  PlaneOrder order = PlaneOrder::bits;
};
using PlaneWeightPtr = std::shared_ptr<const PlaneWeight>;

// Throws std::invalid_argument for anything but integers.  Not to be called from inside a run of the pool.
PlaneWeightPtr to_planes(ThreadPool&, const Weight&, PlaneOrder);

// x beside its codes.
struct PlaneActivations {
  Activations codes;
  std::shared_ptr<std::byte> memory;
  size_t capacity = 0;
  // Room for m rows of `slots`; outside run().
  void reserve(int64_t m, int64_t k, int64_t slots, int threads);
};

// x for weights in one order and geometry: integers of `bits` bits (2 to 8) with a scale for `group` columns (0: the row).
struct PlaneSpec {
  PlaneOrder order;
  int64_t group;
  int bits;
  Geometry geometry;
};
struct PreparedPlanes {
  const Activations* codes;
  int bits;
  const uint32_t* words;  // the planes of row i from word i * bits * ldp on
  int64_t ldp;
  const uint8_t* tables;  // of row i at i * ldt
  int64_t ldt;
};

// Called by every rank of a run; the result, of x[m][k], serves any number of products.
PreparedPlanes prepare_planes(Team&, PlaneActivations&, const PlaneSpec&, const float* x, int64_t m, int64_t k);

// This rank's columns of y[m][ldy] = x W^T, x having been prepared for the order and geometry of the weight.
void plane_matmul(Team&, const PlaneWeight&, const PreparedPlanes&, float* y, int64_t ldy, const Epilogue& = {});

}  // namespace anybit
