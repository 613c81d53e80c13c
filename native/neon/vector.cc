// The decoder's vector kernels for NEON; see generic/vector_ops.hpp.
#define ANYBIT_VECTOR_ISA vector_neon
#include "generic/vector_ops.hpp"

#if defined(__ARM_NEON)
#include "generic/vector_ops.inl"

namespace anybit {
const VectorOps* vector_ops_neon() {
  static const VectorOps table = ANYBIT_VECTOR_ISA::make_table("neon");
  return &table;
}
}  // namespace anybit
#else
namespace anybit {
const VectorOps* vector_ops_neon() { return nullptr; }
}  // namespace anybit
#endif
