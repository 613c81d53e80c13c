// The decoder's vector kernels for AVX-512F; see generic/vector_ops.hpp.
#define ANYBIT_VECTOR_ISA vector_avx512
#include "generic/vector_ops.hpp"

#if defined(__AVX512F__)
#include "generic/vector_ops.inl"

namespace anybit {
const VectorOps* vector_ops_avx512() {
  static const VectorOps table = ANYBIT_VECTOR_ISA::make_table("avx512");
  return &table;
}
}  // namespace anybit
#else
namespace anybit {
const VectorOps* vector_ops_avx512() { return nullptr; }
}  // namespace anybit
#endif
