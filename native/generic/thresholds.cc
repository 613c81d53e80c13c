#include "generic/thresholds.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "generic/cast_ops.hpp"

namespace anybit {

namespace {

float float_of(std::uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

}  // namespace

void Thresholds::index() {
  if (indexed) return;
  indexed = true;
  const auto below = [&, end = values.end()](float x) { return std::lower_bound(values.begin(), end, x) - values.begin(); };
  if (values.size() >= kFewLevels) {
    first.assign(kKeys, 0);
    std::ptrdiff_t most = 0;
    constexpr std::uint32_t kRest = (1u << kKeyShift) - 1, kInfinity = 0x7f800000u;
    for (std::uint32_t key = 0; key < kKeys; ++key) {
      // The numbers of a key run from the smaller to the larger magnitude; infinity is alone among the NaN of its key.
      const std::uint32_t near = key << kKeyShift, magnitude = near & 0x7fffffffu;
      if (magnitude > kInfinity) continue;
      const std::uint32_t far = magnitude == kInfinity ? near : near | kRest;
      const bool negative = near >> 31;
      const auto low = below(float_of(negative ? far : near)), high = below(float_of(negative ? near : far));
      first[key] = static_cast<std::uint16_t>(low);
      most = std::max(most, high - low);
    }
    if (most > 0) {
      for (stride = 1; 2 * stride - 1 < most;) stride *= 2;
    }
  }
  values.insert(values.end(), static_cast<std::size_t>(2 * stride + 1), std::numeric_limits<float>::infinity());
}

}  // namespace anybit
