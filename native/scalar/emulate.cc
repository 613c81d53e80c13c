// Emulated matrix products for whatever the compiler targets by default; see generic/emulate_ops.hpp.
#define ANYBIT_VECTOR_ISA emulated_scalar
#include "generic/emulate_ops.hpp"
#include "generic/emulate.inl"

namespace anybit {
EmulateFn emulate_scalar() { return ANYBIT_VECTOR_ISA::emulate; }
}  // namespace anybit
