// anybit._native.Engine and Sampler, and the vector kernels one by one for tests.
#include "generic/engine.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <tuple>

#include "bindings/module.hpp"
#include "generic/vector_dispatch.hpp"

namespace nb = nanobind;
using namespace anybit;

namespace {

using Floats = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Ids = nb::ndarray<const std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Array = nb::ndarray<nb::numpy, float>;

// A new numpy array over memory that it owns.
Array new_array(std::initializer_list<std::size_t> shape) {
  std::size_t n = 1;
  for (const std::size_t s : shape) n *= s;
  float* data = new float[n == 0 ? 1 : n];
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
  return Array(data, shape, owner);
}

std::span<const float> span_of(const Floats& a) { return {a.data(), a.size()}; }
std::span<const std::int32_t> span_of(const Ids& a) { return {a.data(), a.size()}; }

template <class Enum>
Enum named(const std::string& name, std::initializer_list<std::pair<const char*, Enum>> table, const char* what) {
  std::string known;
  for (const auto& [text, value] : table) {
    if (name == text) return value;
    known += (known.empty() ? "" : ", ") + std::string(text);
  }
  throw std::invalid_argument("unknown " + std::string(what) + " '" + name + "'; known: " + known);
}

Glu glu_named(const std::string& name) {
  return named<Glu>(name, {{"silu", Glu::silu}, {"gelu_tanh", Glu::gelu_tanh}, {"gelu", Glu::gelu}}, "activation");
}
CacheType cache_named(const std::string& name) {
  return named<CacheType>(name, {{"fp32", CacheType::fp32}, {"fp16", CacheType::fp16}, {"int8", CacheType::int8}},
                          "cache type");
}
OpKind kind_named(const std::string& name) {
  return named<OpKind>(name,
                       {{"embedding", OpKind::embedding},
                        {"rms_norm", OpKind::rms_norm},
                        {"linear", OpKind::linear},
                        {"rope", OpKind::rope},
                        {"attention", OpKind::attention},
                        {"glu", OpKind::glu},
                        {"add", OpKind::add},
                        {"softcap", OpKind::softcap},
                        {"last", OpKind::last},
                        {"hadamard", OpKind::hadamard},
                        {"gather", OpKind::gather},
                        {"scatter", OpKind::scatter}},
                       "operator");
}

// Attributes come as Python's Mapping[str, float | int | str]; what is not given keeps its default.
void set_attributes(EngineOp& op, const nb::dict& attrs) {
  for (const auto& [key, value] : attrs) {
    const std::string name = nb::cast<std::string>(key);
    if (name == "activation") {
      op.glu = glu_named(nb::cast<std::string>(value));
      continue;
    }
    const double number = nb::cast<double>(nb::float_(value));
    const int integer = static_cast<int>(number);
    if (name == "factor") {
      op.factor = static_cast<float>(number);
    } else if (name == "eps") {
      op.eps = static_cast<float>(number);
    } else if (name == "offset") {
      op.offset = static_cast<float>(number);
    } else if (name == "heads") {
      op.heads = integer;
    } else if (name == "kv_heads") {
      op.kv_heads = integer;
    } else if (name == "layer") {
      op.layer = integer;
    } else if (name == "window") {
      op.window = integer;
    } else if (name == "scale") {
      op.scale = static_cast<float>(number);
    } else if (name == "softcap" || name == "cap") {
      op.softcap = static_cast<float>(number);
    } else if (name == "table") {
      op.table = integer;
    } else if (name == "order") {
      op.rotation.order = integer;
    } else if (name == "block") {
      op.rotation.block = integer;
    } else if (name == "inverse") {
      op.rotation.inverse = integer != 0;
    } else if (name == "accumulate") {
      op.accumulate = integer != 0;
    } else if (name == "input_scale") {
      op.input_scale = static_cast<float>(number);
    } else if (name == "exact") {
      op.exact = integer != 0;
    } else {
      throw std::invalid_argument("the engine does not know the attribute '" + name + "'");
    }
  }
}

SamplingOptions options_of(float temperature, int top_k, float top_p, float min_p, float repetition_penalty,
                           std::uint64_t seed) {
  return {temperature, top_k, top_p, min_p, repetition_penalty, seed};
}

// out = the rotation of rows [rows, n] of x; rows are shared out among the threads.
void hadamard_rows(const nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>& x, const Floats& small, int order, int block,
                   bool inverse, const std::optional<Floats>& signs, nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>& out) {
  const auto rows = static_cast<std::int64_t>(x.shape(0)), n = static_cast<std::int64_t>(x.shape(1));
  const bool fits = order >= 1 && order <= 128 && block >= order && block % order == 0 && n % block == 0;
  if (!fits || small.size() != static_cast<std::size_t>(order) * static_cast<std::size_t>(order)) {
    throw std::invalid_argument("blocks of " + std::to_string(block) + " with a matrix of order " + std::to_string(order) + " do not rotate rows of " + std::to_string(n));
  }
  if (out.shape(0) != x.shape(0) || out.shape(1) != x.shape(1) || (signs && signs->size() != x.shape(1))) {
    throw std::invalid_argument("the output has the shape of x, and there is a sign for every column");
  }
  const HadamardShape shape{order, block, inverse};
  const float* of = signs ? signs->data() : nullptr;
  const VectorOps& ops = vector_ops();
  nb::gil_scoped_release release;
  default_pool()->run([&](Team& team) {
    const Share mine = share(team, rows);
    for (std::int64_t r = mine.begin; r < mine.end; ++r) ops.hadamard(shape, small.data(), of, x.data() + r * n, out.data() + r * n, static_cast<std::size_t>(n));
  });
}

Array map_kernel(const std::string& name, const Floats& x) {
  const VectorOps& ops = vector_ops();
  Array y = new_array({x.size()});
  if (name == "exp") {
    ops.exp(x.data(), y.data(), x.size());
  } else if (name == "tanh") {
    ops.tanh(x.data(), y.data(), x.size());
  } else {
    // activation(x) is the gated unit with an `up` of ones
    const std::vector<float> ones(x.size(), 1.0f);
    ops.glu(glu_named(name), x.data(), ones.data(), y.data(), x.size());
  }
  return y;
}

// Attention of the last `tokens` of q [tokens, heads, d] against k, v [positions, kv heads, d], through a cache of `type`;
// with `split` > 0 as partial results over that many tiles each, put together in float64.
Array attention_kernel(const nb::ndarray<const float, nb::ndim<3>, nb::c_contig>& q,
                       const nb::ndarray<const float, nb::ndim<3>, nb::c_contig>& k,
                       const nb::ndarray<const float, nb::ndim<3>, nb::c_contig>& v, float scale, int window, float softcap,
                       const std::string& type) {
  const VectorOps& ops = vector_ops();
  const int tokens = static_cast<int>(q.shape(0)), heads = static_cast<int>(q.shape(1)), d = static_cast<int>(q.shape(2));
  const int positions = static_cast<int>(k.shape(0)), kv_heads = static_cast<int>(k.shape(1));
  KvCache cache(1, kv_heads, d, cache_named(type));
  cache.reserve(positions);
  for (int p = 0; p < positions; ++p) {
    for (int h = 0; h < kv_heads; ++h) {
      const std::size_t at = (static_cast<std::size_t>(p) * static_cast<std::size_t>(kv_heads) + static_cast<std::size_t>(h)) *
                             static_cast<std::size_t>(d);
      ops.cache_store(cache.at(p, 0, h), cache.type(), d, p % kTilePositions, k.data() + at, v.data() + at);
    }
  }
  Array out = new_array({q.shape(0), q.shape(1), q.shape(2)});
  const int group = heads / kv_heads, block = std::max(1, kAttentionRows / group);
  std::vector<float> scratch(attention_scratch(d, std::max(group, kAttentionRows)));
  for (int h = 0; h < kv_heads; ++h) {
    for (int first = 0; first < tokens; first += block) {
      Attention p{};
      const std::size_t at = (static_cast<std::size_t>(first) * static_cast<std::size_t>(heads) +
                              static_cast<std::size_t>(h * group)) * static_cast<std::size_t>(d);
      p.q = q.data() + at;
      p.out = out.data() + at;
      p.q_stride = p.out_stride = static_cast<std::size_t>(heads) * static_cast<std::size_t>(d);
      p.tokens = std::min(block, tokens - first);
      p.group = group;
      p.head_dim = d;
      p.position = positions - tokens + first;
      p.window = window;
      p.scale = scale;
      p.softcap = softcap;
      p.type = cache.type();
      p.tiles = cache.tiles();
      p.tile_offset = cache.offset(0, h);
      p.tile_begin = 0;
      p.tile_end = (p.position + p.tokens - 1) / kTilePositions + 1;
      p.scratch = scratch.data();
      ops.attention(p);
    }
  }
  return out;
}

}  // namespace

void bind_engine(nb::module_& m) {
  nb::class_<Engine>(m, "Engine")
      .def(
          "__init__",
          [](Engine* self, const std::vector<int>& widths, int logits, const nb::list& ops, const std::vector<Floats>& tables,
             const std::tuple<int, int, int, int>& cache_shape, const std::string& cache, bool int8, std::int64_t act_group,
             int chunk, int threads) {
            EngineConfig config;
            config.widths = widths;
            config.logits = logits;
            for (const auto& item : ops) {
              // (kind, inputs, output, weight or None, vector or None, attributes)
              const auto t = nb::cast<nb::tuple>(item);
              EngineOp op;
              op.kind = kind_named(nb::cast<std::string>(t[0]));
              op.inputs = nb::cast<std::vector<int>>(t[1]);
              op.output = nb::cast<int>(t[2]);
              if (!t[3].is_none()) op.weight = nb::cast<WeightPtr>(t[3]);
              if (!t[4].is_none()) {
                const auto v = nb::cast<Floats>(t[4]);
                op.vector.assign(v.data(), v.data() + v.size());
              }
              set_attributes(op, nb::cast<nb::dict>(t[5]));
              config.ops.push_back(std::move(op));
            }
            for (const Floats& t : tables) config.tables.emplace_back(t.data(), t.data() + t.size());
            std::tie(config.layers, config.kv_heads, config.head_dim, config.max_positions) = cache_shape;
            config.cache = cache_named(cache);
            config.act = {int8 ? Act::int8 : Act::exact, act_group, {}};
            config.chunk = chunk;
            config.may_be_alone = threads == 0;
            new (self) Engine(std::move(config), threads > 0 ? std::make_shared<ThreadPool>(threads) : default_pool());
          },
          nb::arg("widths"), nb::arg("logits"), nb::arg("ops"), nb::arg("tables"), nb::arg("cache_shape"), nb::arg("cache"),
          nb::arg("int8"), nb::arg("act_group"), nb::arg("chunk"), nb::arg("threads"))
      .def("forward",
           [](Engine& self, const Ids& ids, bool all) {
             Array out = new_array({all ? ids.size() : 1, static_cast<std::size_t>(self.vocab())});
             nb::gil_scoped_release unlocked;
             self.forward(span_of(ids), all, out.data());
             return out;
           })
      .def("next",
           [](Engine& self, const Ids& ids, const Ids& history, float temperature, int top_k, float top_p, float min_p,
              float repetition_penalty, std::uint64_t seed) {
             nb::gil_scoped_release unlocked;
             return self.next(span_of(ids), options_of(temperature, top_k, top_p, min_p, repetition_penalty, seed),
                              span_of(history));
           })
      .def("reset", &Engine::reset)
      .def("truncate", &Engine::truncate)
      .def_prop_ro("position", &Engine::position)
      .def_prop_ro("vocab", &Engine::vocab)
      .def_prop_ro("threads", &Engine::threads)
      .def_prop_ro("ranks", &Engine::ranks)
      .def_prop_ro("isa", [](const Engine& self) { return std::string(self.isa()); })
      .def_prop_ro("cache_bytes", &Engine::cache_bytes)
      .def_prop_ro("weight_bytes", &Engine::weight_bytes)
      .def("enable_profile", &Engine::enable_profile)
      .def("profile", [](const Engine& self) {
        std::vector<std::tuple<std::string, double, std::int64_t>> out;
        for (const OpTime& t : self.profile()) out.emplace_back(t.kind, t.microseconds, t.calls);
        return out;
      });

  m.def("sample",
        [](const Floats& logits, const Ids& history, std::uint64_t counter, float temperature, int top_k, float top_p,
           float min_p, float repetition_penalty, std::uint64_t seed) {
          return Sampler(vector_ops())
              .sample(span_of(logits), options_of(temperature, top_k, top_p, min_p, repetition_penalty, seed),
                      span_of(history), counter);
        });
  m.def("sampling_probabilities",
        [](const Floats& logits, const Ids& history, float temperature, int top_k, float top_p, float min_p,
           float repetition_penalty) {
          return Sampler(vector_ops())
              .probabilities(span_of(logits), options_of(temperature, top_k, top_p, min_p, repetition_penalty, 0),
                             span_of(history));
        });

  m.def("hadamard", &hadamard_rows, nb::arg("x"), nb::arg("small"), nb::arg("order"), nb::arg("block"), nb::arg("inverse"),
        nb::arg("signs").none(), nb::arg("out"));
  m.def("vector_map", &map_kernel, "exp, tanh, silu, gelu_tanh or gelu of every element; for tests");
  m.def("vector_attention", &attention_kernel, "Causal attention through a cache of the given type; for tests");
  m.def("vector_rms_norm", [](const Floats& x, const Floats& gain, float offset, float eps) {
    if (x.size() != gain.size()) throw std::invalid_argument("x and gain differ in length");
    Array y = new_array({x.size()});
    vector_ops().rms_norm(x.data(), gain.data(), offset, eps, y.data(), x.size());
    return y;
  });
  m.def("vector_rope", [](const Floats& x, int heads, const Floats& cos, const Floats& sin) {
    if (heads < 1 || x.size() % static_cast<std::size_t>(heads) != 0 || cos.size() != sin.size() ||
        2 * cos.size() > x.size() / static_cast<std::size_t>(heads)) {
      throw std::invalid_argument("heads or tables do not fit x");
    }
    Array y = new_array({x.size()});
    std::memcpy(y.data(), x.data(), x.size() * sizeof(float));
    vector_ops().rope(y.data(), heads, static_cast<int>(x.size()) / heads, static_cast<int>(cos.size()), cos.data(),
                      sin.data());
    return y;
  });
}
