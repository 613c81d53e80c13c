// Squared errors of the blocks of a matrix for steps that are tried, a segment of a row for all of them while it is in the first cache.
#include <algorithm>
#include <vector>

#include "generic/cast.hpp"
#include "generic/thread_pool.hpp"

namespace anybit {
namespace {

// each(units, x, weights, columns, parameters): a segment of whole blocks, rounded; parameters: the place of its first block in [trials, rows, blocks]
template <class Each> void each_trial(const BlockTrials& of, Each&& each) {
  const CastOps& ops = cast_ops();
  const std::int64_t width = std::min(of.width, of.cols), blocks = (of.cols + width - 1) / width;
  const std::int64_t piece = static_cast<std::int64_t>(kCastPiece), together = std::max<std::int64_t>(1, piece / width);
  default_pool()->run_if_many(of.rows * of.cols * of.trials, [&](Team& team) {
    std::vector<float> units(static_cast<std::size_t>(std::min(together * width, of.cols))), divisors(static_cast<std::size_t>(together));
    const Share mine = share(team, of.rows);
    for (std::int64_t row = mine.begin; row < mine.end; ++row) {
      for (std::int64_t block = 0; block < blocks; block += together) {
        const std::int64_t first = block * width, count = std::min(together * width, of.cols - first), here = std::min(together, blocks - block);
        const float* x = of.x + row * of.cols + first;
        const float* weights = of.weights ? of.weights + row * of.weight_stride + first : nullptr;
        const auto n = static_cast<std::size_t>(count), wide = static_cast<std::size_t>(width);
        for (std::int64_t trial = 0; trial < of.trials; ++trial) {
          const std::int64_t at = (trial * of.rows + row) * blocks + block;
          for (std::int64_t b = 0; b < here; ++b) divisors[static_cast<std::size_t>(b)] = of.steps[at + b] == 0 ? 1.0f : of.steps[at + b];
          ops.divide(x, n, wide, divisors.data(), units.data());
          if (of.zeros) ops.shift(units.data(), n, wide, of.zeros + at);
          for (std::size_t i = 0; i < n; i += kCastPiece) {
            ops.round(*of.grid, CastMode::nearest_even, nullptr, nullptr, units.data() + i, units.data() + i, std::min(kCastPiece, n - i));
          }
          each(ops, units.data(), x, weights, n, wide, at);
        }
      }
    }
  });
}

}  // namespace

void block_errors(const BlockTrials& of, float* sums) {
  each_trial(of, [&](const CastOps& ops, const float* units, const float* x, const float* weights, std::size_t n, std::size_t width, std::int64_t at) {
    ops.errors(units, x, weights, n, width, of.steps + at, of.zeros ? of.zeros + at : nullptr, sums + at);
  });
}

void block_projections(const BlockTrials& of, float* on_x, float* norms) {
  each_trial(of, [&](const CastOps& ops, const float* units, const float* x, const float* weights, std::size_t n, std::size_t width, std::int64_t at) {
    ops.projections(units, x, weights, n, width, of.zeros ? of.zeros + at : nullptr, on_x + at, norms + at);
  });
}

}  // namespace anybit
