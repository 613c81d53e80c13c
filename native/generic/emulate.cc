#include <algorithm>
#include <cstring>
#include <string_view>
#include <vector>

#include "generic/dispatch.hpp"
#include "generic/emulate_ops.hpp"
#include "generic/thread_pool.hpp"

namespace anybit {
namespace {

EmulateFn emulate_active() {
  const std::string_view isa = active_isa().vectors;
#ifdef ANYBIT_HAVE_AVX512
  if (isa == "avx512" && emulate_avx512()) return emulate_avx512();
#endif
#ifdef ANYBIT_HAVE_AVX2
  if ((isa == "avx512" || isa == "avx2") && emulate_avx2()) return emulate_avx2();
#endif
#ifdef ANYBIT_HAVE_NEON
  if (isa == "neon" && emulate_neon()) return emulate_neon();
#endif
  return emulate_scalar();
}

// Bit patterns of the smallest and largest magnitudes that are not zero; {0, 0} where all are.
struct Range {
  std::int64_t low = 0, high = 0;
};
Range range_of(const float* x, std::int64_t n) {
  Range r;
  for (std::int64_t i = 0; i < n; ++i) {
    std::int32_t bits;
    std::memcpy(&bits, x + i, 4);
    bits &= 0x7fffffff;
    if (bits == 0) continue;
    r.high = std::max<std::int64_t>(r.high, bits);
    r.low = r.low ? std::min<std::int64_t>(r.low, bits) : bits;
  }
  return r;
}

}  // namespace

void emulated_matmul(Emulation p, const float* w) {
  constexpr std::int64_t kWide = kEmulatedLanes;
  const std::int64_t panels = (p.n + kWide - 1) / kWide;
  std::vector<float> packed(static_cast<std::size_t>(panels * p.k * kWide));
  if (p.rule == ProductRule::add) {
    const Range a = range_of(p.x, p.m * p.k), b = range_of(w, p.n * p.k);
    const std::int64_t offset = p.constant - std::int64_t{0x3f800000};
    p.safe = a.low + b.low + offset >= p.smallest && a.high + b.high + offset <= p.largest;
  }
  p.panels = packed.data();
  const EmulateFn run = emulate_active();
  default_pool()->run([&](Team& team) {
    const Share mine = share(team, panels);
    for (std::int64_t row = mine.begin * kWide; row < std::min(mine.end * kWide, p.n); ++row) {
      float* to = packed.data() + row / kWide * p.k * kWide + row % kWide;
      for (std::int64_t k = 0; k < p.k; ++k) to[k * kWide] = w[row * p.k + k] + 0.0f;  // -0 becomes +0
    }
    run(p, mine.begin, mine.end);
  });
}

}  // namespace anybit
