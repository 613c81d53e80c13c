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

#include "avx512/bf16_pairs.inl"

#include "avx512/digits.inl"

#include "avx512/bf16.inl"
}  // namespace

extern const Kernels kMatmulKernels;
const Kernels kMatmulKernels = kTable;
extern const Kernels kPairKernels;
const Kernels kPairKernels = with_pairs(kTable);
}  // namespace anybit::avx512
