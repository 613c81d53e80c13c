#include "generic/patches.hpp"

#include <algorithm>

#include "generic/thread_pool.hpp"

namespace anybit {
namespace {

// Positions across whose kernel row lies within the line, [first, last).
struct Inside {
  std::int64_t first, last;
};

Inside inside(const Convolution& c, std::int64_t across) {
  const std::int64_t reach = c.dilation[1] * (c.kernel[1] - 1), pad = c.padding[1], step = c.stride[1];
  const std::int64_t first = std::min((pad + step - 1) / step, across);
  const std::int64_t room = c.size[1] - 1 - reach + pad;
  return {first, std::max(first, std::min(across, room < 0 ? 0 : room / step + 1))};
}

// One row of the kernel at every position of a line of positions.  kWide: its width where that is known, else 0.
template <int kWide>
void line(const Convolution& c, const float* x, Inside in, std::int64_t across, std::int64_t columns, float* out) {
  const std::int64_t wide = kWide ? kWide : c.kernel[1], apart = c.dilation[1], step = c.stride[1];
  const auto edge = [&](std::int64_t at) {
    for (std::int64_t k = 0; k < wide; ++k) {
      const std::int64_t i = at * step - c.padding[1] + k * apart;
      out[at * columns + k] = i >= 0 && i < c.size[1] ? x[i] : 0.0f;
    }
  };
  for (std::int64_t at = 0; at < in.first; ++at) edge(at);
  for (std::int64_t at = in.first; at < in.last; ++at) {
    const float* from = x + (at * step - c.padding[1]);
    for (std::int64_t k = 0; k < wide; ++k) out[at * columns + k] = from[k * apart];
  }
  for (std::int64_t at = in.last; at < across; ++at) edge(at);
}

}  // namespace

void patches(const Convolution& c, const float* x, float* out) {
  const std::int64_t down = c.positions(0), across = c.positions(1);
  const std::int64_t tall = c.kernel[0], wide = c.kernel[1], columns = c.channels * tall * wide;
  const Inside in = inside(c, across);
  const auto each = wide == 1 ? line<1> : wide == 3 ? line<3> : wide == 5 ? line<5> : line<0>;
  default_pool()->run_if_many(c.batch * down * across * columns, [&](Team& team) {
    const Share mine = share(team, c.batch * down);
    for (std::int64_t unit = mine.begin; unit < mine.end; ++unit) {
      const std::int64_t top = unit % down * c.stride[0] - c.padding[0];
      const float* image = x + unit / down * c.channels * c.size[0] * c.size[1];
      float* rows = out + unit * across * columns;
      for (std::int64_t channel = 0; channel < c.channels; ++channel)
        for (std::int64_t k = 0; k < tall; ++k) {
          const std::int64_t y = top + k * c.dilation[0];
          float* to = rows + (channel * tall + k) * wide;
          if (y >= 0 && y < c.size[0]) {
            each(c, image + (channel * c.size[0] + y) * c.size[1], in, across, columns, to);
          } else {
            for (std::int64_t at = 0; at < across; ++at) std::fill_n(to + at * columns, wide, 0.0f);
          }
        }
    }
  });
}

}  // namespace anybit
