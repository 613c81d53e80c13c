// Compares the scalar twin with plain loops in double, and every other instruction set of this build with the twin, bit by bit.  Prints one
// line an instruction set and exits with 1 at the first difference.  Built and run by test_kernel_check.py.  With any argument it takes less
// time, for emulators: 41 rows come in every other case, and planes are not tried on the twin.  Kernels that instruction sets share are
// checked in one of them.  Sums of bf16 where an instruction makes them have no twin: they are compared with double alone.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "generic/dispatch.hpp"
#include "generic/matmul.hpp"
#include "generic/number.inl"
#include "generic/planes.hpp"

using namespace anybit;

namespace {

std::mt19937 generator(1);
int uniform(int low, int high) { return std::uniform_int_distribution<int>(low, high)(generator); }
float normal() { return std::normal_distribution<float>()(generator); }

struct Case {
  const char* what;
  int64_t n, k;
  WeightPtr weight;
};

// extreme: none but those of the smallest and the largest integer.
std::vector<uint8_t> random_codes(int64_t n, int64_t k, int bits, int most, bool extreme = false) {
  const int64_t row_bytes = (k * bits + 7) / 8;
  std::vector<uint8_t> out(static_cast<size_t>(n * row_bytes));
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t c = 0; c < k; ++c) {
      const unsigned code = static_cast<unsigned>(extreme ? most / 2 + uniform(0, 1) : uniform(0, most)), bit = static_cast<unsigned>(c * bits);
      for (int b = 0; b < bits; ++b) {
        if (code >> b & 1) out[static_cast<size_t>(r * row_bytes + (bit + b) / 8)] |= static_cast<uint8_t>(1u << (bit + b) % 8);
      }
    }
  }
  return out;
}

WeightPtr integer_weight(ThreadPool& pool, int64_t n, int64_t k, int bits, int64_t group, bool zeros, bool extreme = false) {
  std::vector<float> table(size_t{1} << bits);
  for (int c = 0; c < 1 << bits; ++c) table[c] = static_cast<float>(!zeros && c >= 1 << (bits - 1) ? c - (1 << bits) : c);
  const auto codes = random_codes(n, k, bits, (1 << bits) - 1, extreme);
  const int64_t groups = group ? (k + group - 1) / group : 1;
  std::vector<float> scales(static_cast<size_t>(n * groups));
  for (float& s : scales) s = 0.5f + static_cast<float>(uniform(0, 100)) / 64.0f;
  std::vector<uint8_t> zero(scales.size());
  for (uint8_t& z : zero) z = static_cast<uint8_t>(uniform(0, (1 << bits) - 1));
  Source s;
  s.n = n, s.k = k, s.bits = bits, s.codes = codes.data(), s.table = table.data(), s.block_cols = group;
  s.scale_kind = ScaleKind::fp32, s.scale = scales.data(), s.zero = zeros ? zero.data() : nullptr;
  return pack(pool, s);
}

WeightPtr codebook_weight(ThreadPool& pool, int64_t n, int64_t k, int bits, bool bytes) {
  std::vector<float> table(size_t{1} << bits);
  for (size_t c = 0; c < table.size(); ++c) table[c] = bytes ? static_cast<float>(c * c % 12) - 4.5f : std::sin(static_cast<float>(c) * 1.7f);
  const auto codes = random_codes(n, k, bits, (1 << bits) - 1);
  std::vector<uint8_t> scales(static_cast<size_t>(n * ((k + 31) / 32)));
  for (uint8_t& s : scales) s = static_cast<uint8_t>(uniform(120, 130));
  Source s;
  s.n = n, s.k = k, s.bits = bits, s.codes = codes.data(), s.table = table.data(), s.block_cols = 32;
  s.scale_kind = ScaleKind::e8m0, s.scale = scales.data();
  return pack(pool, s);
}

WeightPtr int16_weight(ThreadPool& pool, int64_t n, int64_t k, int64_t group, int most) {
  std::vector<int16_t> codes(static_cast<size_t>(n * k));
  for (int16_t& c : codes) c = static_cast<int16_t>(most == 32768 ? -32768 : uniform(-most, most));
  std::vector<float> scales(static_cast<size_t>(n * (group ? (k + group - 1) / group : 1)));
  for (float& s : scales) s = 0.5f + static_cast<float>(uniform(0, 100)) / 64.0f;
  DenseSource s;
  s.n = n, s.k = k, s.kind = ElementKind::int16, s.values = codes.data(), s.block_cols = group, s.scale_kind = ScaleKind::fp32, s.scale = scales.data();
  return pack_dense(pool, s);
}

WeightPtr plain_weight(ThreadPool& pool, int64_t n, int64_t k, ElementKind kind) {
  std::vector<uint32_t> words(static_cast<size_t>(n * k));
  std::vector<uint16_t> halves(words.size());
  for (size_t i = 0; i < words.size(); ++i) {
    const float value = normal();
    std::memcpy(&words[i], &value, 4);
    halves[i] = kind == ElementKind::bf16 ? static_cast<uint16_t>(words[i] >> 16) : static_cast<uint16_t>(uniform(0, 0x7bff) | uniform(0, 1) << 15);
  }
  DenseSource s;
  s.n = n, s.k = k, s.kind = kind;
  s.values = kind == ElementKind::fp32 ? static_cast<const void*>(words.data()) : halves.data();
  return pack_dense(pool, s);
}

std::vector<float> run(ThreadPool& pool, const Weight& w, const std::vector<float>& x, int64_t m, const ActSpec& spec, bool tree) {
  std::vector<float> y(static_cast<size_t>(m * w.n), 0.25f), bias(static_cast<size_t>(w.n), 1.5f);
  Activations a;
  a.reserve(m, w.k, pool.size(), static_cast<double>(w.slots) / static_cast<double>(w.k), count_of(w.kept));
  Epilogue epilogue;
  epilogue.bias = bias.data(), epilogue.addend = y.data(), epilogue.tree = tree, epilogue.last_leaf = tree_leaves(w);
  pool.run([&](Team& team) { matmul(team, w, prepare(team, a, x.data(), m, w.k, w.k, spec), y.data(), w.n, epilogue); });
  return y;
}

// The weight with three columns of their own, numbers of up to 4 in fp16 or bf16.
WeightPtr keeping(const Weight& w, ElementKind kind) {
  std::vector<uint16_t> values(static_cast<size_t>(3 * w.n));
  const bool wide = kind == ElementKind::bf16;
  for (uint16_t& v : values) v = static_cast<uint16_t>(uniform(wide ? 0x3e00 : 0x3000, wide ? 0x4080 : 0x4400) | uniform(0, 1) << 15);
  return with_kept(w, {1, static_cast<int32_t>(w.k / 2), static_cast<int32_t>(w.k - 1)}, kind, values.data());
}

// Weights in planes.
std::vector<float> run_planes(ThreadPool& pool, const PlaneWeight& w, const std::vector<float>& x, int64_t m, const ActSpec& spec, int bits) {
  PlaneActivations activations;
  activations.reserve(m, w.grid.k, w.grid.slots, pool.size());
  std::vector<float> y(static_cast<size_t>(m * w.grid.n), 0.25f), bias(static_cast<size_t>(w.grid.n), 1.5f);
  pool.run([&](Team& team) {
    const PlaneSpec of{w.order, spec.group, bits, w.grid.geometry};
    plane_matmul(team, w, prepare_planes(team, activations, of, x.data(), m, w.grid.k), y.data(), w.grid.n, {.bias = bias.data(), .addend = y.data()});
  });
  return y;
}

// x as it is multiplied: codes by their definition, times their scale, or x itself.
std::vector<double> multiplied(const std::vector<float>& x, int64_t m, int64_t k, const ActSpec& spec) {
  if (spec.act != Act::int8 && spec.act != Act::int16) return {x.begin(), x.end()};
  const auto largest = [&](int64_t from, int64_t to) {
    float top = 0;
    for (int64_t i = from; i < to; ++i) top = std::max(top, std::fabs(x[i]));
    return top;
  };
  const float levels = static_cast<float>(spec.levels), whole = spec.whole ? largest(0, m * k) : 0;
  const int64_t group = spec.group ? spec.group : k;
  std::vector<double> used(x.size());
  for (int64_t begin = 0; begin < m * k; begin += k) {
    for (int64_t g = begin; g < begin + k; g += group) {
      const int64_t end = std::min(g + group, begin + k);
      const float scale = spec.given > 0 ? spec.given : (spec.whole ? whole : largest(g, end)) / levels;
      for (int64_t i = g; i < end; ++i) used[i] = double{scale} * std::min(std::max(std::nearbyint(x[i] / scale), -levels), levels);
    }
  }
  return used;
}

// The same in plain arithmetic: every row decoded by embedding_row, sums in double; of magnitudes in `bound`.
std::vector<double> oracle(const Weight& w, const std::vector<float>& x, int64_t m, const ActSpec& spec, std::vector<double>& bound) {
  const std::vector<double> used = multiplied(x, m, w.k, spec);
  std::vector<double> y(static_cast<size_t>(m * w.n));
  bound.assign(y.size(), 0.0);
  std::vector<float> row(static_cast<size_t>(w.k));
  for (int64_t r = 0; r < w.n; ++r) {
    embedding_row(w, r, 1.0f, row.data());
    for (int64_t i = 0; i < m; ++i) {
      double sum = 0, size = 0;
      for (int64_t k = 0; k < w.k; ++k) {
        const double product = used[i * w.k + k] * row[k];
        sum += product, size += std::fabs(product);
      }
      y[i * w.n + r] = sum + 1.75;
      bound[i * w.n + r] = size + 2;
    }
  }
  return y;
}

// What an instruction set does not share with one of those behind it.
struct Own {
  const IsaInfo* isa;
  bool bytes = true, exact = true, words = true, halves = true, planes = true;
};
std::vector<Own> supported_isas() {
  std::vector<Own> found;
  for (const IsaInfo& isa : isa_list()) {
    if (!isa.supported()) {
      std::printf("%s: not on this machine\n", isa.name);
      continue;
    }
    const Kernels& k = isa.kernels();
    Own own{&isa};
    for (const IsaInfo* other = &isa + 1; other != isa_list().data() + isa_list().size(); ++other) {
      if (!other->supported()) continue;
      const Kernels& o = other->kernels();
      own.bytes &= o.int8_integer[4] != k.int8_integer[4] || o.kept_pairs != k.kept_pairs;
      own.exact &= o.exact_fp32 != k.exact_fp32;
      own.words &= o.int16 != k.int16;
      own.halves &= o.bf16_bf16 != k.bf16_bf16;
      own.planes &= o.bit_serial != k.bit_serial;
    }
    found.push_back(own);
  }
  return found;
}

// The nearest number that bf16 holds and that is no larger.
float cut_to_bf16(float value) {
  uint32_t word;
  std::memcpy(&word, &value, 4);
  return float_of_bits(word & 0xffff0000u);
}

[[noreturn]] void fail(const std::string& sentence) {
  std::printf("%s\n", sentence.c_str());
  std::exit(1);
}

}  // namespace

int main(int arguments, char**) {
  const bool brief = arguments > 1;
  ThreadPool pool(2, false);
  std::vector<Case> cases;
  for (int bits = 1; bits <= 8; ++bits) {
    for (int zeros = 0; zeros < 2; ++zeros) {
      const int64_t groups[] = {0, 32, 20, 128};
      const int64_t group = groups[(bits + zeros) % 4], n = 19 + bits, k = 140 + 3 * bits;
      cases.push_back({"integer", n, k, integer_weight(pool, n, k, bits, group, zeros != 0)});
    }
  }
  for (int bits : {4, 6}) cases.push_back({"integers of seven panels", 101, 160, integer_weight(pool, 101, 160, bits, 32, bits == 6)});
  for (int bits = 4; bits <= 8; ++bits) cases.push_back({"extreme integers", 17, 96, integer_weight(pool, 17, 96, bits, 0, false, true)});
  cases.push_back({"long integer row", 17, 1100, integer_weight(pool, 17, 1100, 8, 0, false)});
  for (int bits = 2; bits <= 4; ++bits) {
    cases.push_back({"codebook of bytes", 18, 96, codebook_weight(pool, 18, 96, bits, true)});
    cases.push_back({"codebook", 18, 1060, codebook_weight(pool, 18, 1060, bits, false)});
  }
  for (ElementKind kind : {ElementKind::bf16, ElementKind::fp16, ElementKind::fp32}) {
    cases.push_back({"plain", 33, 77, plain_weight(pool, 33, 77, kind)});
  }
  const int64_t word_groups[] = {0, 64, 20};
  for (int64_t group : word_groups) {
    for (int most : {32768, 32767, 3000, 90}) cases.push_back({"int16", 19 + group, 300 + group, int16_weight(pool, 19 + group, 300 + group, group, most)});
  }
  const std::vector<Own> isas = supported_isas();
  const auto with = [](const char* isa, auto&& call) {
    set_isa(isa);
    return call();
  };
  const auto equal = [](const std::vector<float>& a, const std::vector<float>& b) { return std::memcmp(a.data(), b.data(), 4 * a.size()) == 0; };
  int checked = 0;
  for (const Case& c : cases) {
    const auto number = &c - cases.data();
    const bool of_bytes = c.weight->kind == ElementKind::integer || c.weight->kind == ElementKind::codebook;
    for (int64_t m : {1, 2, 3, 7, 13, 41}) {
      if (brief && m == 41 && (number + number / 2) % 2) continue;
      std::vector<float> drawn(static_cast<size_t>(m * c.k));
      for (float& value : drawn) value = normal();
      if (m == 7) {  // rows of the largest codes alone, and of the smallest
        for (int64_t i = 0; i < m * c.k; ++i) drawn[static_cast<size_t>(i)] = i / c.k % 2 ? -1.0f : 1.0f;
      }
      std::vector<float> cut(drawn);
      std::transform(cut.begin(), cut.end(), cut.begin(), cut_to_bf16);
      const std::string what = std::string(": ") + c.what + ", bits " + std::to_string(c.weight->bits) + ", m " + std::to_string(m);
      // exact, integer rows, integer groups, exact in a tree, integers with one scale, and with one that is given and clips; bf16
      for (int act = 0; act < 7; ++act) {
        const bool tree = act == 3, halves = act == 6, exact = act == 0 || tree || halves;
        const std::vector<float>& x = halves ? cut : drawn;
        if (tree && !has_tree(*c.weight)) continue;
        ActSpec spec;
        spec.act = halves ? Act::bf16 : exact ? Act::exact : Act::int8, spec.group = act == 2 ? 64 : 0, spec.geometry = c.weight->geometry, spec.values = true;
        if (act == 2 && c.weight->geometry.group) spec.group = c.weight->geometry.group;
        if (!exact && c.weight->kind == ElementKind::int16) spec.act = Act::int16, spec.levels = m % 2 ? 32767 : 2047;
        else if (!exact && !has_integer_form(*c.weight)) spec.group = 0;
        spec.whole = act == 4;
        if (act == 5) spec.given = 1.7f / static_cast<float>(spec.levels);
        const std::string where = what + ", act " + std::to_string(act);
        const auto expected = with("scalar", [&] { return run(pool, *c.weight, x, m, spec, tree); });
        std::vector<double> bound;
        const auto truth = oracle(*c.weight, x, m, spec, bound);
        // fp32 sums of at most k terms; 16-bit levels of a codebook are exact to 1/32512 of its largest value
        const double unit = std::ldexp(1.0, -24) * static_cast<double>(c.k + 8);
        const double level = !exact && c.weight->kind == ElementKind::codebook && !c.weight->table_is_bytes ? 1.0 / 32512 : 0.0;
        const double slack = level * static_cast<double>(c.k) * 8 * 4;  // k * max|x| * max scale
        const auto hold_to_truth = [&](const char* isa, const std::vector<float>& y) {
          for (size_t i = 0; i < y.size(); ++i) {
            if (!(std::fabs(y[i] - truth[i]) <= unit * bound[i] + slack)) fail(isa + where + ": wrong at " + std::to_string(i));
          }
        };
        hold_to_truth("scalar", expected);
        ActSpec keeps = spec;
        const WeightPtr kept = tree ? nullptr : keeping(*c.weight, number / 2 % 2 ? ElementKind::bf16 : ElementKind::fp16);
        std::vector<float> twin;
        double rest = 0;  // of kept columns where x is split in two parts of eight bits
        if (kept) {
          keeps.kept = kept->kept.get();
          twin = with("scalar", [&] { return run(pool, *kept, x, m, keeps, false); });
          if (equal(expected, twin)) fail("scalar" + where + ": kept columns change nothing");
          for (float value : x) rest = std::fmax(rest, std::ldexp(12.0 * std::fabs(value), -16));
        }
        for (const Own& own : isas) {
          const IsaInfo* isa = own.isa;
          const bool of_words = spec.act == Act::int16, by_bytes = of_bytes && !exact;
          if (isa == isas.back().isa || !(halves ? own.halves : by_bytes ? own.bytes : of_words ? own.words : own.exact)) continue;
          if (halves) {  // of its own
            hold_to_truth(isa->name, with(isa->name, [&] { return run(pool, *c.weight, x, m, spec, tree); }));
            ++checked;
            continue;
          }
          if (!equal(expected, with(isa->name, [&] { return run(pool, *c.weight, x, m, spec, tree); }))) {
            fail(isa->name + where + ": differs from the scalar twin");
          }
          ++checked;
          if (!kept) continue;
          const int64_t fewest = isa->kernels().kept_pairs;
          const bool in_pairs = by_bytes && fewest && m >= fewest && kept->kept->kind == ElementKind::bf16;
          const auto y = with(isa->name, [&] { return run(pool, *kept, x, m, keeps, false); });
          bool near = in_pairs;
          for (size_t i = 0; near && i < y.size(); ++i) near = std::fabs(y[i] - twin[i]) <= rest + unit * (bound[i] + std::fabs(twin[i]));
          if (!near && !equal(twin, y)) fail(isa->name + where + ": with kept columns differs from the scalar twin");
          ++checked;
        }
      }
      if (c.weight->kind != ElementKind::integer) continue;
      for (int bits : {8, 5, 2}) {  // counts of bits and lookups are the integer products in another way
        ActSpec spec;
        spec.act = Act::int8, spec.geometry = c.weight->geometry, spec.group = bits == 5 ? std::max<int64_t>(spec.geometry.group, 32) : 0;
        if (spec.geometry.group && spec.group) spec.group = spec.geometry.group;
        spec.levels = (1 << (bits - 1)) - 1;
        const auto expected = with("scalar", [&] { return run(pool, *c.weight, drawn, m, spec, false); });
        for (PlaneOrder order : {PlaneOrder::bits, PlaneOrder::nibbles}) {
          const auto planes = to_planes(pool, *c.weight, order);
          for (const Own& own : isas) {
            const IsaInfo* isa = own.isa;
            if (!own.planes || (brief && isa == isas.back().isa)) continue;  // in brief the scalar twin's lookups are those others equal
            if (!equal(expected, with(isa->name, [&] { return run_planes(pool, *planes, drawn, m, spec, bits); }))) {
              fail(isa->name + what + ": planes, order " + std::to_string(static_cast<int>(order)) + ", by " + std::to_string(bits) +
                   " bits: not the integer product");
            }
            ++checked;
          }
        }
      }
    }
  }
  for (const Own& own : isas) std::printf("%s: equal\n", own.isa->name);
  std::printf("%d comparisons\n", checked);
  return 0;
}
