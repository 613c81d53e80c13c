// Matrix products in emulated arithmetic: other rules of multiplication, accumulators of any format, a stated order of additions.
//
// It exists to measure what such arithmetic does to results, and is several times slower than a plain product.  What the rules and
// orders mean is said in anybit/ops/emulated.py, whose readable reference these kernels match bit for bit.
#pragma once

#include <cstddef>
#include <cstdint>

#include "generic/cast_ops.hpp"

namespace anybit {

enum class ProductRule : int { exact, add, formula };  // mitchell is `add` without a constant
enum class SumOrder : int { sequential, chunked, tree };

inline constexpr int kEmulatedLanes = 16;  // columns of a panel of weights

struct Emulation {
  std::int64_t m, n, k;
  const float* x;        // [m, k]; for other rules than exact: finite, subnormals of the operand format already +0
  const float* panels;   // [panels of 16 rows of the weight][k][16], the same conditions, +0 beyond n
  ProductRule rule;
  std::int32_t constant;              // in units of the last bit of a float32 mantissa
  std::int32_t smallest, largest;     // bit patterns: a product below the first is 0, above the second `beyond`
  std::int32_t beyond;
  bool safe;                          // no product leaves [smallest, largest]
  const Grid* accumulator;            // null: float32
  SumOrder order;
  std::int64_t chunk;                 // terms of a chunk or leaf
  float gain;                         // of the finished sum
  float* y;                           // [m, n]
};

// Computes the columns of panels [first, last).
using EmulateFn = void (*)(const Emulation&, std::int64_t first, std::int64_t last);
EmulateFn emulate_avx512();
EmulateFn emulate_avx2();
EmulateFn emulate_neon();
EmulateFn emulate_scalar();

// x [m, k] times w [n, k] transposed, in the threads of the pool.  `panels` of the problem is filled here.
void emulated_matmul(Emulation problem, const float* w);

}  // namespace anybit
