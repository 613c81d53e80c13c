// Casts for AVX2 and F16C; see generic/cast_ops.hpp.
#define ANYBIT_VECTOR_ISA cast_avx2
#include "generic/cast_ops.hpp"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "generic/cast_ops.inl"

namespace anybit {
const CastOps* cast_ops_avx2() {
  static const CastOps table = ANYBIT_VECTOR_ISA::make_cast_table("avx2");
  return &table;
}
}  // namespace anybit
#else
namespace anybit {
const CastOps* cast_ops_avx2() { return nullptr; }
}  // namespace anybit
#endif
