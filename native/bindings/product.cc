#include "bindings/product.hpp"

#include <nanobind/nanobind.h>

#include <cmath>

namespace nb = nanobind;

namespace anybit {

Activations& activations_for(const ThreadPool& pool, int64_t m, int64_t k, double stretch, int64_t kept) {
  static thread_local Activations buffers;
  buffers.reserve(m, k, pool.size(), stretch, kept);
  return buffers;
}

void product(const Weight& w, const float* x, int64_t m, const ActSpec& spec, float* y, const Epilogue& epilogue) {
  nb::gil_scoped_release release;
  const auto pool = default_pool();
  Activations& prepared = activations_for(*pool, m, w.k, static_cast<double>(w.slots) / static_cast<double>(w.k), count_of(w.kept));
  Ticket last{0};
  pool->run([&](Team& team) {
    const Activations& a = prepare(team, prepared, x, m, w.k, w.k, spec);
    matmul(team, w, a, y, w.n, epilogue, &last);
  });
}

void product(const Parts& parts, const float* x, int64_t m, const ActSpec& spec, float* y, const float* bias) {
  nb::gil_scoped_release release;
  const auto pool = default_pool();
  Activations& prepared = activations_for(*pool, m, parts.k);
  pool->run([&](Team& team) {
    const Activations& a = prepare(team, prepared, x, m, parts.k, parts.k, spec);
    for (size_t i = 0; i < parts.weights.size(); ++i) {
      matmul(team, *parts.weights[i], a, y, parts.n, {.bias = bias, .places = parts.members[i].data()});
    }
  });
}

void product(const std::vector<PlaneWeightPtr>& weights, const float* x, int64_t m, const PlaneSpec& spec, const std::vector<float*>& outs,
             const float* bias) {
  static thread_local PlaneActivations kept;  // nothing is allocated once it is large enough
  nb::gil_scoped_release release;
  const auto pool = default_pool();
  const Weight& first = weights.front()->grid;
  kept.reserve(m, first.k, first.slots, pool->size());
  PlaneActivations& buffers = kept;
  pool->run([&](Team& team) {
    const PreparedPlanes prepared = prepare_planes(team, buffers, spec, x, m, first.k);
    for (size_t i = 0; i < outs.size(); ++i) plane_matmul(team, *weights[i], prepared, outs[i], weights[i]->grid.n, {.bias = bias});
  });
}

PlaneSpec plane_spec(const PlaneWeight& w, int64_t act_group, int act_bits) {
  require(act_bits >= 2 && act_bits <= 8, "activations have 2 to 8 bits; got ", act_bits);
  const Geometry& geometry = w.grid.geometry;
  require(act_group >= 0 && (act_group == 0 || geometry.takes(act_group)),
          "activation groups must be a multiple of 32 (or the weight's group); got ", act_group);
  return {w.order, act_group < w.grid.k ? act_group : 0, act_bits, geometry};
}

ActSpec spec_for(const Weight& w, int64_t act_group, int levels, int64_t wide, const std::string& whole, float scale) {
  ActSpec spec;
  const bool words = w.kind == ElementKind::int16;
  spec.act = act_group < -1 ? Act::bf16 : act_group < 0 ? Act::exact : words ? Act::int16 : Act::int8;
  spec.group = act_group > 0 && act_group < w.k ? act_group : 0;
  spec.geometry = w.geometry;
  const int most = words ? 32767 : 127;
  require(levels >= 1 && levels <= most, "activation codes have 1 to ", most, " levels; got ", levels);
  require(wide >= 0, "the number of groups with 127 levels is not negative; got ", wide);
  require(whole.empty() || whole == "any" || whole == "power", "one scale for all rows is of any size or a power; got '", whole, "'");
  require(scale >= 0.0f && std::isfinite(scale), "a scale known beforehand is finite and above 0; got ", scale);
  require((whole.empty() && scale == 0.0f) || (act_group == 0 && wide == 0), "one scale for all rows leaves none to groups");
  require(whole.empty() || scale == 0.0f, "a scale known beforehand is not found in x");
  spec.levels = levels, spec.wide = wide, spec.whole = !whole.empty(), spec.power = whole == "power", spec.given = scale;
  spec.values = spec.act == Act::int8 && !has_integer_form(w);
  spec.kept = w.kept.get();
  require(spec.group == 0 || spec.geometry.takes(spec.group),
          "activation groups must be a multiple of 32 (or the weight's group); got ", act_group);
  return spec;
}

}  // namespace anybit
