// The integer kernels of NEON with smmla (Armv8.6: Neoverse V1 and N2, Apple's M2 and later).  All else is NEON's, levels of 16 bits too.
#define ANYBIT_ROW_PAIRS 1
#include "neon/simd.hpp"
#include "generic/kernels.hpp"

namespace anybit::neon {
extern const Kernels kMatmulKernels;
namespace {
#include "generic/unpack.inl"

#include "neon/row_pairs.inl"

#include "generic/int8.inl"

#include "generic/int8_table.inl"
}  // namespace

const Kernels& i8mm_kernels() {
  static const Kernels table = with_int8<Int8>(kMatmulKernels);
  return table;
}
}  // namespace anybit::neon
