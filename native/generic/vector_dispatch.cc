#include "generic/vector_dispatch.hpp"

#include <string_view>

#include "generic/dispatch.hpp"

namespace anybit {

const VectorOps& vector_ops() {
  const std::string_view isa = active_isa().vectors;
#ifdef ANYBIT_HAVE_AMX
  if (isa == "amx" && vector_ops_amx()) return *vector_ops_amx();
#endif
#ifdef ANYBIT_HAVE_AVX512
  if (isa == "avx512" && vector_ops_avx512()) return *vector_ops_avx512();
#endif
#ifdef ANYBIT_HAVE_AVX2
  if ((isa == "avx512" || isa == "avx2") && vector_ops_avx2()) return *vector_ops_avx2();
#endif
#ifdef ANYBIT_HAVE_NEON
  if (isa == "neon" && vector_ops_neon()) return *vector_ops_neon();
#endif
  return *vector_ops_scalar();
}

}  // namespace anybit
