#include <algorithm>
#include <cstring>
#include <mutex>
#include <string_view>

#include "generic/arena.hpp"
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

// Bit patterns of the smallest and largest magnitudes that are not zero; {kNone, 0} where all are.
struct Range {
  static constexpr std::int32_t kNone = 0x7fffffff;
  std::int32_t low = kNone, high = 0;

  void take(float value) {
    std::int32_t bits;
    std::memcpy(&bits, &value, 4);
    bits &= 0x7fffffff;
    low = std::min(low, bits ? bits : kNone);
    high = std::max(high, bits);
  }
  void take(const Range& other) { low = std::min(low, other.low), high = std::max(high, other.high); }
};

// A panel: for each k the weights of kEmulatedLanes rows, zeros behind the last row; -0 becomes +0.
void pack_panel(const float* w, std::int64_t rows, std::int64_t k, float* to, Range& range) {
  constexpr std::int64_t kWide = kEmulatedLanes;
  for (std::int64_t at = 0; at < k; ++at, to += kWide) {
    for (std::int64_t r = 0; r < rows; ++r) {
      to[r] = w[r * k + at] + 0.0f;
      range.take(to[r]);
    }
    for (std::int64_t r = rows; r < kWide; ++r) to[r] = 0.0f;
  }
}

}  // namespace

void emulated_matmul(Emulation p, const float* w) {
  constexpr std::int64_t kWide = kEmulatedLanes;
  const std::int64_t panels = (p.n + kWide - 1) / kWide;
  const auto memory = arena_allocate_result(static_cast<std::size_t>(panels * p.k * kWide) * sizeof(float));
  float* const packed = reinterpret_cast<float*>(memory.get());
  const EmulateFn run = emulate_active();
  Range a, b;
  std::mutex lock;
  default_pool()->run([&](Team& team) {
    Range x, y;
    const Share inputs = share(team, p.m * p.k), mine = share(team, panels);
    for (std::int64_t i = inputs.begin; i < inputs.end; ++i) x.take(p.x[i]);
    for (std::int64_t panel = mine.begin; panel < mine.end; ++panel) {
      pack_panel(w + panel * kWide * p.k, std::min(kWide, p.n - panel * kWide), p.k, packed + panel * p.k * kWide, y);
    }
    std::lock_guard guard(lock);
    a.take(x), b.take(y);
  });
  if (p.rule == ProductRule::add) {
    const std::int64_t offset = p.constant - std::int64_t{0x3f800000}, low = std::int64_t{a.low} + b.low + offset;
    p.safe = a.high == 0 || b.high == 0 || (low >= p.smallest && std::int64_t{a.high} + b.high + offset <= p.largest);
  }
  p.panels = packed;
  default_pool()->run([&](Team& team) {
    const Share mine = share(team, panels);
    run(p, mine.begin, mine.end);
  });
}

}  // namespace anybit
