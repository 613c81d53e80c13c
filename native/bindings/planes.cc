// Python's view of weights in planes of bits.
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <stdexcept>
#include <string>

#include "bindings/module.hpp"
#include "bindings/product.hpp"
#include "generic/dispatch.hpp"
#include "generic/planes.hpp"

namespace nb = nanobind;
using namespace anybit;

namespace {

template <class T, int Rank> using In = nb::ndarray<const T, nb::ndim<Rank>, nb::c_contig, nb::device::cpu>;
template <class T, int Rank> using Out = nb::ndarray<T, nb::ndim<Rank>, nb::c_contig, nb::device::cpu>;

PlaneWeightPtr planes_of(const WeightPtr& w, const std::string& order) {
  if (order != "bits" && order != "nibbles") throw std::invalid_argument("planes lie in the order of bits or nibbles; got '" + order + "'");
  nb::gil_scoped_release release;
  return to_planes(*default_pool(), *w, order == "bits" ? PlaneOrder::bits : PlaneOrder::nibbles);
}

// How x [m, k] is to be prepared for all of some weights.
PlaneSpec spec_of(const std::vector<PlaneWeightPtr>& weights, int64_t k, int64_t act_group, int act_bits) {
  require(!weights.empty(), "a product needs a weight");
  const PlaneWeight& first = *weights.front();
  for (const auto& w : weights) {
    require(k == w->grid.k, "x has ", k, " columns, the weight ", w->grid.k);
    require(w->order == first.order && w->grid.geometry == first.grid.geometry,
            "weights that share activations lie in the same order with the same padding");
  }
  return plane_spec(first, act_group, act_bits);
}

void multiply(const std::vector<PlaneWeightPtr>& weights, In<float, 2> x, int64_t act_group, int act_bits, std::vector<Out<float, 2>> outs,
              std::optional<In<float, 1>> bias) {
  const auto m = static_cast<int64_t>(x.shape(0)), k = static_cast<int64_t>(x.shape(1));
  const PlaneSpec spec = spec_of(weights, k, act_group, act_bits);
  require(outs.size() == weights.size(), "every weight needs an output");
  std::vector<float*> results;
  for (size_t i = 0; i < outs.size(); ++i) {
    const int64_t n = weights[i]->grid.n;
    require(outs[i].shape(0) == x.shape(0) && static_cast<int64_t>(outs[i].shape(1)) == n, "the output has the wrong shape");
    require(!bias || static_cast<int64_t>(bias->shape(0)) == n, "the bias has the wrong length");
    results.push_back(outs[i].data());
  }
  if (m > 0) product(weights, x.data(), m, spec, results, bias ? bias->data() : nullptr);
}

// Seconds of each of `rounds` products, the weights visited in turn.
std::vector<double> time_planes(const std::vector<PlaneWeightPtr>& weights, In<float, 2> x, int64_t act_group, int act_bits, int rounds) {
  const auto m = static_cast<int64_t>(x.shape(0)), k = static_cast<int64_t>(x.shape(1));
  const PlaneSpec spec = spec_of(weights, k, act_group, act_bits);
  if (rounds < 1) throw std::invalid_argument("timing needs at least one round");
  int64_t most = 0;
  for (const auto& w : weights) most = w->grid.n > most ? w->grid.n : most;
  std::vector<float> y(static_cast<size_t>(m * most));
  nb::gil_scoped_release release;
  const auto pool = default_pool();
  PlaneActivations kept;
  kept.reserve(m, k, weights.front()->grid.slots, pool->size());
  std::vector<double> seconds;
  for (int round = 0; round < rounds; ++round) {
    const PlaneWeight& w = *weights[static_cast<size_t>(round) % weights.size()];
    const auto start = std::chrono::steady_clock::now();
    pool->run([&](Team& team) { plane_matmul(team, w, prepare_planes(team, kept, spec, x.data(), m, k), y.data(), w.grid.n); });
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return seconds;
}

// Bits that pairs of rows have in common, or not: a [A, G, words], b [B, G, words] and out [G, A, B].
void count_pairs(In<uint64_t, 3> a, In<uint64_t, 3> b, bool exclusive, Out<int32_t, 3> out) {
  const size_t groups = a.shape(1), words = a.shape(2);
  require(b.shape(1) == groups && b.shape(2) == words, "both sides have the same words in the same groups");
  require(words % 8 == 0, "a group of a row is whole lines of 512 bits; got ", words, " words");
  require(words < size_t{1} << 25, "counts are numbers of 32 bits; got ", words, " words");
  require(out.shape(0) == groups && out.shape(1) == a.shape(0) && out.shape(2) == b.shape(0), "the output has the wrong shape");
  const auto aligned = [](const void* data) { return reinterpret_cast<uintptr_t>(data) % 64 == 0; };
  if (out.size() == 0) return;
  require(aligned(a.data()) && aligned(b.data()), "rows of bits are aligned to 64 bytes");
  nb::gil_scoped_release release;
  const auto rows = [&](const auto& side, size_t group) {
    return BitRows{reinterpret_cast<const uint8_t*>(side.data() + group * words), static_cast<int64_t>(side.shape(0)),
                   static_cast<int64_t>(8 * groups * words)};
  };
  default_pool()->run([&](Team& team) {
    for (size_t group = 0; group < groups; ++group) {
      const BitRows left = rows(a, group), right = rows(b, group);
      const Share some = share(team, right.rows, 4);
      kernels().count_pairs(left, right, some.begin, some.end, static_cast<int64_t>(words / 8), exclusive,
                            out.data() + static_cast<int64_t>(group) * left.rows * right.rows, right.rows);
    }
  });
}

}  // namespace

void bind_planes(nb::module_& m) {
  nb::class_<PlaneWeight>(m, "PlaneWeight", "A matrix of integers as planes of bits; read-only.")
      .def_prop_ro("n", [](const PlaneWeight& w) { return w.grid.n; })
      .def_prop_ro("k", [](const PlaneWeight& w) { return w.grid.k; })
      .def_prop_ro("bits", [](const PlaneWeight& w) { return w.grid.bits; })
      .def_prop_ro("order", [](const PlaneWeight& w) { return std::string(w.order == PlaneOrder::bits ? "bits" : "nibbles"); })
      .def_prop_ro("nbytes", [](const PlaneWeight& w) { return w.grid.nbytes(); })
      .def_prop_ro("group", [](const PlaneWeight& w) { return w.grid.geometry.group ? w.grid.geometry.group : w.grid.group; })
      .def_prop_ro("padded_groups", [](const PlaneWeight& w) { return w.grid.geometry.group != 0; });
  m.def("planes", planes_of, nb::arg("weight"), nb::arg("order"));
  m.def("plane_matmul", multiply, nb::arg("weights"), nb::arg("x"), nb::arg("act_group"), nb::arg("act_bits"), nb::arg("outs"),
        nb::arg("bias").none());
  m.def("count_pairs", count_pairs, nb::arg("a"), nb::arg("b"), nb::arg("exclusive"), nb::arg("out"));
  m.def("time_planes", time_planes, nb::arg("weights"), nb::arg("x"), nb::arg("act_group"), nb::arg("act_bits"), nb::arg("rounds"));
}
