// Casts for Python: a `Grid` describes a format in numbers; arrays are contiguous numpy arrays, outputs are the caller's.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include <array>
#include <cmath>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/module.hpp"
#include "generic/arena.hpp"
#include "generic/cast.hpp"
#include "generic/thresholds.hpp"
#include "generic/emulate_ops.hpp"

namespace nb = nanobind;
using namespace anybit;

namespace {

template <class T> using In = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T> using Out = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T> using Matrix = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

void require(bool holds, const char* sentence) {
  if (!holds) throw std::invalid_argument(sentence);
}

const char* const kModeNames[kCastModes] = {"nearest_even", "nearest_away", "nearest_zero", "nearest_up", "nearest_down",
                                            "toward_zero",  "up",           "down",         "odd",        "stochastic",
                                            "stochastic_50"};

bool power_of_two(float x) {
  int exponent;
  return std::frexp(x, &exponent) == 0.5f;
}

// Where random modes draw from.
struct Chance {
  uint64_t seed = 0, start = 0;
  int bits = 0;
};

// A grid with the tables it points to.
struct OwnedGrid {
  Grid grid;
  std::vector<float> levels;
  std::vector<int32_t> codes;
  std::array<Thresholds, kPlainModes> thresholds;

  Cast cast(int mode, const Chance& chance, const Beyond* beyond = nullptr) {
    require(mode >= 0 && mode < kCastModes, "unknown rounding mode");
    require(chance.bits >= 0 && chance.bits <= 24, "a draw has 1 to 24 bits, or 0 where the position is not rounded");
    return {&grid, static_cast<CastMode>(mode), {chance.seed, chance.start}, chance.bits, beyond};
  }
  // The thresholds differ with the mode, so a cast of a table has a grid of its own.
  Grid in_mode(int mode) {
    Grid g = grid;
    if (g.kind == GridKind::table) {
      const auto m = static_cast<CastMode>(mode);
      Thresholds& found = thresholds[static_cast<size_t>(is_random(m) ? CastMode::down : m)];
      found.index();
      g.levels = levels.data();
      g.codes = codes.empty() ? nullptr : codes.data();
      g.thresholds = found.values.data();
      g.first = found.first.data(), g.stride = found.stride;
    }
    return g;
  }
};

OwnedGrid floating(int exponent_bits, int mantissa_bits, int min_exponent, float high, int bits, std::optional<uint32_t> nan_code) {
  require(bits == 1 + exponent_bits + mantissa_bits && (bits <= 16 || bits == 32) && exponent_bits >= 1 && mantissa_bits >= 0,
          "floating grids have a sign and 2 to 16 bits, or 32");
  require(exponent_bits <= 8 && (exponent_bits < 8 || (mantissa_bits >= 1 && min_exponent == -126)) && (bits < 32 || exponent_bits == 8),
          "8 exponent bits are float32's, with 1 to 7 mantissa bits, or 23");
  require(exponent_bits == 8 || (min_exponent <= mantissa_bits && min_exponent - mantissa_bits >= -120),
          "the spacing of a floating grid must be at least 2^-120 and at most 1");
  OwnedGrid out;
  out.grid.kind = GridKind::floating, out.grid.bits = bits, out.grid.low = -high, out.grid.high = high;
  out.grid.exponent_bits = exponent_bits, out.grid.mantissa_bits = mantissa_bits, out.grid.min_exponent = min_exponent;
  out.grid.has_nan = nan_code.has_value(), out.grid.nan_code = nan_code.value_or(0);
  return out;
}

OwnedGrid integer(float low, float high, int bits, float unit) {
  require(bits >= 1 && bits <= 24 && low <= high, "integer grids have 1 to 24 bits");
  require(unit <= 1 && unit >= 5.9604644775390625e-8f && power_of_two(unit),
          "the unit of an integer grid is a power of two, 2^-24 to 1");
  OwnedGrid out;
  out.grid.kind = GridKind::integer, out.grid.bits = bits, out.grid.low = low, out.grid.high = high, out.grid.unit = unit;
  return out;
}

// thresholds [kPlainModes, levels - 1]; codes of the levels, or none where they are their indices
OwnedGrid table(In<float> levels, Matrix<const float> thresholds, std::optional<In<int32_t>> codes, int bits,
                std::optional<uint32_t> nan_code, bool keeps_nan) {
  const size_t n = levels.shape(0);
  require(n >= 2 && n <= 65536 && thresholds.shape(0) == kPlainModes && thresholds.shape(1) == n - 1,
          "tables have 2 to 65536 levels, and one threshold fewer for every mode");
  require(!codes || codes->shape(0) == n, "every level of a table has a code");
  require(bits >= 1 && bits <= 16 && (size_t{1} << bits) >= n, "the codes of a table have 1 to 16 bits");
  OwnedGrid out;
  out.levels.assign(levels.data(), levels.data() + n);
  if (codes) out.codes.assign(codes->data(), codes->data() + n);
  for (size_t i = 1; i < n; ++i) require(out.levels[i - 1] < out.levels[i], "the levels of a table ascend");
  for (size_t m = 0; m < kPlainModes; ++m) {
    const float* from = thresholds.data() + m * (n - 1);
    for (size_t i = 1; i + 1 < n; ++i) require(from[i - 1] <= from[i], "the thresholds of a table ascend");
    out.thresholds[m].values.assign(from, from + n - 1);
  }
  out.grid.kind = GridKind::table, out.grid.count = static_cast<int>(n), out.grid.bits = bits;
  out.grid.low = out.levels.front(), out.grid.high = out.levels.back();
  out.grid.has_nan = nan_code.has_value(), out.grid.nan_code = nan_code.value_or(0), out.grid.keeps_nan = keeps_nan;
  return out;
}

// From float64 the kernels round to float32 first: in the mode itself where that is the target, else to odd.
template <class T> void require_exact(const Grid& grid, int mode) {
  require(sizeof(T) == 4 || is_fp32(grid) || !is_random(static_cast<CastMode>(mode)), "random modes take float32");
}

template <class T>
bool round_array(OwnedGrid& owner, int mode, In<T> x, Out<T> y, uint64_t seed, uint64_t start, int bits, const Beyond* beyond) {
  require(x.shape(0) == y.shape(0), "x and y must have the same length");
  require_exact<T>(owner.grid, mode);
  Cast cast = owner.cast(mode, {seed, start, bits}, beyond);
  const Grid grid = owner.in_mode(mode);
  cast.grid = &grid;
  nb::gil_scoped_release release;
  return cast_round(cast, x.data(), y.data(), static_cast<int64_t>(x.shape(0)));
}

template <class T> constexpr CodeType code_type() {
  return sizeof(T) == 1 ? CodeType::u8 : sizeof(T) == 2 ? CodeType::u16 : CodeType::i32;
}

template <class X, class T>
bool encode_array(OwnedGrid& owner, int mode, In<X> x, Out<T> codes, uint64_t seed, uint64_t start, int bits, const Beyond* beyond) {
  require(x.shape(0) == codes.shape(0), "x and codes must have the same length");
  require(8 * sizeof(T) >= static_cast<size_t>(owner.grid.bits), "the codes do not fit the type of the result");
  require_exact<X>(owner.grid, mode);
  Cast cast = owner.cast(mode, {seed, start, bits}, beyond);
  const Grid grid = owner.in_mode(mode);
  cast.grid = &grid;
  nb::gil_scoped_release release;
  return cast_encode(cast, x.data(), code_type<T>(), codes.data(), static_cast<int64_t>(x.shape(0)));
}

template <class T> bool decode_array(In<float> values, In<T> codes, Out<float> y) {
  require(codes.shape(0) == y.shape(0), "codes and y must have the same length");
  nb::gil_scoped_release release;
  return cast_decode(values.data(), static_cast<int64_t>(values.shape(0)), code_type<T>(), codes.data(), y.data(),
                     static_cast<int64_t>(codes.shape(0)));
}

bool dequantize(In<float> values, int bits, In<uint8_t> codes, int64_t rows, int64_t cols, int64_t height, int64_t width, In<float> scales,
                std::optional<In<float>> zeros, Out<float> y) {
  require(bits >= 1 && bits <= 8 && values.shape(0) <= size_t{1} << bits, "codes of 1 to 8 bits have one value each at most");
  require(rows >= 0 && cols >= 0 && height >= 1 && width >= 1, "sizes are not negative, those of blocks positive");
  require(codes.shape(0) == static_cast<size_t>(rows * packed_row_bytes(cols, bits)), "the codes do not fill the matrix");
  require(y.shape(0) == static_cast<size_t>(rows * cols), "the result has another size than the matrix");
  const auto grid = static_cast<size_t>(((rows + height - 1) / height) * ((cols + width - 1) / width));
  require(scales.shape(0) == grid && (!zeros || zeros->shape(0) == grid), "the scales or zero points do not fill the grid of blocks");
  const BlockDecode decode{values.data(), static_cast<int>(values.shape(0)), bits, height, width, scales.data(), zeros ? zeros->data() : nullptr};
  nb::gil_scoped_release release;
  return dequantize_blocks(decode, codes.data(), rows, cols, y.data());
}

// Pairs are of the lower and the upper end.  limits: what numbers must pass where nothing is drawn; values: bit patterns of float32.
void make_beyond(Beyond* at, std::pair<double, double> limits, std::pair<uint32_t, uint32_t> values, std::pair<uint32_t, uint32_t> codes,
                 bool drawn, std::pair<double, double> range, std::pair<double, double> steps, std::pair<int, int> parities) {
  require(steps.first > 0 && steps.second > 0, "steps are positive");
  new (at) Beyond{limits.second, limits.first, drawn, range.second, range.first, steps.second, steps.first, parities.second, parities.first,
                  static_cast<int32_t>(values.second), static_cast<int32_t>(values.first), static_cast<int32_t>(codes.second),
                  static_cast<int32_t>(codes.first)};
}

BlockScale block_scale(const std::string& name) {
  if (name == "fp32") return BlockScale::fp32;
  if (name == "fp16") return BlockScale::fp16;
  if (name == "bf16") return BlockScale::bf16;
  if (name == "e8m0") return BlockScale::e8m0;
  require(name == "float8", "unknown type of block scales");
  return BlockScale::float8;
}

// x: bytes of [rows, cols] float32, float16 or bfloat16.  Returns (0 done | 1 NaN | 2 infinity, tensor scale).
nb::tuple quantize(OwnedGrid& owner, int mode, In<uint8_t> x, const std::string& source, int64_t rows, int64_t cols, int64_t width,
                   float span, int top, const std::string& scale_name, OwnedGrid* scale, float smallest_scale,
                   float tensor_divisor, Out<uint8_t> codes, Out<uint8_t> scales, uint64_t seed, uint64_t start, int bits) {
  BlockCast cast;
  cast.cast = owner.cast(mode, {seed, start, bits});
  const Grid grid = owner.in_mode(mode);
  cast.cast.grid = &grid;
  require(grid.bits <= 8, "block formats have elements of up to 8 bits");
  require(rows >= 1 && cols >= 1 && width >= 1 && span > 0 && smallest_scale > 0 && tensor_divisor >= 0, "sizes must be positive");
  cast.width = width, cast.span = span, cast.top = top, cast.scale_type = block_scale(scale_name);
  cast.smallest_scale = smallest_scale, cast.tensor_divisor = tensor_divisor;
  const bool rounds = cast.scale_type == BlockScale::fp16 || cast.scale_type == BlockScale::bf16 || cast.scale_type == BlockScale::float8;
  require(!rounds || (scale && scale->grid.kind != GridKind::integer && scale->grid.bits <= 8 * block_scale_bytes(cast.scale_type)),
          "this type of scales needs its grid");
  const Grid scale_grid = scale ? scale->in_mode(static_cast<int>(CastMode::nearest_even)) : Grid{};
  cast.scale = scale ? &scale_grid : nullptr;
  const SourceType type = source == "fp32" ? SourceType::fp32 : source == "fp16" ? SourceType::fp16 : SourceType::bf16;
  require(source == "fp32" || source == "fp16" || source == "bf16", "matrices to quantize are fp32, fp16 or bf16");
  const int64_t blocks = (cols + width - 1) / width;
  require(static_cast<int64_t>(x.shape(0)) == rows * cols * (type == SourceType::fp32 ? 4 : 2), "the values do not fill the matrix");
  require(static_cast<int64_t>(codes.shape(0)) == rows * packed_row_bytes(cols, grid.bits), "the codes have the wrong size");
  require(static_cast<int64_t>(scales.shape(0)) == rows * blocks * block_scale_bytes(cast.scale_type), "the scales have the wrong size");
  float tensor_scale = 1;
  BlockStatus status;
  {
    nb::gil_scoped_release release;
    status = quantize_blocks(cast, x.data(), type, rows, cols, codes.data(), scales.data(), &tensor_scale);
  }
  return nb::make_tuple(static_cast<int>(status), tensor_scale);
}

// x [rows, cols]; weights [1 or rows, cols]; steps, zeros and results [trials, rows * blocks].  norms: null for errors.
void try_blocks(OwnedGrid& owner, Matrix<const float> x, std::optional<Matrix<const float>> weights, int64_t width, Matrix<const float> steps,
                std::optional<Matrix<const float>> zeros, Matrix<float> sums, float* norms) {
  const Grid grid = owner.in_mode(static_cast<int>(CastMode::nearest_even));
  BlockTrials of;
  of.grid = &grid, of.width = width, of.trials = static_cast<int64_t>(steps.shape(0));
  of.rows = static_cast<int64_t>(x.shape(0)), of.cols = static_cast<int64_t>(x.shape(1));
  require(of.rows >= 1 && of.cols >= 1 && width >= 1, "sizes are positive");
  require(steps.shape(1) == static_cast<size_t>(of.rows * ((of.cols + width - 1) / width)), "the steps do not fill the grid of blocks");
  require(sums.shape(0) == steps.shape(0) && sums.shape(1) == steps.shape(1), "a result for every step");
  require(!zeros || (zeros->shape(0) == steps.shape(0) && zeros->shape(1) == steps.shape(1)), "a zero point for every step");
  require(!weights || (weights->shape(1) == x.shape(1) && (weights->shape(0) == 1 || weights->shape(0) == x.shape(0))), "the weights do not fit");
  of.x = x.data(), of.steps = steps.data(), of.zeros = zeros ? zeros->data() : nullptr;
  of.weights = weights ? weights->data() : nullptr, of.weight_stride = weights && weights->shape(0) == x.shape(0) ? of.cols : 0;
  nb::gil_scoped_release release;
  if (norms) block_projections(of, sums.data(), norms);
  else block_errors(of, sums.data());
}

void errors_of_blocks(OwnedGrid& grid, Matrix<const float> x, std::optional<Matrix<const float>> weights, int64_t width,
                      Matrix<const float> steps, std::optional<Matrix<const float>> zeros, Matrix<float> sums) {
  try_blocks(grid, x, weights, width, steps, zeros, sums, nullptr);
}

void projections_of_blocks(OwnedGrid& grid, Matrix<const float> x, std::optional<Matrix<const float>> weights, int64_t width,
                           Matrix<const float> steps, std::optional<Matrix<const float>> zeros, Matrix<float> on_x, Matrix<float> norms) {
  require(norms.shape(0) == steps.shape(0) && norms.shape(1) == steps.shape(1), "a result for every step");
  try_blocks(grid, x, weights, width, steps, zeros, on_x, norms.data());
}

uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

void emulate(Matrix<const float> x, Matrix<const float> w, const std::string& rule, int constant, float smallest, float largest,
             float beyond, const OwnedGrid* accumulator, const std::string& order, int64_t chunk, float gain, Matrix<float> y) {
  Emulation p{};
  p.m = static_cast<int64_t>(x.shape(0)), p.n = static_cast<int64_t>(w.shape(0)), p.k = static_cast<int64_t>(x.shape(1));
  require(w.shape(1) == x.shape(1) && y.shape(0) == x.shape(0) && y.shape(1) == w.shape(0), "the shapes do not fit");
  require(rule == "exact" || rule == "add" || rule == "formula", "unknown rule of multiplication");
  require(order == "sequential" || order == "chunked" || order == "tree", "unknown order of addition");
  require(order == "sequential" || chunk >= 1, "chunks have at least one term");
  require(constant >= 0 && constant < (1 << 23), "the constant of a product is a fraction");
  require(!accumulator || accumulator->grid.kind == GridKind::floating, "accumulators are floating formats");
  p.x = x.data(), p.y = y.data(), p.gain = gain, p.chunk = chunk, p.constant = constant;
  p.rule = rule == "exact" ? ProductRule::exact : rule == "add" ? ProductRule::add : ProductRule::formula;
  p.order = order == "sequential" ? SumOrder::sequential : order == "chunked" ? SumOrder::chunked : SumOrder::tree;
  p.smallest = static_cast<int32_t>(bits_of(smallest)), p.largest = static_cast<int32_t>(bits_of(largest));
  p.beyond = static_cast<int32_t>(bits_of(beyond));
  p.accumulator = accumulator ? &accumulator->grid : nullptr;
  if (p.m == 0 || p.n == 0) return;
  nb::gil_scoped_release release;
  emulated_matmul(p, w.data());
}

// An array on huge pages where the system has them.
nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>> large_array(size_t bytes) {
  auto* memory = new std::shared_ptr<std::byte>(arena_allocate_result(bytes));
  nb::capsule owner(memory, [](void* p) noexcept { delete static_cast<std::shared_ptr<std::byte>*>(p); });
  return nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>>(memory->get(), {bytes}, owner);
}

}  // namespace

namespace {

template <class X> void bind_arrays(nb::module_& m) {
  m.def("cast_round", round_array<X>, nb::arg("grid"), nb::arg("mode"), nb::arg("x"), nb::arg("y"), nb::arg("seed") = 0,
        nb::arg("start") = 0, nb::arg("draw_bits") = 0, nb::arg("beyond").none() = nb::none(), "Returns whether x holds NaN.");
  const auto encode = [&]<class T>(T) {
    m.def("cast_encode", encode_array<X, T>, nb::arg("grid"), nb::arg("mode"), nb::arg("x"), nb::arg("codes"), nb::arg("seed") = 0,
          nb::arg("start") = 0, nb::arg("draw_bits") = 0, nb::arg("beyond").none() = nb::none(), "Returns whether x holds NaN.");
  };
  encode(uint8_t{}), encode(uint16_t{}), encode(int32_t{});
}

}  // namespace

void bind_cast(nb::module_& m) {
  nb::class_<OwnedGrid>(m, "Grid", "A number format as the casts see it.")
      .def_static("floating", floating, nb::arg("exponent_bits"), nb::arg("mantissa_bits"), nb::arg("min_exponent"), nb::arg("high"),
                  nb::arg("bits"), nb::arg("nan_code").none())
      .def_prop_ro("is_floating", [](const OwnedGrid& g) { return g.grid.kind == GridKind::floating; })
      .def_static("integer", integer, nb::arg("low"), nb::arg("high"), nb::arg("bits"), nb::arg("unit") = 1.0f)
      .def_static("table", table, nb::arg("levels"), nb::arg("thresholds"), nb::arg("codes").none(), nb::arg("bits"),
                  nb::arg("nan_code").none(), nb::arg("keeps_nan") = false);
  nb::class_<Beyond>(m, "Beyond", "What becomes of numbers beyond the range of a format where they do not saturate.")
      .def("__init__", make_beyond, nb::arg("limits"), nb::arg("values"), nb::arg("codes"), nb::arg("drawn"),
           nb::arg("range"), nb::arg("steps"), nb::arg("parities"));
  nb::list modes;
  for (const char* name : kModeNames) modes.append(name);
  m.attr("CAST_MODES") = nb::tuple(modes);
  bind_arrays<float>(m), bind_arrays<double>(m);
  m.def("cast_decode", decode_array<uint8_t>, nb::arg("values"), nb::arg("codes"), nb::arg("y"),
        "Returns False where a code is beyond the values.");
  m.def("cast_decode", decode_array<uint16_t>, nb::arg("values"), nb::arg("codes"), nb::arg("y"));
  m.def("cast_decode", decode_array<int32_t>, nb::arg("values"), nb::arg("codes"), nb::arg("y"));
  m.def("quantize_blocks", quantize, nb::arg("grid"), nb::arg("mode"), nb::arg("x"), nb::arg("source"), nb::arg("rows"),
        nb::arg("cols"), nb::arg("width"), nb::arg("span"), nb::arg("top"), nb::arg("scale_type"), nb::arg("scale").none(),
        nb::arg("smallest_scale"), nb::arg("tensor_divisor"), nb::arg("codes"), nb::arg("scales"), nb::arg("seed") = 0,
        nb::arg("start") = 0, nb::arg("draw_bits") = 0, "Returns (0 done, 1 NaN or 2 infinity, tensor scale).");
  m.def("dequantize_blocks", dequantize, nb::arg("values"), nb::arg("bits"), nb::arg("codes"), nb::arg("rows"), nb::arg("cols"),
        nb::arg("height"), nb::arg("width"), nb::arg("scales"), nb::arg("zeros").none(), nb::arg("y"),
        "Returns False where a code is beyond the values.");
  m.def("block_errors", errors_of_blocks, nb::arg("grid"), nb::arg("x"), nb::arg("weights").none(), nb::arg("width"), nb::arg("steps"),
        nb::arg("zeros").none(), nb::arg("sums"), "sums of weight * (unit * step - x)^2, unit = round(x / step + zero) - zero.");
  m.def("block_projections", projections_of_blocks, nb::arg("grid"), nb::arg("x"), nb::arg("weights").none(), nb::arg("width"),
        nb::arg("steps"), nb::arg("zeros").none(), nb::arg("on_x"), nb::arg("norms"), "Sums of weight * unit * x and of weight * unit^2.");
  m.def("emulated_matmul", emulate, nb::arg("x"), nb::arg("w"), nb::arg("rule"), nb::arg("constant"), nb::arg("smallest"),
        nb::arg("largest"), nb::arg("beyond"), nb::arg("accumulator").none(), nb::arg("order"), nb::arg("chunk"), nb::arg("gain"),
        nb::arg("y"));
  m.def("large_array", large_array, nb::arg("bytes"), "uint8 of any contents, on huge pages where the system has them.");
}
