#pragma once

#include "generic/vector_ops.hpp"

namespace anybit {

// The vector kernels of the instruction set that dispatch.hpp chose; the next smaller one where the build lacks them.
const VectorOps& vector_ops();

}  // namespace anybit
