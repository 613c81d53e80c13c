// What the arithmetic units of this machine do at most: loops on registers alone, for `doctor` and the limits beside benchmarks.
#pragma once

#include <cstdint>
#include <string_view>

namespace anybit {

// Runs `rounds` of the loop of a kind on the calling thread and returns its operations (two a multiply-add); 0 where the machine lacks
// the instructions.  Kinds: "fp32" (fused multiply-add), "bf16" (vector dot products), "int8_tiles" and "bf16_tiles" (matrix units).
// std::invalid_argument for another kind.
double peak_rounds(std::string_view kind, int64_t rounds);

}  // namespace anybit
