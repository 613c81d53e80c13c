// Casts for NEON; see generic/cast_ops.hpp.
#define ANYBIT_VECTOR_ISA cast_neon
#include "generic/cast_ops.hpp"

#if defined(__ARM_NEON)
#include "generic/cast_ops.inl"

namespace anybit {
const CastOps* cast_ops_neon() {
  static const CastOps table = ANYBIT_VECTOR_ISA::make_cast_table("neon");
  return &table;
}
}  // namespace anybit
#else
namespace anybit {
const CastOps* cast_ops_neon() { return nullptr; }
}  // namespace anybit
#endif
