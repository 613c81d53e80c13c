// The integer kernels of AVX2 with vpdpbusd at 256 bits, which has two encodings: vnni_vex.cc (AVX-VNNI: Intel's processors without AVX-512
// since Alder Lake) and vnni_evex.cc (AVX-512 VL and VNNI: Cascade Lake, which lacks what the kernels of avx512 need).  All else is AVX2's, levels of 16 bits too.
#define ANYBIT_VNNI 1
#include "avx2/simd.hpp"
#include "generic/kernels.hpp"

namespace anybit::avx2 {
extern const Kernels kMatmulKernels;
namespace {
#include "generic/unpack.inl"

#include "generic/int8.inl"

#include "generic/int8_table.inl"
}  // namespace

const Kernels& ANYBIT_VNNI_TABLE() {
  static const Kernels table = with_int8<Int8>(kMatmulKernels);
  return table;
}
}  // namespace anybit::avx2
