#include "generic/sweep.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "generic/thread_pool.hpp"

namespace anybit {
namespace {

typedef double Pair __attribute__((vector_size(16)));  // of <wx, q> and <wq, q>
typedef std::int64_t Two __attribute__((vector_size(16)));
typedef double Four __attribute__((vector_size(32)));
constexpr std::size_t kFour = 4;
constexpr std::uint64_t kInfinity = 0x7ff0000000000000ull;

// Two ascending runs of `length` one after another in `from`, into `to`: from both ends at once, which are two chains of dependent
// steps instead of one, and never past a run's end, because each end takes no more than one run holds.
struct Merge {
  const std::uint64_t *left, *right, *left_last, *right_last;
  std::uint64_t *front, *back;

  Merge(const std::uint64_t* from, std::size_t length, std::uint64_t* to)
      : left(from), right(from + length), left_last(right - 1), right_last(right + length - 1), front(to), back(to + 2 * length - 1) {}
  void step(std::size_t i) {
    const std::uint64_t l = *left, r = *right, p = *left_last, q = *right_last;
    std::size_t second = r < l, first = p > q;
    // Opaque to the compiler, which would make branches of them that go wrong half of the time.
    asm("" : "+r"(second), "+r"(first));
    front[i] = r < l ? r : l;
    right += second, left += 1 - second;
    back[-static_cast<std::ptrdiff_t>(i)] = p > q ? p : q;
    left_last -= first, right_last -= 1 - first;
  }
};

void merge(const std::uint64_t* from, std::size_t length, std::uint64_t* to) {
  Merge one(from, length, to);
  for (std::size_t i = 0; i < length; ++i) one.step(i);
}

// Two such pairs of runs, one behind the other: four chains.
void merge_two(const std::uint64_t* from, std::size_t length, std::uint64_t* to) {
  Merge one(from, length, to), two(from + 2 * length, length, to + 2 * length);
  for (std::size_t i = 0; i < length; ++i) one.step(i), two.step(i);
}

class Sweeper {
 public:
  Sweeper(const Alphabet& alphabet, std::int64_t n) : a_(alphabet), n_(static_cast<std::size_t>(n)), steps_(static_cast<std::size_t>(a_.steps)) {
    std::size_t runs = 1;
    while (runs < n_) runs *= 2;
    const std::size_t points = n_ * steps_;
    while ((mask_ + 1) < points) mask_ = 2 * mask_ + 1;
    keys_.assign(runs * steps_, ~std::uint64_t{0}), merged_.resize(keys_.size()), scratch_.resize(keys_.size());
    // the last element's steps are written four at a time
    terms_.resize(points), crossed_.resize(points + kFour);
    sums_.resize((points + 2 * kFour) / kFour * kFour), quality_.resize(sums_.size());
    for (std::size_t side = 0; side < 2; ++side) {
      middle_[side].assign(steps_ + kFour, std::numeric_limits<double>::infinity());
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
      // 1/scale at which each midpoint is crossed: not negative, so that the bits order it.  0 crosses none.
      std::uint64_t* crossed = crossed_.data() + i * steps_;
      const Four divisor{size, size, size, size};
      for (std::size_t j = 0; j < steps_; j += kFour) {
        Four middle;
        std::memcpy(&middle, middle_[negative].data() + j, sizeof middle);
        middle /= divisor;
        std::memcpy(crossed + j, &middle, sizeof middle);
      }
      if (!(size > 0)) std::fill_n(crossed, steps_, kInfinity);
      const Pair factor{wx, weight};
      const Pair* step = step_[negative].data();
      Pair* terms = terms_.data() + i * steps_;
      for (std::size_t j = 0; j < steps_; ++j) terms[j] = factor * step[j];
    }
    const std::uint64_t* order = sorted();
    // Sums after every point; what is never reached (infinity) would add nothing.
    std::size_t count = 1;
    Pair most = sum;
    sums_[0] = sum;
    for (const std::uint64_t* key = order; count <= terms_.size() && *key < kInfinity; ++count, ++key) {
      sum += terms_[*key & mask_];
      sums_[count] = sum;
      most[1] = sum[1] > most[1] ? sum[1] : most[1];
    }
    if (count % 2) sums_[count] = Pair{0, 0};
    const double least = 1e-12 * most[1];
    Pair best{};
    for (std::size_t i = 0; i < count; i += 2) {
      const Pair d = Pair{sums_[i][0], sums_[i + 1][0]}, m = Pair{sums_[i][1], sums_[i + 1][1]};
      const Pair quality = reinterpret_cast<Pair>((d > 0.0) & (m > least) & reinterpret_cast<Two>(d * d / m));
      const Two better = quality > best;
      best = reinterpret_cast<Pair>((better & reinterpret_cast<Two>(quality)) | (~better & reinterpret_cast<Two>(best)));
      std::memcpy(quality_.data() + i, &quality, sizeof quality);
    }
    const double top = std::max(best[0], best[1]);
    out[0] = out[1] = out[2] = 0, out[3] = energy;
    if (!(top > 0)) return;
    std::size_t at = 0;
    while (quality_[at] != top) ++at;
    out[0] = sums_[at][0] / sums_[at][1], out[1] = sums_[at][0], out[2] = sums_[at][1];
  }

 private:
  const Alphabet& a_;
  std::size_t n_, steps_;
  std::uint64_t mask_ = 0;
  std::vector<std::uint64_t> keys_, merged_, scratch_, crossed_;
  std::vector<Pair> terms_, step_[2], sums_;
  std::vector<double> middle_[2], quality_;

  // All points ascending, equal ones by element and step, as the upper bits of 1/scale with the point's index below them.  Runs beyond
  // n_ come last.  Infinite points keep the bits of infinity or more.
  const std::uint64_t* sorted() {
    for (std::size_t i = 0; i < terms_.size(); ++i) keys_[i] = (crossed_[i] & ~mask_) | i;
    const std::uint64_t* from = keys_.data();
    std::uint64_t *to = merged_.data(), *other = scratch_.data();
    for (std::size_t length = steps_; length < keys_.size(); length *= 2) {
      std::size_t at = 0;
      for (; at + 4 * length <= keys_.size(); at += 4 * length) merge_two(from + at, length, to + at);
      if (at < keys_.size()) merge(from + at, length, to + at);
      from = to;
      std::swap(to, other);
    }
    // Points that differ in the cut bits only may be in the wrong order.
    std::uint64_t same = 0;
    for (std::size_t i = 1; i < terms_.size(); ++i) same |= (from[i] ^ from[i - 1]) <= mask_;
    if (!same) return from;
    std::uint64_t* exact = to;
    std::copy_n(from, keys_.size(), exact);
    const auto before = [&](std::uint64_t a, std::uint64_t b) {
      const std::uint64_t i = a & mask_, j = b & mask_;
      return crossed_[i] != crossed_[j] ? crossed_[i] < crossed_[j] : i < j;
    };
    for (std::size_t i = 1; i < terms_.size(); ++i) {
      const std::uint64_t key = exact[i];
      std::size_t j = i;
      for (; j > 0 && before(key, exact[j - 1]); --j) exact[j] = exact[j - 1];
      exact[j] = key;
    }
    return exact;
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
