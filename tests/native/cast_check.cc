// Compares the casts of every instruction set of this build with the scalar ones bit by bit: all kinds of grids in all modes, and the
// helpers of block formats.  Prints one line an instruction set and exits with 1 at the first difference.  Built and run by
// test_kernel_check.py.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "generic/cast_ops.hpp"
#include "generic/thresholds.hpp"

using namespace anybit;

namespace {

std::mt19937 generator(1);

[[noreturn]] void fail(const std::string& sentence) {
  std::printf("%s\n", sentence.c_str());
  std::exit(1);
}

template <class T> void same(const std::vector<T>& a, const std::vector<T>& b, const std::string& where) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], sizeof(T)) != 0) fail(where + ": differs from the scalar twin at " + std::to_string(i));
  }
}

// Any bit pattern, and numbers of the usual size; NaN only where wanted.
std::vector<float> numbers(size_t n, bool nan) {
  std::vector<float> x(n);
  for (size_t i = 0; i < n; ++i) {
    const uint32_t bits = i % 3 ? static_cast<uint32_t>(generator()) : 0x38000000u + (static_cast<uint32_t>(generator()) & 0x8fffffffu);
    std::memcpy(&x[i], &bits, 4);
    if (!nan && x[i] != x[i]) x[i] = -1.5f;
  }
  const float special[] = {0.0f, -0.0f, std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(), 0.5f, -2.5f, 1e-40f};
  for (size_t i = 0; i < std::size(special) && i < n; ++i) x[i] = special[i];
  return x;
}

struct Case {
  std::string name;
  Grid grid;
};

Grid floating(int exponent, int mantissa, int least, float high) {
  Grid g;
  g.bits = 1 + exponent + mantissa, g.exponent_bits = exponent, g.mantissa_bits = mantissa, g.min_exponent = least;
  g.low = -high, g.high = high, g.has_nan = true, g.nan_code = 1u << (exponent + mantissa);
  return g;
}

Grid integer(float low, float high, int bits, float unit) {
  Grid g;
  g.kind = GridKind::integer, g.low = low, g.high = high, g.bits = bits, g.unit = unit;
  return g;
}

// A table whose memory lasts until the program ends.
Grid table(int count, float spread) {
  auto* levels = new std::vector<float>;
  for (int i = 0; i < count; ++i) {
    const float t = 2.0f * static_cast<float>(i) / static_cast<float>(count - 1) - 1.0f;
    levels->push_back(spread * t * std::fabs(t) + t);
  }
  auto* between = new Thresholds;
  for (int i = 1; i < count; ++i) between->values.push_back((*levels)[i - 1] / 2 + (*levels)[i] / 2);
  between->index();
  auto* codes = new std::vector<int32_t>;
  for (int i = 0; i < count; ++i) codes->push_back((i * 7 + 3) & 255);
  Grid g;
  g.kind = GridKind::table, g.bits = 8, g.count = count, g.levels = levels->data(), g.thresholds = between->values.data();
  g.first = between->first.data(), g.stride = between->stride, g.codes = count > 16 ? codes->data() : nullptr;
  g.low = levels->front(), g.high = levels->back(), g.has_nan = true, g.nan_code = 255, g.keeps_nan = count > 16;
  return g;
}

Draw some_draw(CastMode mode, size_t n) { return {mode == CastMode::stochastic_50, n == 37 ? 3 : n == 1 ? 24 : 0}; }

Beyond beyond_of(const Grid& g) {
  Beyond b;
  b.above = g.high, b.below = g.low, b.high = g.high, b.low = g.low;
  b.high_step = std::ldexp(1.0, std::ilogb(g.high) - 2), b.low_step = b.high_step / 2, b.high_parity = 1;
  return b;
}

// Draws of every kind from the same words, and what they must be: the number of the reference, or the rule of generic/draws.inl.
template <class T, class F> void check_draws(const std::string& isa, F mine, F twin) {
  for (int bits = -1; bits <= 24; ++bits) {
    const Draw draw{bits < 0, bits < 0 ? 0 : bits};
    for (uint64_t start : {uint64_t{0}, uint64_t{3}, (uint64_t{1} << 34) - 7}) {
      for (size_t n : {kCastPiece, size_t{1}, size_t{37}}) {
        std::vector<T> a(n), b(n), words(n);
        mine(0x123456789abcdefull, start, draw, a.data(), n), twin(0x123456789abcdefull, start, draw, b.data(), n);
        same(a, b, isa + ": draws of " + std::to_string(bits) + " bits");
        if (bits < 1) continue;
        twin(0x123456789abcdefull, start, Draw{}, words.data(), n);
        for (size_t i = 0; i < n; ++i) {  // positions at and around every possible end of a step go up as the definition says
          const T d = std::floor(std::ldexp(words[i], bits));
          for (T step : {d, d + T(0.25), d + T(0.5), d + T(0.75), d + 1, std::nextafter(d + T(0.5), T(0)), std::nextafter(d + T(0.5), T(1e30))}) {
            const T position = std::ldexp(step, -bits);
            if (position <= 1 && (a[i] < position) != (d < std::nearbyint(step))) fail(isa + ": a draw decides wrongly");
          }
        }
      }
    }
  }
}

void check_grids(const CastOps& ops, const CastOps& scalar) {
  const Case cases[] = {{"fp32", floating(8, 23, -126, 3.40282347e38f)}, {"fp16", floating(5, 10, -14, 65504)}, {"bf16", floating(8, 7, -126, 3.3895314e38f)},
                        {"e4m3", floating(4, 3, -6, 448)},           {"e2m1", floating(2, 1, 0, 6)},
                        {"e4m0", floating(4, 0, -6, 128)},           {"e8m1", floating(8, 1, -126, 2.5521178e38f)},
                        {"int8", integer(-128, 127, 8, 1)},          {"fixed8_8", integer(-128, 127.99609375f, 16, 0.00390625f)},
                        {"16 levels", table(16, 3)},                 {"5 levels", table(5, 1)},
                        {"200 levels", table(200, 1000)},            {"4000 levels", table(4000, 1)}};
  for (const Case& c : cases) {
    for (int m = 0; m < kCastModes; ++m) {
      const auto mode = static_cast<CastMode>(m);
      for (size_t n : {kCastPiece, size_t{1}, size_t{37}}) {
        const auto x = numbers(n, c.grid.has_nan);
        std::vector<float> draws(n);
        scalar.draws(7, generator(), some_draw(mode, n), draws.data(), n);
        const float* drawn = is_random(mode) ? draws.data() : nullptr;
        const std::string where = std::string(ops.isa) + ": " + c.name + ", mode " + std::to_string(m);
        std::vector<float> a(n), b(n);
        std::vector<int32_t> p(n), q(n);
        Beyond ends = beyond_of(c.grid);
        ends.high_value = 0x7f800000, ends.low_value = static_cast<int32_t>(0xff800000u), ends.high_code = -5, ends.low_code = -6;
        for (const Beyond* given : {static_cast<const Beyond*>(&ends), static_cast<const Beyond*>(nullptr)}) {
          if (ops.round(c.grid, mode, given, drawn, x.data(), a.data(), n) != scalar.round(c.grid, mode, given, drawn, x.data(), b.data(), n))
            fail(where + ": NaN is told differently");
          // which payload a NaN keeps is the processor's choice where two meet; that it is one is compared
          for (size_t i = 0; i < n; ++i) {
            if (a[i] != a[i] && b[i] != b[i]) a[i] = b[i] = 0;
          }
          same(a, b, where + " rounded");
          ops.encode(c.grid, mode, given, drawn, x.data(), p.data(), n), scalar.encode(c.grid, mode, given, drawn, x.data(), q.data(), n);
          same(p, q, where + " encoded");
        }
        for (const float* decided : {static_cast<const float*>(nullptr), drawn}) {
          const Beyond beyond = beyond_of(c.grid);
          std::vector<int32_t> r = p, o = q;
          ops.replace(beyond, decided, x.data(), -5, -6, r.data(), n), scalar.replace(beyond, decided, x.data(), -5, -6, o.data(), n);
          same(r, o, where + " replaced beyond the range");
        }
        std::vector<uint8_t> s(n), t(n);
        ops.narrow8(p.data(), s.data(), n), scalar.narrow8(p.data(), t.data(), n);
        same(s, t, where + " narrowed to bytes");
        std::vector<uint16_t> u(n), v(n);
        ops.narrow16(p.data(), u.data(), n), scalar.narrow16(p.data(), v.data(), n);
        same(u, v, where + " narrowed to 16 bits");
      }
    }
  }
}

void check_helpers(const CastOps& ops, const CastOps& scalar) {
  const std::string isa = ops.isa;
  constexpr size_t n = 1000;
  for (size_t width : {size_t{16}, size_t{32}, size_t{7}, n}) {
    const auto x = numbers(n, false);
    const size_t blocks = (n + width - 1) / width;
    std::vector<uint32_t> p(blocks), q(blocks);
    ops.absmax(x.data(), n, width, p.data()), scalar.absmax(x.data(), n, width, q.data());
    same(p, q, isa + ": absmax");
    std::vector<float> divisors(blocks), a(n), b(n);
    for (float& d : divisors) d = 0.1f + static_cast<float>(generator() % 1000) / 64.0f;
    ops.divide(x.data(), n, width, divisors.data(), a.data()), scalar.divide(x.data(), n, width, divisors.data(), b.data());
    same(a, b, isa + ": divide");
    ops.shift(a.data(), n, width, divisors.data()), scalar.shift(b.data(), n, width, divisors.data());
    same(a, b, isa + ": shift");
    std::vector<float> units(n), near(n), weights(n), sums(divisors.size()), others(sums.size()), norms(sums.size()), twins(sums.size());
    for (size_t i = 0; i < n; ++i) units[i] = static_cast<float>(i % 15) - 7, near[i] = std::sin(static_cast<float>(i)), weights[i] = 1.0f + near[i] / 2;
    for (const float* w : {static_cast<const float*>(nullptr), static_cast<const float*>(weights.data())}) {
      for (const float* zeros : {static_cast<const float*>(nullptr), static_cast<const float*>(divisors.data())}) {
        ops.errors(units.data(), near.data(), w, n, width, divisors.data(), zeros, sums.data());
        scalar.errors(units.data(), near.data(), w, n, width, divisors.data(), zeros, others.data());
        same(sums, others, isa + ": errors");
        ops.projections(units.data(), near.data(), w, n, width, zeros, sums.data(), norms.data());
        scalar.projections(units.data(), near.data(), w, n, width, zeros, others.data(), twins.data());
        same(sums, others, isa + ": projections"), same(norms, twins, isa + ": norms");
      }
    }
  }
  check_draws<float>(isa, ops.draws, scalar.draws);
  check_draws<double>(isa, ops.draws_fp64, scalar.draws_fp64);
  std::vector<uint16_t> halves(n);
  for (uint16_t& h : halves) h = static_cast<uint16_t>(generator() % 0x7c00 + (generator() & 1) * 0x8000);
  std::vector<float> a(n), b(n);
  ops.widen_fp16(halves.data(), a.data(), n), scalar.widen_fp16(halves.data(), b.data(), n);
  same(a, b, isa + ": widen_fp16");
  ops.widen_bf16(halves.data(), a.data(), n), scalar.widen_bf16(halves.data(), b.data(), n);
  same(a, b, isa + ": widen_bf16");
  std::vector<double> wide(n), c(n), d(n);
  for (size_t i = 0; i < n; ++i) {
    wide[i] = std::ldexp(static_cast<double>(generator()) - 2e9, static_cast<int>(generator() % 400) - 200);
    if (i % 4 == 0) wide[i] = static_cast<float>(wide[i]);
  }
  const double extreme[] = {0.0, -0.0, 1e300, -1e300, 1e-300, -1e-300, std::numeric_limits<double>::infinity(), 0x1p-150, -0x1p-150, 0x1.000001p0};
  for (size_t i = 0; i < std::size(extreme); ++i) wide[i] = extreme[i];
  std::vector<double> draws(n);
  scalar.draws_fp64(1, 2, {}, draws.data(), n);
  for (int m = 0; m < kCastModes; ++m) {
    const auto mode = static_cast<CastMode>(m);
    for (size_t part : {n, size_t{1}, size_t{37}}) {
      std::fill(a.begin(), a.end(), 0.0f), std::fill(b.begin(), b.end(), 0.0f);
      const double* drawn = is_random(mode) ? draws.data() : nullptr;
      ops.narrow_fp64(mode, drawn, wide.data(), a.data(), part), scalar.narrow_fp64(mode, drawn, wide.data(), b.data(), part);
      same(a, b, isa + ": narrow_fp64, mode " + std::to_string(m));
    }
  }
  std::vector<int32_t> codes(n, 1), twins(n, 1);
  Beyond beyond;
  beyond.above = 1e30, beyond.below = -1e-30, beyond.high = 3, beyond.low = -5, beyond.low_parity = 1;
  for (const double* drawn : {static_cast<const double*>(nullptr), static_cast<const double*>(draws.data())}) {
    ops.replace_fp64(beyond, drawn, wide.data(), 7, 8, codes.data(), n), scalar.replace_fp64(beyond, drawn, wide.data(), 7, 8, twins.data(), n);
    same(codes, twins, isa + ": replace_fp64");
  }
  ops.narrow_fp64(CastMode::odd, nullptr, wide.data(), a.data(), n);
  for (size_t i = 0; i < n; ++i) {  // odd unless exact, and a neighbour of the number
    uint32_t bits;
    std::memcpy(&bits, &a[i], 4);
    const double back = a[i];
    if (back != wide[i] && !(bits & 1)) fail(isa + ": narrow_fp64 is not odd");
    if (back > wide[i] && std::nextafterf(a[i], -1e39f) > wide[i]) fail(isa + ": narrow_fp64 is not a neighbour");
    if (back < wide[i] && std::nextafterf(a[i], std::numeric_limits<float>::infinity()) < wide[i]) fail(isa + ": narrow_fp64 is not a neighbour");
  }
  ops.widen_fp32(a.data(), c.data(), n), scalar.widen_fp32(a.data(), d.data(), n);
  same(c, d, isa + ": widen_fp32");
}

}  // namespace

int main() {
  const CastOps& scalar = *cast_ops_scalar();
#if defined(ANYBIT_HAVE_NEON)
  const CastOps* other = cast_ops_neon();
#elif defined(ANYBIT_HAVE_AVX2)
  const CastOps* other = cast_ops_avx2();
#else
  const CastOps* other = cast_ops_scalar();
#endif
  if (!other) fail("built without the instruction set");
  for (const CastOps* ops : {other, &scalar}) {
    check_grids(*ops, scalar);
    check_helpers(*ops, scalar);
    std::printf("%s: equal\n", ops->isa);
  }
  return 0;
}
