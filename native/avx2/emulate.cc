// Emulated matrix products for AVX2; see generic/emulate_ops.hpp.
#define ANYBIT_VECTOR_ISA emulated_avx2
#include "generic/emulate_ops.hpp"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "generic/emulate.inl"

namespace anybit {
EmulateFn emulate_avx2() { return ANYBIT_VECTOR_ISA::emulate; }
}  // namespace anybit
#else
namespace anybit {
EmulateFn emulate_avx2() { return nullptr; }
}  // namespace anybit
#endif
