// Emulated matrix products for AVX-512F; see generic/emulate_ops.hpp.
#define ANYBIT_VECTOR_ISA emulated_avx512
#include "generic/emulate_ops.hpp"

#if defined(__AVX512F__)
#include "generic/emulate.inl"

namespace anybit {
EmulateFn emulate_avx512() { return ANYBIT_VECTOR_ISA::emulate; }
}  // namespace anybit
#else
namespace anybit {
EmulateFn emulate_avx512() { return nullptr; }
}  // namespace anybit
#endif
