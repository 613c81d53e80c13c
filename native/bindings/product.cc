#include "bindings/product.hpp"

#include <nanobind/nanobind.h>

namespace nb = nanobind;

namespace anybit {

Activations& activations_for(const ThreadPool& pool, int64_t m, int64_t k, double stretch) {
  static thread_local Activations kept;
  kept.reserve(m, k, pool.size(), stretch);
  return kept;
}

void product(const Weight& w, const float* x, int64_t m, int64_t k, const ActSpec& spec, float* y, const Epilogue& epilogue) {
  nb::gil_scoped_release release;
  const auto pool = default_pool();
  Activations& prepared = activations_for(*pool, m, k, static_cast<double>(w.slots) / static_cast<double>(k));
  pool->run([&](Team& team) {
    const Activations& a = prepare(team, prepared, x, m, k, k, spec);
    matmul(team, w, a, y, w.n, epilogue);
  });
}

ActSpec spec_for(const Weight& w, int64_t act_group, int levels, int64_t wide, const std::string& whole) {
  ActSpec spec;
  const bool words = w.kind == ElementKind::int16;
  spec.act = act_group < -1 ? Act::bf16 : act_group < 0 ? Act::exact : words ? Act::int16 : Act::int8;
  spec.group = act_group > 0 && act_group < w.k ? act_group : 0;
  spec.geometry = w.geometry;
  const int most = words ? 32767 : 127;
  require(levels >= 1 && levels <= most, "activation codes have 1 to ", most, " levels; got ", levels);
  require(wide >= 0, "the number of groups with 127 levels is not negative; got ", wide);
  require(whole.empty() || whole == "any" || whole == "power", "one scale for all rows is of any size or a power; got '", whole, "'");
  require(whole.empty() || (act_group == 0 && wide == 0), "one scale for all rows leaves none to groups");
  spec.levels = levels, spec.wide = wide, spec.whole = !whole.empty(), spec.power = whole == "power";
  spec.values = spec.act == Act::int8 && !has_integer_form(w);
  require(spec.group == 0 || spec.geometry.takes(spec.group),
          "activation groups must be a multiple of 32 (or the weight's group); got ", act_group);
  return spec;
}

}  // namespace anybit
