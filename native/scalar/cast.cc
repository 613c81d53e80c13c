// Casts for whatever the compiler targets by default; see generic/cast_ops.hpp.
#define ANYBIT_VECTOR_ISA cast_scalar
#include "generic/cast_ops.inl"

namespace anybit {
const CastOps* cast_ops_scalar() {
  static const CastOps table = ANYBIT_VECTOR_ISA::make_cast_table("scalar");
  return &table;
}
}  // namespace anybit
