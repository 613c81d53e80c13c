// The decoder's vector kernels for whatever the compiler targets by default; see generic/vector_ops.hpp.
#define ANYBIT_VECTOR_ISA vector_scalar
#include "generic/vector_ops.hpp"


#include "generic/vector_ops.inl"

namespace anybit {
const VectorOps* vector_ops_scalar() {
  static const VectorOps table = ANYBIT_VECTOR_ISA::make_table("scalar");
  return &table;
}
}  // namespace anybit

