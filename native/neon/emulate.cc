// Emulated matrix products for NEON; see generic/emulate_ops.hpp.
#define ANYBIT_VECTOR_ISA emulated_neon
#include "generic/emulate_ops.hpp"

#if defined(__ARM_NEON)
#include "generic/emulate.inl"

namespace anybit {
EmulateFn emulate_neon() { return ANYBIT_VECTOR_ISA::emulate; }
}  // namespace anybit
#else
namespace anybit {
EmulateFn emulate_neon() { return nullptr; }
}  // namespace anybit
#endif
