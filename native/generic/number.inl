// Small-float decoding, exact, for scalar code.  No include guard tricks: internal linkage in every file that includes it.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace anybit {
namespace {

[[maybe_unused]] inline float float_of_bits(uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

[[maybe_unused]] inline float bf16_to_float(uint16_t h) { return float_of_bits(uint32_t{h} << 16); }

[[maybe_unused]] inline float fp16_to_float(uint16_t h) {
  const uint32_t sign = uint32_t{h} >> 15 << 31, exponent = h >> 10 & 31, mantissa = h & 1023;
  if (exponent == 31) return float_of_bits(sign | 0x7f800000u | mantissa << 13);
  if (exponent == 0) {  // mantissa * 2^-24, exact in fp32
    const float magnitude = static_cast<float>(mantissa) * float_of_bits(0x33800000u);
    return sign ? -magnitude : magnitude;
  }
  return float_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

// 2^(e - 127); 255 is NaN
[[maybe_unused]] inline float e8m0_to_float(uint8_t e) {
  if (e == 255) return float_of_bits(0x7fc00000u);
  return float_of_bits(e == 0 ? 0x00400000u : uint32_t{e} << 23);
}

}  // namespace
}  // namespace anybit
