// One instruction set's emulated products; included once by each <isa>/emulate.cc.
#pragma once

#include "generic/cast_ops.inl"
#include "generic/emulate_ops.hpp"

namespace anybit::ANYBIT_VECTOR_ISA {

inline constexpr int kRows = 4, kVectors = kEmulatedLanes / kLanes;
inline constexpr int kLevels = 48;  // of the tree: more than any k needs
inline constexpr std::int32_t kMantissa = 0x007fffff, kExponent = 0x7f800000, kNegativeZero = static_cast<std::int32_t>(0x80000000u);

// Sums modulo 2^32.
inline IntVec wrapping(IntVec a, std::uint32_t b) { return reinterpret_cast<IntVec>(reinterpret_cast<WordVec>(a) + b); }
inline IntVec wrapping(IntVec a, IntVec b) {
  return reinterpret_cast<IntVec>(reinterpret_cast<WordVec>(a) + reinterpret_cast<WordVec>(b));
}

struct Tile {
  Vec v[kRows][kVectors];
};

// The product of one x with a vector of weights.
template <ProductRule R, bool Safe> struct Product {
  const Emulation& p;
  std::int32_t bits = 0;
  float x = 0;
  explicit Product(const Emulation& problem) : p(problem) {}
  bool of(float value) {  // false: every product is zero and changes no sum
    x = value;
    std::memcpy(&bits, &value, 4);
    return R == ProductRule::exact || (bits & kMagnitude) != 0;
  }
  Vec times(Vec w) const {
    if constexpr (R == ProductRule::exact) {
      return splat(x) * w;
    } else {
      const IntVec b = bits_of(w);
      if constexpr (R == ProductRule::add && Safe) {
        // Signs add up to their exclusive or, because nothing is carried into them.
        const std::uint32_t t = static_cast<std::uint32_t>(bits) + static_cast<std::uint32_t>(p.constant - kOne);
        return float_of(wrapping(b, t) & (b != 0));
      }
      // Exact modulo 2^32.  The true value lies in [-0x40000000, 0xc0000000), so that wrapped sums are told from negative ones.
      IntVec r;
      if constexpr (R == ProductRule::add) {
        r = wrapping(b & kMagnitude, static_cast<std::uint32_t>((bits & kMagnitude) - kOne + p.constant));
      } else {
        const Vec sum = float_from((b & kMantissa) + splat((bits & kMantissa) + p.constant + (1 << 23)));
        r = wrapping(wrapping(bits_of(sum), b & kExponent), static_cast<std::uint32_t>(bits & kExponent) - (277u << 23));
      }
      const IntVec wrapped = r < -0x40000000, over = wrapped | (r > p.largest), under = ~wrapped & (r < p.smallest);
      r = select_int(over, splat(p.beyond), r);
      r = select_int(under | (b == 0), splat(0), r);
      return float_of(r | ((b ^ splat(bits)) & kNegativeZero));
    }
  }
};

struct PlainSum {
  explicit PlainSum(const Grid*) {}
  Vec operator()(Vec v) const { return v; }
};
template <class G> struct RoundedSum {
  G g;
  explicit RoundedSum(const Grid* grid) : g(*grid) {}
  Vec operator()(Vec v) const { return g.value(v, Vec{}); }
};

// Sums `count` products from k on into `sum` one after another; Each: the products and the sums are rounded.
template <class P, class A, bool Each>
inline void run_of(const Emulation& p, const float* const* x, const float* panel, std::int64_t begin, std::int64_t end, const A& round, Tile& sum) {
  // Copies that nothing can alias, so that they stay in registers.
  P product[kRows] = {P(p), P(p), P(p), P(p)};
  const float* const row[kRows] = {x[0], x[1], x[2], x[3]};
  Tile held = sum;
  for (std::int64_t k = begin; k < end; ++k) {
    Vec w[kVectors];
    for (int j = 0; j < kVectors; ++j) w[j] = load(panel + k * kEmulatedLanes + j * kLanes);
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) {
      if (!product[i].of(row[i][k])) continue;
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) {
        const Vec term = product[i].times(w[j]);
        if constexpr (Each) held.v[i][j] = round(held.v[i][j] + round(term));
        else held.v[i][j] += term;
      }
    }
  }
  sum = held;
}

template <class A> inline void add_tile(Tile& to, const Tile& left, const Tile& right, const A& round) {
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kVectors; ++j) to.v[i][j] = round(left.v[i][j] + right.v[i][j]);
  }
}

template <class A> inline void round_tile(Tile& t, const A& round) {
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kVectors; ++j) t.v[i][j] = round(t.v[i][j]);
  }
}

template <class P, class A>
inline void one_tile(const Emulation& p, const float* const* x, const float* panel, const A& round, Tile* levels, Tile& sum) {
  sum = Tile{};
  if (p.order == SumOrder::sequential) return run_of<P, A, true>(p, x, panel, 0, p.k, round, sum);
  std::int64_t leaves = 0;
  for (std::int64_t begin = 0; begin < p.k; begin += p.chunk, ++leaves) {
    Tile part{};
    run_of<P, A, false>(p, x, panel, begin, begin + p.chunk < p.k ? begin + p.chunk : p.k, round, part);
    round_tile(part, round);
    if (p.order == SumOrder::chunked) {
      add_tile(sum, sum, part, round);
      continue;
    }
    // A binary counter: a carry adds the finished left half to the right one.
    int level = 0;
    for (; leaves >> level & 1; ++level) add_tile(part, levels[level], part, round);
    levels[level] = part;
  }
  if (p.order == SumOrder::tree) {
    bool first = true;
    for (int level = 0; level < kLevels; ++level) {
      if (!(leaves >> level & 1)) continue;
      if (first) sum = levels[level];
      else add_tile(sum, levels[level], sum, round);
      first = false;
    }
  }
}

template <class P, class A> inline void panels_of(const Emulation& p, std::int64_t first, std::int64_t last) {
  const A round(p.accumulator);
  Tile levels[kLevels];
  for (std::int64_t panel = first; panel < last; ++panel) {
    const float* w = p.panels + panel * p.k * kEmulatedLanes;
    for (std::int64_t row = 0; row < p.m; row += kRows) {
      const float* x[kRows];
      for (int i = 0; i < kRows; ++i) x[i] = p.x + (row + i < p.m ? row + i : p.m - 1) * p.k;
      Tile sum;
      one_tile<P>(p, x, w, round, levels, sum);
      for (int i = 0; i < kRows && row + i < p.m; ++i) {
        float out[kEmulatedLanes];
        for (int j = 0; j < kVectors; ++j) store(out + j * kLanes, sum.v[i][j] * p.gain);
        const std::int64_t column = panel * kEmulatedLanes, count = p.n - column < kEmulatedLanes ? p.n - column : kEmulatedLanes;
        std::memcpy(p.y + (row + i) * p.n + column, out, 4 * static_cast<std::size_t>(count));
      }
    }
  }
}

template <class P> inline void with_accumulator(const Emulation& p, std::int64_t first, std::int64_t last) {
  if (!p.accumulator) return panels_of<P, PlainSum>(p, first, last);
  if (p.accumulator->exponent_bits == 8) return panels_of<P, RoundedSum<Upper<Mode::nearest_even>>>(p, first, last);
  return panels_of<P, RoundedSum<Narrow<Mode::nearest_even>>>(p, first, last);
}

inline void emulate(const Emulation& p, std::int64_t first, std::int64_t last) {
  if (p.rule == ProductRule::exact) return with_accumulator<Product<ProductRule::exact, true>>(p, first, last);
  if (p.rule == ProductRule::formula) return with_accumulator<Product<ProductRule::formula, false>>(p, first, last);
  if (p.safe) return with_accumulator<Product<ProductRule::add, true>>(p, first, last);
  return with_accumulator<Product<ProductRule::add, false>>(p, first, last);
}

}  // namespace anybit::ANYBIT_VECTOR_ISA
