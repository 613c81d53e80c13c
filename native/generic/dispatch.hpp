// Which instruction set runs.  One list in priority order; the first that the machine supports and prefers is used, unless $ANYBIT_ISA or
// set_isa() names another.  Every instruction set offers one table of functions, compiled from the same generic/*.inl.
#pragma once

#include <span>
#include <string_view>

#include "generic/kernels.hpp"

namespace anybit {

struct IsaInfo {
  const char* name;
  const char* vectors;       // the instruction set of everything that is not a matrix product: `name` or one that it includes
  const char* needs;         // for people
  bool (*supported)();       // by this machine and its operating system
  const Kernels& (*kernels)();  // called where it is supported: making a table may take its instructions
  bool (*preferred)() = nullptr;  // where it is the faster choice, if not everywhere
};

std::span<const IsaInfo> isa_list();  // best first; scalar, always supported, last
const IsaInfo& active_isa();          // detected on first use
void set_isa(std::string_view name);  // "auto" = detect again; throws std::invalid_argument where unknown or unsupported

inline const Kernels& kernels() { return active_isa().kernels(); }

}  // namespace anybit
