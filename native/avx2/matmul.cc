#include "generic/kernels.hpp"
#include "avx2/simd.hpp"

namespace anybit::avx2 {
namespace {
#include "generic/unpack.inl"

#include "generic/int8.inl"

#include "generic/exact.inl"

#include "generic/planes.inl"

#include "generic/int16.inl"

#include "generic/int8_table.inl"

#include "generic/table.inl"
static_assert(kFewestWide == kMostFused + 1);  // fewer rows are multiplied as bytes
}  // namespace

extern const Kernels kMatmulKernels;
const Kernels kMatmulKernels = kTable;
}  // namespace anybit::avx2
