#include "generic/kernels.hpp"
#include "neon/simd.hpp"

namespace anybit::neon {
namespace {
#include "generic/unpack.inl"

#include "generic/int8.inl"

#include "generic/exact.inl"

#include "generic/planes.inl"

#include "generic/int16.inl"

#include "generic/int8_table.inl"

#include "generic/table.inl"
}  // namespace

extern const Kernels kMatmulKernels;
const Kernels kMatmulKernels = kTable;
}  // namespace anybit::neon
