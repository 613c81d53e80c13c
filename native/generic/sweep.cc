#include "generic/sweep.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "generic/thread_pool.hpp"

namespace anybit {
namespace {

// A midpoint that an element crosses: 1/scale, not negative, so that its bits order it; element * steps + step.
struct Point {
  std::uint64_t at;
  std::uint64_t index;
};

typedef double Pair __attribute__((vector_size(16)));   // of <wx, q> and <wq, q>
typedef double Four __attribute__((vector_size(32)));
constexpr std::size_t kFour = 4;

constexpr std::uint64_t kNever = 0x7ff0000000000000ull;  // infinity

// Two ascending runs of `length` one after another in `from`, stably into `to`: from both ends at once, which are two chains of
// dependent steps instead of one, and never past a run's end, because each end takes no more than one run holds.
void merge(const Point* from, std::size_t length, Point* to) {
  const Point *left = from, *right = from + length, *left_last = right - 1, *right_last = right + length - 1;
  Point *front = to, *back = to + 2 * length - 1;
  for (std::size_t i = 0; i < length; ++i) {
    const bool second = right->at < left->at;
    *front++ = *(second ? right : left);
    right += second, left += !second;
    const bool first = left_last->at > right_last->at;
    *back-- = *(first ? left_last : right_last);
    left_last -= first, right_last -= !first;
  }
}

class Sweeper {
 public:
  Sweeper(const Alphabet& alphabet, std::int64_t n) : a_(alphabet), n_(static_cast<std::size_t>(n)), steps_(static_cast<std::size_t>(a_.steps)) {
    while (runs_ < n_) runs_ *= 2;
    points_.resize(runs_ * steps_), merged_.resize(points_.size()), scratch_.resize(points_.size());
    for (Point& p : points_) p = {kNever, 0};
    terms_.resize(n_ * steps_), crossed_.resize((steps_ + kFour) / kFour * kFour);
    const std::size_t sums = (terms_.size() + 2 * kFour) / kFour * kFour;
    dots_.resize(sums), norms_.resize(sums), quality_.resize(sums);
    for (std::size_t side = 0; side < 2; ++side) {
      middle_[side].assign(crossed_.size(), std::numeric_limits<double>::infinity());
      std::copy_n(a_.middle + side * steps_, steps_, middle_[side].begin());
      for (std::size_t j = 0; j < steps_; ++j) step_[side].push_back(Pair{a_.gain[side * steps_ + j], a_.growth[side * steps_ + j]});
    }
  }

  // out: scale, projection, norm, energy
  void block(const double* x, const double* w, double* out) {
    double energy = 0;
    Pair sum{0, 0};
    for (std::size_t i = 0; i < n_; ++i) {
      const double weight = w ? w[i] : 1.0, wx = w ? weight * x[i] : x[i], size = std::fabs(x[i]);
      const bool negative = x[i] < 0;
      const double first = a_.first[negative];
      energy += wx * x[i], sum += Pair{wx, w ? weight * first : first} * Pair{first, first};
      const Four divisor{size, size, size, size};
      for (std::size_t j = 0; j < steps_; j += kFour) {
        Four middle;
        std::memcpy(&middle, middle_[negative].data() + j, sizeof middle);
        middle /= divisor;
        std::memcpy(crossed_.data() + j, &middle, sizeof middle);
      }
      const Pair factor{wx, weight};
      const Pair* step = step_[negative].data();
      Point* points = points_.data() + i * steps_;
      Pair* terms = terms_.data() + i * steps_;
      for (std::size_t j = 0; j < steps_; ++j) points[j] = {crossed_[j], i * steps_ + j}, terms[j] = factor * step[j];
      if (!(size > 0)) {
        for (std::size_t j = 0; j < steps_; ++j) points[j].at = kNever;
      }
    }
    const Point* order = sorted();
    // Sums after every point; what is never reached (infinity) would add nothing.
    std::size_t count = 1;
    double most = sum[1];
    dots_[0] = sum[0], norms_[0] = sum[1];
    for (const Point* p = order; count <= terms_.size() && p->at < kNever; ++count, ++p) {
      sum += terms_[p->index];
      dots_[count] = sum[0], norms_[count] = sum[1];
      most = sum[1] > most ? sum[1] : most;
    }
    for (std::size_t i = count; i % kFour; ++i) dots_[i] = norms_[i] = 0;
    const double least = 1e-12 * most;
    for (std::size_t i = 0; i < count; i += kFour) {
      Four d, m;
      std::memcpy(&d, dots_.data() + i, sizeof d);
      std::memcpy(&m, norms_.data() + i, sizeof m);
      const Four quality = (d > 0.0) & (m > least) ? d * d / m : Four{};
      std::memcpy(quality_.data() + i, &quality, sizeof quality);
    }
    std::size_t best = 0;
    for (std::size_t i = 1; i < count; ++i) best = quality_[i] > quality_[best] ? i : best;
    const bool found = quality_[best] > 0;
    out[0] = found ? dots_[best] / norms_[best] : 0.0, out[1] = found ? dots_[best] : 0.0, out[2] = found ? norms_[best] : 0.0;
    out[3] = energy;
  }

 private:
  const Alphabet& a_;
  std::size_t n_, steps_, runs_ = 1;
  std::vector<Point> points_, merged_, scratch_;
  std::vector<Pair> terms_, step_[2];
  std::vector<std::uint64_t> crossed_;  // bits
  std::vector<double> middle_[2], dots_, norms_, quality_;

  // All points ascending, equal ones by index.  The runs of the elements are ascending as they are; those beyond n are never reached.
  const Point* sorted() {
    const Point* from = points_.data();
    Point *to = merged_.data(), *other = scratch_.data();
    for (std::size_t length = steps_; length < points_.size(); length *= 2) {
      for (std::size_t at = 0; at < points_.size(); at += 2 * length) merge(from + at, length, to + at);
      from = to;
      std::swap(to, other);
    }
    return from;
  }
};

}  // namespace

void sweep_scales(const Alphabet& alphabet, const double* x, const double* w, std::int64_t w_stride, std::int64_t blocks,
                  std::int64_t n, double* out) {
  const auto some = [&](std::int64_t begin, std::int64_t end) {
    Sweeper sweeper(alphabet, n);
    for (std::int64_t b = begin; b < end; ++b) {
      double found[4];
      sweeper.block(x + b * n, w ? w + b * w_stride : nullptr, found);
      for (std::int64_t k = 0; k < 4; ++k) out[k * blocks + b] = found[k];
    }
  };
  if (blocks * n * alphabet.steps < 1 << 14) return some(0, blocks);
  default_pool()->run([&](Team& team) {
    const Share mine = share(team, blocks);
    if (mine.begin < mine.end) some(mine.begin, mine.end);
  });
}

}  // namespace anybit
