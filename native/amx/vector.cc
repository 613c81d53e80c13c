// The decoder's vector kernels for AVX-512 with AMX: attention of many rows on tiles, the rest as for AVX-512.
#define ANYBIT_VECTOR_ISA vector_amx
#include "generic/vector_attention.inl"

#include "amx/attention.inl"

namespace anybit {
const VectorOps* vector_ops_amx() {
  static const VectorOps table = [] {
    VectorOps ops = *vector_ops_avx512();
    ops.isa = "amx";
    ops.attention = vector_amx::attention_on_tiles;
    return ops;
  }();
  return &table;
}
}  // namespace anybit
