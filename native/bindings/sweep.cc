// The exact scale sweep for Python; anybit/formats/sweep.py prepares the tables.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <optional>
#include <stdexcept>

#include "bindings/module.hpp"
#include "generic/sweep.hpp"

namespace nb = nanobind;
using namespace anybit;

namespace {

template <class T> using Matrix = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

// weights: [blocks, n], or [1, n] for all blocks
void sweep(Matrix<const double> x, std::optional<Matrix<const double>> weights, Matrix<const double> middle, Matrix<const double> gain,
           Matrix<const double> growth, double up, double down, Matrix<double> out) {
  const size_t blocks = x.shape(0), n = x.shape(1), steps = middle.shape(1);
  const auto require = [](bool holds, const char* sentence) {
    if (!holds) throw std::invalid_argument(sentence);
  };
  require(n >= 1 && steps >= 1, "blocks have numbers, and alphabets two values");
  require(middle.shape(0) == 2 && gain.shape(0) == 2 && growth.shape(0) == 2 && gain.shape(1) == steps && growth.shape(1) == steps,
          "the tables of an alphabet are [2, steps]");
  require(out.shape(0) == 4 && out.shape(1) == blocks, "the result is [4, blocks]");
  require(!weights || (weights->shape(1) == n && (weights->shape(0) == 1 || weights->shape(0) == blocks)), "the weights do not fit");
  Alphabet alphabet;
  alphabet.steps = static_cast<int64_t>(steps);
  alphabet.middle = middle.data(), alphabet.gain = gain.data(), alphabet.growth = growth.data();
  alphabet.first[0] = up, alphabet.first[1] = down;
  const double* w = weights ? weights->data() : nullptr;
  const int64_t stride = weights && weights->shape(0) == blocks ? static_cast<int64_t>(n) : 0;
  nb::gil_scoped_release release;
  sweep_scales(alphabet, x.data(), w, stride, static_cast<int64_t>(blocks), static_cast<int64_t>(n), out.data());
}

}  // namespace

void bind_sweep(nb::module_& m) {
  m.def("sweep_scales", sweep, nb::arg("x"), nb::arg("weights").none(), nb::arg("middle"), nb::arg("gain"), nb::arg("growth"),
        nb::arg("up"), nb::arg("down"), nb::arg("out"), "out [4, blocks]: scale, projection, norm, energy.");
}
