#include "generic/kernels.hpp"
#include "avx512/simd.hpp"

namespace anybit::avx512 {
namespace {
#include "generic/unpack.inl"

#include "generic/int8.inl"

#include "generic/exact.inl"

#include "generic/planes.inl"

#include "generic/int16.inl"

#include "generic/int8_table.inl"

#include "generic/table.inl"

#ifndef ANYBIT_SIMDE  // which lacks vdpbf16ps
#include "avx512/bf16_pairs.inl"

#include "avx512/digits.inl"

#include "avx512/bf16.inl"
#endif
}  // namespace

extern const Kernels kMatmulKernels;
const Kernels kMatmulKernels = kTable;
#ifndef ANYBIT_SIMDE
extern const Kernels kPairKernels;
const Kernels kPairKernels = with_pairs(kTable);
#endif
}  // namespace anybit::avx512
