// The decoder's vector kernels for AVX2, FMA and F16C; see generic/vector_ops.hpp.
#define ANYBIT_VECTOR_ISA vector_avx2
#include "generic/vector_ops.hpp"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "generic/vector_ops.inl"

namespace anybit {
const VectorOps* vector_ops_avx2() {
  static const VectorOps table = ANYBIT_VECTOR_ISA::make_table("avx2");
  return &table;
}
}  // namespace anybit
#else
namespace anybit {
const VectorOps* vector_ops_avx2() { return nullptr; }
}  // namespace anybit
#endif
