// Python's view of the kernels: numpy arrays in, numpy arrays out, the interpreter's lock released while computing.
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>

#include "bindings/module.hpp"
#include "bindings/product.hpp"
#include "generic/arena.hpp"
#include "generic/dispatch.hpp"
#include "generic/matmul.hpp"

namespace nb = nanobind;
using namespace anybit;

namespace {

template <class T, int Rank> using In = nb::ndarray<const T, nb::ndim<Rank>, nb::c_contig, nb::device::cpu>;
template <class T, int Rank> using Out = nb::ndarray<T, nb::ndim<Rank>, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

ScaleKind scale_kind(const std::string& name) {
  if (name == "none") return ScaleKind::none;
  if (name == "fp32") return ScaleKind::fp32;
  if (name == "fp16") return ScaleKind::fp16;
  if (name == "bf16") return ScaleKind::bf16;
  if (name == "e8m0") return ScaleKind::e8m0;
  throw std::invalid_argument("unknown scale type '" + name + "'");
}

struct PlainType {
  ElementKind kind;
  int64_t bytes;
};

PlainType plain_type(const std::string& name) {
  if (name == "fp32") return {ElementKind::fp32, 4};
  if (name == "fp16") return {ElementKind::fp16, 2};
  if (name == "bf16") return {ElementKind::bf16, 2};
  if (name == "int16") return {ElementKind::int16, 2};
  throw std::invalid_argument("plain values are fp32, fp16, bf16 or int16; got '" + name + "'");
}

int64_t blocks(int64_t length, int64_t block) { return block ? (length + block - 1) / block : 1; }

WeightPtr pack_codes(In<uint8_t, 2> codes, int64_t k, int bits, In<float, 1> table, int64_t block_rows, int64_t block_cols,
                     const std::string& scale_type, Bytes scale, std::optional<Bytes> zero, float factor, bool int8_levels) {
  Source s;
  s.int8_levels = int8_levels;
  s.n = static_cast<int64_t>(codes.shape(0)), s.k = k, s.bits = bits;
  require(bits >= 1 && bits <= 8, "packed elements have 1 to 8 bits; got ", bits);
  require(k >= 1 && block_rows >= 0 && block_cols >= 0, "sizes must be positive");
  require(static_cast<int64_t>(codes.shape(1)) == (k * bits + 7) / 8, "a row of codes has the wrong number of bytes");
  require(table.shape(0) == size_t{1} << bits, "the table of values needs one for every code");
  s.codes = codes.data(), s.table = table.data();
  s.block_rows = block_rows, s.block_cols = block_cols;
  s.scale_kind = scale_kind(scale_type), s.scale = scale.data(), s.factor = factor;
  const size_t grid = static_cast<size_t>(blocks(s.n, block_rows) * blocks(k, block_cols));
  require(scale.shape(0) == grid * scale_bytes(s.scale_kind), "the scales do not fill the grid of blocks");
  if (zero) {
    require(zero->shape(0) == grid, "the zero points do not fill the grid of blocks");
    s.zero = zero->data();
  }
  nb::gil_scoped_release release;
  return pack(*default_pool(), s);
}

WeightPtr pack_plain(Bytes values, int64_t n, int64_t k, const std::string& type, int64_t block_rows, int64_t block_cols,
                     const std::string& scale_type, Bytes scale, float factor) {
  DenseSource s;
  s.n = n, s.k = k;
  const PlainType plain = plain_type(type);
  s.kind = plain.kind;
  require(n >= 1 && k >= 1 && block_rows >= 0 && block_cols >= 0, "sizes must be positive");
  require(values.shape(0) == static_cast<size_t>(n * k * plain.bytes), "the values do not fill the matrix");
  s.values = values.data();
  s.block_rows = block_rows, s.block_cols = block_cols;
  s.scale_kind = scale_kind(scale_type), s.scale = scale.data(), s.factor = factor;
  require(scale.shape(0) == static_cast<size_t>(blocks(n, block_rows) * blocks(k, block_cols)) * scale_bytes(s.scale_kind),
          "the scales do not fill the grid of blocks");
  nb::gil_scoped_release release;
  return pack_dense(*default_pool(), s);
}

WeightPtr keep_columns(const WeightPtr& w, In<int64_t, 1> columns, Bytes values, const std::string& type) {
  const PlainType plain = plain_type(type);
  require(plain.kind != ElementKind::int16, "kept columns are fp32, fp16 or bf16; got '", type, "'");
  const size_t count = columns.shape(0);
  require(count >= 1 && values.shape(0) == static_cast<size_t>(w->n * plain.bytes) * count, "the values do not fill the columns");
  for (size_t c = 0; c < count; ++c) {
    const int64_t least = c ? columns.data()[c - 1] + 1 : 0;
    require(columns.data()[c] >= least && columns.data()[c] < w->k, "kept columns ascend from 0 and are below ", w->k, "; got ", columns.data()[c]);
  }
  return with_kept(*w, {columns.data(), columns.data() + count}, plain.kind, values.data());
}

// x [m, k] times the transposed weight, in a tree over leaves [first, last) of its columns.
void tree_rows(const WeightPtr& w, In<float, 2> x, int64_t first, int64_t last, Out<float, 2> out) {
  const auto m = static_cast<int64_t>(x.shape(0)), k = static_cast<int64_t>(x.shape(1));
  require(k == w->k, "x has ", k, " columns, the weight ", w->k);
  require(out.shape(0) == x.shape(0) && static_cast<int64_t>(out.shape(1)) == w->n, "the output has the wrong shape");
  require(has_tree(*w), "a leaf of the tree must consist of whole groups");
  require(0 <= first && first < last && last <= tree_leaves(*w), "no such leaves");
  if (m == 0) return;
  Epilogue epilogue;
  epilogue.tree = true, epilogue.first_leaf = first, epilogue.last_leaf = last;
  product(*w, x.data(), m, {.act = Act::exact, .geometry = w->geometry}, out.data(), epilogue);
}

void matmul_rows(const WeightPtr& w, In<float, 2> x, int64_t act_group, Out<float, 2> out, std::optional<In<float, 1>> bias,
                 bool accumulate, bool one_order, int levels, int64_t wide, const std::string& whole, float scale) {
  const auto m = static_cast<int64_t>(x.shape(0)), k = static_cast<int64_t>(x.shape(1));
  require(k == w->k, "x has ", k, " columns, the weight ", w->k);
  require(out.shape(0) == x.shape(0) && static_cast<int64_t>(out.shape(1)) == w->n, "the output has the wrong shape");
  require(!bias || static_cast<int64_t>(bias->shape(0)) == w->n, "the bias has the wrong length");
  const ActSpec spec = spec_for(*w, act_group, levels, wide, whole, scale);
  if (m == 0) return;
  Epilogue epilogue;
  epilogue.bias = bias ? bias->data() : nullptr, epilogue.addend = accumulate ? out.data() : nullptr, epilogue.one_order = one_order;
  product(*w, x.data(), m, spec, out.data(), epilogue);
}

std::shared_ptr<const Parts> parts_of(const std::vector<WeightPtr>& weights, const std::vector<In<int64_t, 1>>& members) {
  require(!weights.empty() && members.size() == weights.size(), "every part needs the rows that are its own");
  auto made = std::make_shared<Parts>();
  made->weights = weights, made->k = weights.front()->k;
  for (const auto& w : weights) {
    require(w->k == made->k, "a part has ", w->k, " columns, the first ", made->k);
    require(has_integer_form(*w) && w->geometry == Geometry{} && !w->kept, "parts are integers or codebooks with groups of a multiple of 32");
    made->n += w->n;
  }
  std::vector<bool> taken(static_cast<size_t>(made->n));
  for (size_t i = 0; i < weights.size(); ++i) {
    const int64_t *begin = members[i].data(), *end = begin + members[i].shape(0);
    require(end - begin == weights[i]->n, "part ", i, " has ", weights[i]->n, " rows and names ", end - begin);
    for (const int64_t* at = begin; at < end; ++at) {
      require(*at >= 0 && *at < made->n && !taken[static_cast<size_t>(*at)], "row ", *at, " is named twice or lies outside the whole");
      taken[static_cast<size_t>(*at)] = true;
    }
    made->members.emplace_back(begin, end);
  }
  return made;
}

void matmul_parts(const Parts& parts, In<float, 2> x, int64_t act_group, Out<float, 2> out, std::optional<In<float, 1>> bias, int levels) {
  const auto m = static_cast<int64_t>(x.shape(0)), k = static_cast<int64_t>(x.shape(1));
  require(k == parts.k, "x has ", k, " columns, the weight ", parts.k);
  require(out.shape(0) == x.shape(0) && static_cast<int64_t>(out.shape(1)) == parts.n, "the output has the wrong shape");
  require(!bias || static_cast<int64_t>(bias->shape(0)) == parts.n, "the bias has the wrong length");
  const ActSpec spec = spec_for(*parts.weights.front(), act_group, levels, 0, "");
  if (m > 0) product(parts, x.data(), m, spec, out.data(), bias ? bias->data() : nullptr);
}

void embed(const WeightPtr& w, In<int64_t, 1> ids, float factor, Out<float, 2> out) {
  require(!w->kept, "a table of rows keeps no columns apart");
  require(out.shape(0) == ids.shape(0) && static_cast<int64_t>(out.shape(1)) == w->k, "the output has the wrong shape");
  const int64_t* id = ids.data();
  const auto count = static_cast<int64_t>(ids.shape(0));
  for (int64_t i = 0; i < count; ++i) {
    require(id[i] >= 0 && id[i] < w->n, "row ", id[i], " of a table of ", w->n, " rows");
  }
  float* to = out.data();
  nb::gil_scoped_release release;
  default_pool()->run([&](Team& team) {
    const Share rows = share(team, count);
    for (int64_t i = rows.begin; i < rows.end; ++i) embedding_row(*w, id[i], factor, to + i * w->k);
  });
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Bytes a second of one reading loop per thread over a buffer on huge pages, read in slices of 8 MiB; the best slice of `rounds`
// passes: on a machine that others use, whole passes are interrupted.
double probe_bandwidth(size_t bytes, int threads, int rounds) {
  require(bytes >= 4096 && threads >= 1 && rounds >= 1, "the probe needs at least 4096 bytes, one thread and one round");
  nb::gil_scoped_release release;
  const auto buffer = arena_allocate(bytes);
  ThreadPool pool(threads, false);
  const Kernels& k = kernels();
  std::vector<uint64_t> sinks(static_cast<size_t>(threads) * 8);
  auto* data = reinterpret_cast<uint8_t*>(buffer.get());
  pool.run([&](Team& team) {
    const Share mine = share(team, static_cast<int64_t>(bytes), 4096);
    for (int64_t i = mine.begin; i < mine.end; ++i) data[i] = static_cast<uint8_t>(i * 7);
  });
  const size_t slice = std::min(bytes, size_t{8} << 20);
  double best = 0.0;
  for (int round = 0; round < rounds; ++round) {
    for (size_t at = 0; at + slice <= bytes; at += slice) {
      const auto start = std::chrono::steady_clock::now();
      pool.run([&](Team& team) {
        const Share mine = share(team, static_cast<int64_t>(slice), 4096);
        sinks[static_cast<size_t>(team.rank) * 8] += k.read_all(data + at + mine.begin, static_cast<size_t>(mine.end - mine.begin));
      });
      best = std::max(best, static_cast<double>(slice) / seconds_since(start));
    }
  }
  return best;
}

// Operations a second (2 a multiply-add) of the int8 multiply-add loop from registers and L1.
double probe_int8_peak(int threads, int64_t iterations) {
  require(threads >= 1 && iterations >= 1, "the probe needs at least one thread and one iteration");
  nb::gil_scoped_release release;
  ThreadPool pool(threads, false);
  const Kernels& k = kernels();
  std::vector<double> operations(static_cast<size_t>(threads) * 8);
  double best = 0.0;
  for (int round = 0; round < 5; ++round) {
    const auto start = std::chrono::steady_clock::now();
    pool.run([&](Team& team) { operations[static_cast<size_t>(team.rank) * 8] = k.int8_rounds(iterations); });
    double total = 0.0;
    for (int i = 0; i < threads; ++i) total += operations[static_cast<size_t>(i) * 8];
    const double rate = total / seconds_since(start);
    best = rate > best ? rate : best;
  }
  return best;
}

// Seconds of each of `rounds` multiplications, the weights visited in turn (so that they need not be in cache).
std::vector<double> time_matmul(const std::vector<WeightPtr>& weights, In<float, 2> x, int64_t act_group, int rounds, int levels,
                                const std::string& whole) {
  require(!weights.empty() && rounds >= 1, "timing needs at least one weight and one round");
  const auto m = static_cast<int64_t>(x.shape(0)), k = static_cast<int64_t>(x.shape(1));
  std::vector<float> y;
  for (const auto& w : weights) {
    require(w->k == k && w->geometry == Geometry{} && !w->kept,
            "timing needs weights of x's width with groups that are multiples of 32 and no kept columns");
    const bool same = (w->kind == ElementKind::int16) == (weights.front()->kind == ElementKind::int16);
    require(same && has_integer_form(*w) == has_integer_form(*weights.front()), "timing needs weights that take the same x");
    if (y.size() < static_cast<size_t>(m * w->n)) y.resize(static_cast<size_t>(m * w->n));
  }
  const ActSpec spec = spec_for(*weights.front(), act_group, levels, 0, whole);
  nb::gil_scoped_release release;
  const auto pool = default_pool();
  Activations activations;
  activations.reserve(m, k, pool->size());
  std::vector<double> seconds;
  for (int round = 0; round < rounds; ++round) {
    const Weight& w = *weights[static_cast<size_t>(round) % weights.size()];
    const auto start = std::chrono::steady_clock::now();
    Ticket last{0};
    pool->run([&](Team& team) { matmul(team, w, prepare(team, activations, x.data(), m, k, k, spec), y.data(), w.n, {}, &last); });
    seconds.push_back(seconds_since(start));
  }
  return seconds;
}

std::vector<std::tuple<std::string, std::string, bool>> isas() {
  std::vector<std::tuple<std::string, std::string, bool>> rows;
  for (const IsaInfo& isa : isa_list()) rows.emplace_back(isa.name, isa.needs, isa.supported());
  return rows;
}

}  // namespace

void bind_kernels(nb::module_& m) {
  const char* kinds[] = {"integer", "codebook", "bf16", "fp16", "fp32", "int16"};
  nb::class_<Weight>(m, "Weight", "A matrix in the kernels' own layout; read-only.")
      .def_ro("n", &Weight::n)
      .def_ro("k", &Weight::k)
      .def_ro("bits", &Weight::bits, "bits of a stored element")
      .def_prop_ro("kind", [kinds](const Weight& w) { return std::string(kinds[static_cast<int>(w.kind)]); })
      .def_prop_ro("nbytes", &Weight::nbytes)
      .def_prop_ro("integer_form", [](const Weight& w) { return has_integer_form(w); })
      .def_prop_ro("group", [](const Weight& w) { return w.geometry.group ? w.geometry.group : w.group; })
      .def_prop_ro("kept", [](const Weight& w) { return count_of(w.kept); }, "columns that multiply x as it is")
      .def_prop_ro("has_tree", [](const Weight& w) { return has_tree(w); }, "whether tree_matmul takes it")
      .def_prop_ro("padded_groups", [](const Weight& w) { return w.geometry.group != 0; });
  m.def("pack", pack_codes, nb::arg("codes"), nb::arg("k"), nb::arg("bits"), nb::arg("table"), nb::arg("block_rows"),
        nb::arg("block_cols"), nb::arg("scale_type"), nb::arg("scale"), nb::arg("zero").none(), nb::arg("factor") = 1.0f, nb::arg("int8_levels") = false);
  m.def("pack_dense", pack_plain, nb::arg("values"), nb::arg("n"), nb::arg("k"), nb::arg("type"), nb::arg("block_rows"),
        nb::arg("block_cols"), nb::arg("scale_type"), nb::arg("scale"), nb::arg("factor") = 1.0f);
  m.def("keep_columns", keep_columns, nb::arg("weight"), nb::arg("columns"), nb::arg("values"), nb::arg("type"));
  m.def("matmul", matmul_rows, nb::arg("weight"), nb::arg("x"), nb::arg("act_group"), nb::arg("out"), nb::arg("bias").none(),
        nb::arg("accumulate") = false, nb::arg("one_order") = false, nb::arg("levels") = 127, nb::arg("wide") = 0, nb::arg("whole") = "",
        nb::arg("scale") = 0.0f);
  m.def("tree_matmul", tree_rows, nb::arg("weight"), nb::arg("x"), nb::arg("first"), nb::arg("last"), nb::arg("out"));
  m.attr("TREE_LEAF") = kTreeLeaf;
  nb::class_<Parts>(m, "Parts", "The rows (outputs) of one matrix in several weights, each of which names its own; read-only.")
      .def_ro("n", &Parts::n)
      .def_ro("k", &Parts::k);
  m.def("parts", parts_of, nb::arg("weights"), nb::arg("members"));
  m.def("matmul_parts", matmul_parts, nb::arg("parts"), nb::arg("x"), nb::arg("act_group"), nb::arg("out"), nb::arg("bias").none(),
        nb::arg("levels") = 127);
  m.def("embedding", embed, nb::arg("weight"), nb::arg("ids"), nb::arg("factor"), nb::arg("out"));
  m.def("threads", [] { return default_pool()->size(); });
  m.def("set_threads", set_threads, nb::arg("threads"), nb::call_guard<nb::gil_scoped_release>());
  m.def("isa", [] { return std::string(active_isa().name); });
  m.def("isas", isas, "(name, what it needs, whether this machine has it), best first");
  m.def("set_isa", [](const std::string& name) { set_isa(name); }, nb::arg("name"));
  m.def("probe_bandwidth", probe_bandwidth, nb::arg("bytes"), nb::arg("threads"), nb::arg("rounds") = 5);
  m.def("probe_int8_peak", probe_int8_peak, nb::arg("threads"), nb::arg("iterations") = 200000);
  m.def("time_matmul", time_matmul, nb::arg("weights"), nb::arg("x"), nb::arg("act_group"), nb::arg("rounds"),
        nb::arg("levels") = 127, nb::arg("whole") = "");
  m.def("arena_mapped", arena_mapped, "bytes of address space held for weights");
}
