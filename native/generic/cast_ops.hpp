// Rounding float32 onto the grid of a number format, and its codes: one table of plain functions an instruction set.
//
// Every function works on a piece of at most kCastPiece elements, so that what lies between two of them stays in the first cache;
// generic/cast.hpp cuts arrays into pieces and splits them among threads.  What a mode does is said in anybit/formats/rounding.py, whose
// results these functions give bit for bit.
#pragma once

#include <cstddef>
#include <cstdint>

namespace anybit {

inline constexpr std::size_t kCastPiece = 1024;

// Of the two neighbours of a number that is not on the grid: the nearer, a tie going to the even one, away from zero, to zero, up or
// down; or the one of smaller magnitude, the upper, the lower, the odd one; or the upper with the probability of the position, or
// with one half.  The kernels know one random mode: up where a draw is below the position, which lies in [0, 1].
enum class CastMode : int {
  nearest_even, nearest_away, nearest_zero, nearest_up, nearest_down, toward_zero, up, down, odd, stochastic, stochastic_50
};
inline constexpr int kCastModes = 11, kPlainModes = 9;  // the plain ones draw nothing
constexpr bool is_random(CastMode mode) { return static_cast<int>(mode) >= kPlainModes; }

enum class GridKind : int { floating, integer, table };

// A format as numbers.  Everything beyond `low` and `high` saturates.
struct Grid {
  GridKind kind = GridKind::floating;
  int bits = 0;              // of a code
  float low = 0, high = 0;   // smallest and largest finite value
  bool has_nan = false;      // else NaN in the input is reported and its result has no meaning
  // floating: sign, exponent, mantissa.  8 exponent bits: the upper bits of a float32, 1 to 7 mantissa bits, or all 23.  Fewer: any
  // with 2^(min_exponent - mantissa_bits) <= 1.
  int exponent_bits = 0, mantissa_bits = 0, min_exponent = 0;
  std::uint32_t nan_code = 0;
  // integer: the values are integers times the power of two `unit`
  float unit = 1;
  // table: ascending levels, 2 to 65536.  thresholds, one fewer, decide: x belongs to level i when t[i-1] < x <= t[i]; those of mode
  // down serve the random modes, which then choose between level i and the next.  Behind them lie 2 * stride infinities.
  const float* levels = nullptr;
  const float* thresholds = nullptr;
  int count = 0;
  // first[bits of x >> kKeyShift]: thresholds below every such x (tables of more than kFewLevels); any such x has at most
  // 2 * stride - 1 more of them below.
  const std::uint16_t* first = nullptr;
  int stride = 0;
  const std::int32_t* codes = nullptr;  // of the levels; null: the index
  bool keeps_nan = false;               // NaN keeps its sign and payload; else it becomes the plain one
};

constexpr bool is_fp32(const Grid& grid) { return grid.kind == GridKind::floating && grid.mantissa_bits == 23; }

// What takes the place of saturated results: those of numbers above `above` and below `below`; or, where drawn, those that a draw sends
// from the last value (`low`, `high`) to the one that would follow a step away.  parity: the last bit of that last value.
struct Beyond {
  double above = 0, below = 0;
  bool drawn = false;
  double high = 0, low = 0, high_step = 1, low_step = 1;
  int high_parity = 0, low_parity = 0;
  std::int32_t high_value = 0, low_value = 0, high_code = 0, low_code = 0;  // bit patterns of floats, and codes
};

// Which random numbers decide; see draws() below.
struct Draw {
  bool fair = false;  // either neighbour with probability 1/2
  int bits = 0;       // of a draw, 1 to 24; 0: 24, and the position is taken as it is
};

inline constexpr int kFewLevels = 16, kKeyShift = 18;
inline constexpr std::size_t kKeys = std::size_t{1} << (32 - kKeyShift);

struct CastOps {
  const char* isa;
  // y = x on the grid; codes = its codes.  beyond: null, or what replaces the results of numbers above and below it, whatever is drawn.
  // drawn: the draws of these elements (random modes only).  Returns whether x holds NaN.
  bool (*round)(const Grid& grid, CastMode mode, const Beyond* beyond, const float* drawn, const float* x, float* y, std::size_t n);
  bool (*encode)(const Grid& grid, CastMode mode, const Beyond* beyond, const float* drawn, const float* x, std::int32_t* codes,
                 std::size_t n);
  // The 32-bit results y (values or codes) of numbers beyond the range: those that draws send there, and those of float64.
  void (*replace)(const Beyond& beyond, const float* drawn, const float* x, std::int32_t high, std::int32_t low, std::int32_t* y,
                  std::size_t n);
  void (*replace_fp64)(const Beyond& beyond, const double* drawn, const double* x, std::int32_t high, std::int32_t low,
                       std::int32_t* y, std::size_t n);
  // The low bits of codes.
  void (*narrow8)(const std::int32_t* codes, std::uint8_t* out, std::size_t n);
  void (*narrow16)(const std::int32_t* codes, std::uint16_t* out, std::size_t n);
  // out[i]: what the position of element `start + i` of the stream must exceed for it to go up.
  void (*draws)(std::uint64_t seed, std::uint64_t start, Draw draw, float* out, std::size_t n);
  void (*draws_fp64)(std::uint64_t seed, std::uint64_t start, Draw draw, double* out, std::size_t n);
  // The bit pattern of the largest |x| of every `width` elements (the last block may be short); 0x7f800000 or more where one is not finite.
  void (*absmax)(const float* x, std::size_t n, std::size_t width, std::uint32_t* bits);
  // y = x / the divisor of its block
  void (*divide)(const float* x, std::size_t n, std::size_t width, const float* divisors, float* y);
  // y += the offset of its block
  void (*shift)(float* y, std::size_t n, std::size_t width, const float* offsets);
  // Of every block of `width` units (rounded numbers): the sum of weight * ((unit - zero) * step - x)^2; or of weight * unit * x, and of
  // weight * unit^2, zero taken off.  zeros and weights [n] may be null.  Sixteen chains, whatever the width of a register.
  void (*errors)(const float* units, const float* x, const float* weights, std::size_t n, std::size_t width, const float* steps,
                 const float* zeros, float* sums);
  void (*projections)(const float* units, const float* x, const float* weights, std::size_t n, std::size_t width, const float* zeros,
                      float* on_x, float* norms);
  void (*widen_bf16)(const std::uint16_t* x, float* y, std::size_t n);
  void (*widen_fp16)(const std::uint16_t* x, float* y, std::size_t n);
  // x rounded to float32.  To odd: a later rounding to a format of at most 22 significant bits gives what rounding x itself would.
  void (*narrow_fp64)(CastMode mode, const double* drawn, const double* x, float* y, std::size_t n);
  void (*widen_fp32)(const float* x, double* y, std::size_t n);
  // y = x, past the caches where the machine can; y on a multiple of 64 bytes.  fence() afterwards, before another thread reads y.
  void (*stream)(const float* x, float* y, std::size_t n);
  void (*fence)();
};

// The tables; null where the build has no such instruction set.
const CastOps* cast_ops_avx512();
const CastOps* cast_ops_avx2();
const CastOps* cast_ops_neon();
const CastOps* cast_ops_scalar();

// Of the instruction set that dispatch.hpp chose.
const CastOps& cast_ops();

}  // namespace anybit
