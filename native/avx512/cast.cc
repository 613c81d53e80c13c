// Casts for AVX-512F; see generic/cast_ops.hpp.
#define ANYBIT_VECTOR_ISA cast_avx512
#include "generic/cast_ops.hpp"

#if defined(__AVX512F__)
#include "generic/cast_ops.inl"

namespace anybit {
const CastOps* cast_ops_avx512() {
  static const CastOps table = ANYBIT_VECTOR_ISA::make_cast_table("avx512");
  return &table;
}
}  // namespace anybit
#else
namespace anybit {
const CastOps* cast_ops_avx512() { return nullptr; }
}  // namespace anybit
#endif
