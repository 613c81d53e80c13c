// AVX-512 on AMD's processors.  Where Intel's divide all vector operations between the same two ports, Zen 4 multiplies in two of four pipes, and
// a product of bits (vgf2p8affineqb) takes the same two; shifts take the other two, masks any.  So fields of bits are shifted and masked here:
// eight products and eight such fields take 8 to 12 cycles, with products of bits 16 (measured).
#define ANYBIT_SHIFTS_BITS 1
#include "avx512/simd.hpp"
#include "generic/kernels.hpp"

namespace anybit::avx512 {
extern const Kernels kPairKernels;
namespace {
#include "generic/unpack.inl"

#include "generic/int8.inl"

#include "generic/int8_table.inl"
}  // namespace

const Kernels& amd_kernels() {
  static const Kernels table = with_words<Int8>(with_int8<Int8>(kPairKernels));
  return table;
}
}  // namespace anybit::avx512
