#include "generic/matmul.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <numeric>

#include "generic/arena.hpp"
#include "generic/dispatch.hpp"
#include "generic/number.inl"

namespace anybit {
namespace {

constexpr int64_t kInt8Block = 512;  // largest k-block: 16-bit levels times int8 sum to less than 2^31
constexpr int64_t kExactBlock = 256;
// A quarter of the panels is dealt out, in pieces of about so many bytes; of many rows in as many as kernels take at once, where that is little.
constexpr int64_t kDealtShare = 4, kDealtBytes = 64 << 10, kManyRows = 16, kFewestDealt = 8;
constexpr int64_t kDigitGroup = 128;
constexpr int64_t kSumRows = 16;  // of x whose running sums, a line of the rows' in all, are made apart: a row alone would fetch every line

size_t round_up(size_t bytes) { return (bytes + 63) / 64 * 64; }

// Bytes apart of consecutive rows of codes: an odd number of cache lines, so that rows do not share cache sets.
int64_t code_stride(int64_t slots) { return ((slots + 63) / 64 | 1) * 64; }

int64_t group_slots(const ActSpec& spec, int64_t slots) {
  if (spec.group == 0) return slots > 0 ? slots : 32;
  return spec.geometry.group && spec.group == spec.geometry.group ? spec.geometry.padded : spec.group;
}

// Of x in digits: as many as most weights have, a padded group where there are such.
int64_t digit_group(const ActSpec& spec) { return spec.geometry.group ? spec.geometry.padded : kDigitGroup; }

// Of one running sum to the next: rows in fours, so that a tile of rows is one vector.
int64_t sum_stride(int64_t m) { return m == 1 ? 1 : (m + 3) / 4 * 4; }

int64_t word_chunks(int64_t slots) { return (slots + kWordChunk - 1) / kWordChunk; }
size_t squares_bytes(int64_t m, int64_t slots) {
  return round_up(sizeof(float) * ((m + kSquaredRows - 1) / kSquaredRows) * word_chunks(slots) * kSpans);
}

// Rows of codes of any number of rows up to m.
int64_t code_rows(int64_t m) { return std::max(m, std::min(m, kMostDigitRows) * kDigits); }

int64_t kept_stride(int64_t columns) { return (columns + 31) / 32 * 32; }
int64_t kept_columns(const ActSpec& spec) { return spec.kept ? spec.kept->count() : 0; }

size_t bytes_needed(int64_t m, int64_t slots, int64_t kept) {
  const int64_t rows = code_rows(m);
  return round_up(static_cast<size_t>(rows) * code_stride(slots)) + round_up(sizeof(float) * rows * (slots / 32 + 1)) +
         round_up(sizeof(int32_t) * sum_stride(rows) * (slots / 32 + 1)) + round_up(sizeof(float) * m * slots) +
         round_up(static_cast<size_t>(m) * code_stride(2 * slots)) + squares_bytes(m, slots) +
         static_cast<size_t>(m * kept_stride(kept)) * (sizeof(float) + 2 * sizeof(uint16_t));
}

// The largest multiple of 32 up to `most` that divides `slots`.
int64_t block_of(int64_t slots, int64_t most) {
  if (slots <= most) return slots;
  for (int64_t block = most / 32 * 32; block > 32; block -= 32) {
    if (slots % block == 0) return block;
  }
  return 32;
}

// Lays m rows out in `a`'s memory.
void lay_out(Activations& a, const float* x, int64_t m, int64_t k, int64_t ldx, const ActSpec& spec) {
  a.m = m, a.k = k, a.spec = spec;
  a.slots = spec.geometry.slots(k);
  assert(bytes_needed(m, a.slots, kept_columns(spec)) <= a.capacity && "Activations::reserve() was called for less");
  std::byte* at = a.memory.get();
  const bool in_digits = spec.act == Act::bf16 && m <= kernels().digit_rows && kernels().split_floats;
  a.digits = in_digits ? kDigits : 1;
  const int64_t rows = m * a.digits;
  a.ldc = code_stride(a.slots);
  a.codes = reinterpret_cast<int8_t*>(at);
  at += round_up(static_cast<size_t>(rows) * a.ldc);
  a.group = in_digits ? digit_group(spec) : group_slots(spec, a.slots);
  a.groups = (a.slots + a.group - 1) / a.group;
  if (a.groups < 1) a.groups = 1;
  a.scales = reinterpret_cast<float*>(at);
  at += round_up(sizeof(float) * rows * (a.slots / 32 + 1));
  a.lds = sum_stride(rows);
  a.sums = reinterpret_cast<int32_t*>(at);
  at += round_up(sizeof(int32_t) * a.lds * (a.slots / 32 + 1));
  a.ldh = code_stride(2 * a.slots) / 2;
  a.halves = nullptr;
  std::byte* halves = at + round_up(sizeof(float) * m * a.slots);
  const bool widened = spec.act == Act::int8 && m >= kFewestWide && kernels().widen_codes;
  if (widened || spec.act == Act::int16 || (spec.act == Act::bf16 && kernels().to_bf16)) {
    a.halves = reinterpret_cast<const uint16_t*>(halves);
  }
  std::byte* squares = halves + round_up(static_cast<size_t>(m) * code_stride(2 * a.slots));
  a.squares = reinterpret_cast<const float*>(squares);
  a.kept = reinterpret_cast<const float*>(squares + squares_bytes(m, a.slots));
  a.ldkept = kept_stride(kept_columns(spec));
  const bool in_pairs = spec.kept && spec.kept->kind == ElementKind::bf16 && spec.act == Act::int8 &&
                        kernels().kept_pairs && m >= kernels().kept_pairs;
  a.kept_pairs = in_pairs ? reinterpret_cast<const uint16_t*>(a.kept + m * a.ldkept) : nullptr;
  const bool as_is = spec.geometry.group == 0 && k == a.slots && !spec.kept;
  if (as_is && !spec.values && spec.act != Act::bf16) {
    a.x = x, a.ldx = ldx;
  } else {
    a.x = reinterpret_cast<float*>(at), a.ldx = a.slots;
  }
}

bool is_integer(const ActSpec& spec) { return spec.act == Act::int8 || spec.act == Act::int16; }

// The bit pattern of the largest magnitude of a row, of what is rounded.
int32_t top_of_row(const float* x, int64_t k, const ActSpec& spec) {
  int32_t top = 0;
  int64_t from = 0;
  for (int64_t c = 0; c < kept_columns(spec); ++c) {
    const int64_t column = spec.kept->columns[static_cast<size_t>(c)];
    top = std::max(top, kernels().top_of(x + from, column - from));
    from = column + 1;
  }
  return std::max(top, kernels().top_of(x + from, k - from));
}

// The scale of all rows, of which this is the largest magnitude's bit pattern.
float whole_scale(int32_t top, const ActSpec& spec) {
  if (top >= 0x7f800000) return float_of_bits(0x7fc00000u);
  const float scale = float_of_bits(static_cast<uint32_t>(top)) / static_cast<float>(spec.levels);
  if (!spec.power || !(scale > 0.0f)) return scale;
  int exponent = 0;
  const float fraction = std::frexp(scale, &exponent);  // in [0.5, 1)
  exponent -= fraction == 0.5f;
  return std::ldexp(1.0f, exponent < -127 ? -127 : exponent);
}

// The nearest bf16, ties to even; what is larger than all of them becomes the largest, as in formats/.
void round_to_bf16(float* x, int64_t count) {
#pragma omp simd  // at -O2 it would stay a loop of single numbers, which takes as long as a product of one row with few bits
  for (int64_t k = 0; k < count; ++k) {
    int32_t word;
    std::memcpy(&word, x + k, 4);
    const int32_t size = word & 0x7fffffff, sign = word & ~0x7fffffff;
    const int32_t even = size > 0x7f800000 ? 0 : size + 0x7fff + (size >> 16 & 1);  // of a NaN it would overflow
    const int32_t held = even > 0x7f7fffff ? 0x7f7f0000 : even & ~0xffff;
    word = (size > 0x7f800000 ? 0x7fc00000 : held) | sign;
    std::memcpy(x + k, &word, 4);
  }
}

// The columns of a row that are not rounded, and zeros in their place in its copy.
void keep_columns(const Activations& a, const float* source, int64_t row, float* copy) {
  const std::vector<int32_t>& columns = a.spec.kept->columns;
  auto* kept = const_cast<float*>(a.kept) + row * a.ldkept;
  const Geometry& geometry = a.spec.geometry;
  std::memset(kept, 0, sizeof(float) * a.ldkept);
  for (size_t c = 0; c < columns.size(); ++c) {
    const int64_t k = columns[c];
    kept[c] = source[k];
    copy[geometry.group ? k / geometry.group * geometry.padded + k % geometry.group : k] = 0.0f;
  }
  if (!a.kept_pairs) return;
  auto* pairs = const_cast<uint16_t*>(a.kept_pairs) + 2 * row * a.ldkept;
  std::memset(pairs, 0, 2 * sizeof(uint16_t) * a.ldkept);
  for (size_t c = 0; c < columns.size(); ++c) {
    float part = kept[c], rest = part;
    if (!std::isfinite(part)) {  // what is no number must not become one
      pairs[c] = std::isnan(part) ? 0x7fc0 : part > 0 ? 0x7f80 : 0xff80;
      continue;
    }
    for (uint16_t* to : {pairs + c, pairs + a.ldkept + c}) {
      round_to_bf16(&part, 1);
      uint32_t word;
      std::memcpy(&word, &part, 4);
      *to = static_cast<uint16_t>(word >> 16);
      part = rest -= part;
    }
  }
}

// A row of x with what is larger in magnitude than `limit` brought to it: codes of a given scale saturate.  Few rows need the copy.
const float* clipped(const float* x, int64_t slots, float limit) {
  static thread_local std::vector<float> copy;
  copy.resize(static_cast<size_t>(slots));
  for (int64_t k = 0; k < slots; ++k) copy[static_cast<size_t>(k)] = std::clamp(x[k], -limit, limit);
  return copy.data();
}

// given: of all rows where ActSpec::whole.  place: row of a.x for a copy, where one is needed.  sums: of int8, each `lds` after the last.
void prepare_row(const Activations& a, const float* x, int64_t row, int64_t ldx, float given, int64_t place, int32_t* sums, int64_t lds) {
  const float* source = x + row * ldx;
  const ActSpec& spec = a.spec;
  auto* copy = const_cast<float*>(a.x) + place * a.ldx;
  if (a.x != x) {
    if (spec.geometry.group == 0) {
      std::memcpy(copy, source, sizeof(float) * a.k);
      std::memset(copy + a.k, 0, sizeof(float) * (a.slots - a.k));
    } else {
      std::memset(copy, 0, sizeof(float) * a.slots);
      for (int64_t k = 0, slot = 0; k < a.k; k += spec.geometry.group, slot += spec.geometry.padded) {
        const int64_t count = k + spec.geometry.group < a.k ? spec.geometry.group : a.k - k;
        std::memcpy(copy + slot, source + k, sizeof(float) * count);
      }
    }
    if (spec.kept) keep_columns(a, source, row, copy);
    source = copy;
  }
  auto* halves = const_cast<uint16_t*>(a.halves) + row * a.ldh;
  if (spec.act == Act::bf16) round_to_bf16(copy, a.slots);
  if (spec.act == Act::bf16 && a.halves) kernels().to_bf16(source, a.slots, halves);
  if (a.digits > 1) {
    const int64_t first = row * a.digits;
    kernels().split_floats(source, a.slots, a.group, const_cast<int8_t*>(a.codes) + first * a.ldc, a.ldc,
                           const_cast<float*>(a.scales) + first * a.groups, a.groups, const_cast<int32_t*>(a.sums) + first, a.lds);
  }
  if (!is_integer(spec)) return;
  if (spec.given > 0.0f) {
    const int32_t top = top_of_row(x + row * ldx, a.k, spec);
    const float largest = float_of_bits(static_cast<uint32_t>(top)), limit = spec.given * static_cast<float>(spec.levels);
    given = top >= 0x7f800000 ? float_of_bits(0x7fc00000u) : spec.given;  // what is no number must not become one
    if (largest > limit) source = clipped(source, a.slots, limit);
  }
  const RowRounding rounding{a.group, static_cast<float>(spec.levels), spec.wide, given};
  auto* scales = const_cast<float*>(a.scales) + row * a.groups;
  auto* codes = const_cast<int8_t*>(a.codes) + row * a.ldc;
  if (spec.act == Act::int16) {
    auto* squares = const_cast<float*>(a.squares) + row / kSquaredRows * word_chunks(a.slots) * kSpans;
    if (row % kSquaredRows == 0) std::memset(squares, 0, sizeof(float) * word_chunks(a.slots) * kSpans);
    auto* words = reinterpret_cast<int16_t*>(halves);
    kernels().quantize_words(source, a.slots, rounding, words, scales, squares);
    if (kernels().split_words && a.m >= kFewestSplit) kernels().split_words(words, a.slots, codes);
    return;
  }
  kernels().quantize_row(source, a.slots, rounding, codes, scales, sums, lds);
  if (a.halves) kernels().widen_codes(codes, a.slots, halves);
  if (spec.values) {
    for (int64_t k = 0; k < a.slots; ++k) copy[k] = static_cast<float>(codes[k]) * scales[k / a.group];
  }
}

// passing: what becomes integers is not read again, and one row of a.x serves them all.
void prepare_rows(const Activations& a, const float* x, Share rows, int64_t ldx, float given, bool passing) {
  static thread_local std::vector<int32_t> apart;
  const int64_t sums = a.slots / 32 + 1;
  apart.resize(static_cast<size_t>(kSumRows * sums));
  for (int64_t first = rows.begin; first < rows.end; first += kSumRows) {
    const int64_t count = std::min(kSumRows, rows.end - first);
    for (int64_t i = 0; i < count; ++i) {
      prepare_row(a, x, first + i, ldx, given, passing ? rows.begin : first + i, apart.data() + i * sums, 1);
    }
    if (a.spec.act != Act::int8) continue;
    auto* to = const_cast<int32_t*>(a.sums) + first;
    for (int64_t t = 0; t < sums; ++t, to += a.lds) {
      for (int64_t i = 0; i < count; ++i) to[i] = apart[static_cast<size_t>(i * sums + t)];
    }
  }
}

void ensure(Activations& a, size_t bytes) {
  if (bytes <= a.capacity) return;
  a.memory = arena_allocate(bytes);
  a.capacity = bytes;
}

// Whether every code less its zero point has at most eight significant bits.
bool bf16_holds_integers(const Weight& w) {
  if (w.kind != ElementKind::integer || w.bits + w.step_shift > 8) return false;
  const int highest = w.lowest + (((1 << w.bits) - 1) << w.step_shift);
  return w.zeros || (w.lowest >= -256 && highest <= 256);
}

// Whether the integer kernels multiply the weight itself and not an approximation.
bool integers_hold(const Weight& w) { return w.kind == ElementKind::integer || (w.kind == ElementKind::codebook && w.table_is_bytes); }

// Slots between two scalings of exact activations.
int64_t exact_block(const Weight& w) { return w.group == 0 ? kExactBlock : block_of(w.group, kExactBlock); }

// What of prepared activations a weight is multiplied with.
Act act_of(const Weight& w, const Activations& a) {
  if (a.digits > 1 && integers_hold(w)) return Act::int8;
  const bool integers = w.kind == ElementKind::int16 ? a.spec.act == Act::int16 : has_integer_form(w) && a.spec.act != Act::int16;
  return integers ? a.spec.act : Act::exact;
}

PanelFn choose(const Weight& w, const Activations& a, Act act) {
  const Kernels& k = kernels();
  if (w.kind == ElementKind::int16) return act == Act::int16 ? k.int16 : k.exact_int16;
  if (a.halves && a.spec.act == Act::bf16 && act != Act::int8) {
    if (bf16_holds_integers(w)) return k.bf16_integer[w.bits];
    if (w.kind == ElementKind::codebook && w.table_is_bf16) return k.bf16_codebook[w.bits];
    if (w.kind == ElementKind::bf16) return k.bf16_bf16;
  }
  switch (w.kind) {
    case ElementKind::integer: return act == Act::int8 ? k.int8_integer[w.bits] : k.exact_integer[w.bits];
    case ElementKind::codebook:
      if (act != Act::int8) return k.exact_codebook[w.bits];
      if (!w.table_is_bytes) return k.int8_codebook_word[w.bits];
      return w.bytes_are_wide ? k.int8_codebook_wide[w.bits] : k.int8_codebook_byte[w.bits];
    case ElementKind::bf16: return k.exact_bf16;
    case ElementKind::fp16: return k.exact_fp16;
    case ElementKind::fp32: return k.exact_fp32;
    case ElementKind::int16: break;
  }
  return nullptr;
}

}  // namespace

size_t scale_bytes(ScaleKind kind) {
  switch (kind) {
    case ScaleKind::none: return 0;
    case ScaleKind::fp32: return 4;
    case ScaleKind::fp16:
    case ScaleKind::bf16: return 2;
    case ScaleKind::e8m0: return 1;
  }
  return 0;
}

size_t Weight::nbytes() const {
  const size_t grid = static_cast<size_t>(panels) * groups * 16;
  const size_t apart = kept ? static_cast<size_t>(panels * 16 * kept->count()) * kept->value_bytes() : 0;
  return static_cast<size_t>(panels) * panel_bytes + grid * scale_bytes(scale_kind) + (zeros ? grid : 0) + apart;
}

WeightPtr with_kept(const Weight& w, std::vector<int32_t> columns, ElementKind kind, const void* values) {
  auto kept = std::make_shared<Kept>();
  kept->columns = std::move(columns), kept->kind = kind;
  const size_t count = kept->columns.size(), bytes = kept->value_bytes();
  kept->values = arena_allocate(static_cast<size_t>(w.panels) * count * 16 * bytes);
  std::byte* to = kept->values.get();
  const auto* from = static_cast<const std::byte*>(values);
  for (int64_t panel = 0; panel < w.panels; ++panel) {
    for (size_t c = 0; c < count; ++c) {
      for (int64_t lane = 0; lane < 16; ++lane, to += bytes) {
        const int64_t row = panel * 16 + lane;
        if (row < w.n) std::memcpy(to, from + (static_cast<size_t>(row) * count + c) * bytes, bytes);
        else std::memset(to, 0, bytes);
      }
    }
  }
  auto made = std::make_shared<Weight>(w);
  made->kept = std::move(kept);
  return made;
}

bool has_integer_form(const Weight& w) { return w.kind == ElementKind::integer || w.kind == ElementKind::codebook; }

bool has_tree(const Weight& w) { return w.geometry.group == 0 && !w.kept && kTreeLeaf % exact_block(w) == 0; }
int64_t tree_leaves(const Weight& w) { return (w.slots + kTreeLeaf - 1) / kTreeLeaf; }

void Activations::reserve(int64_t max_m, int64_t max_k, int threads, double stretch, int64_t kept) {
  const auto slots = (static_cast<int64_t>(std::ceil(static_cast<double>(max_k) * stretch)) + 63) / 32 * 32;
  ensure(*this, bytes_needed(max_m, slots, kept));
  own.resize(static_cast<size_t>(threads) > own.size() ? static_cast<size_t>(threads) : own.size());
  for (Activations& copy : own) ensure(copy, bytes_needed(1, slots, kept));
  tops.resize(own.size());
}

const Activations& prepare(Team& team, Activations& shared, const float* x, int64_t m, int64_t k, int64_t ldx, const ActSpec& spec) {
  if (m == 1 && team.size > 1) {
    Activations& mine = shared.own[static_cast<size_t>(team.rank)];
    lay_out(mine, x, 1, k, ldx, spec);
    prepare_row(mine, x, 0, ldx, spec.whole ? whole_scale(top_of_row(x, k, spec), spec) : 0.0f, 0,
                const_cast<int32_t*>(mine.sums), mine.lds);
    return mine;
  }
  if (team.rank == 0) lay_out(shared, x, m, k, ldx, spec);
  const Share rows = share(team, m, spec.act == Act::int16 ? kSquaredRows : 1);
  int32_t top = 0;
  if (spec.whole) {
    for (int64_t row = rows.begin; row < rows.end; ++row) top = std::max(top, top_of_row(x + row * ldx, k, spec));
    shared.tops[static_cast<size_t>(team.rank)] = top;
  }
  team.barrier();
  if (is_integer(spec) || shared.halves || shared.x != x) {
    for (int rank = 0; spec.whole && rank < team.size; ++rank) top = std::max(top, shared.tops[static_cast<size_t>(rank)]);
    const float given = spec.whole ? whole_scale(top, spec) : 0.0f;
    prepare_rows(shared, x, rows, ldx, given, is_integer(spec) && !spec.values);
    team.barrier();
  }
  return shared;
}

Problem problem_of(const Weight& w, const Activations& a, Act act, float* y, int64_t ldy, const Epilogue& epilogue) {
  assert(a.k == w.k && a.spec.geometry == w.geometry && !w.kept == !a.spec.kept && "activations were prepared for another weight");
  Problem p{};
  p.m = a.m, p.n = w.n, p.slots = w.slots;
  p.codes = reinterpret_cast<const uint8_t*>(w.codes.get());
  p.panel_bytes = w.panel_bytes;
  p.scales = reinterpret_cast<const uint8_t*>(w.scales.get());
  p.scale_kind = static_cast<int>(w.scale_kind);
  p.zeros = reinterpret_cast<const uint8_t*>(w.zeros.get());
  const int64_t whole = w.slots > 0 ? w.slots : 32;
  p.group = w.group ? w.group : whole;
  p.groups = w.groups;
  p.step_shift = w.step_shift, p.lowest = w.lowest;
  p.factor = w.factor;
  p.table = w.table, p.level_bytes = w.level_bytes, p.level_words = w.level_words;
  if (w.kind == ElementKind::codebook && act == Act::int8) {
    p.lowest = w.table_is_bytes ? -w.level_zero : 0;
    p.factor *= w.table_is_bytes ? w.byte_unit : w.level_unit;
  }
  p.x = a.x, p.ldx = a.ldx;
  p.xcodes = a.codes, p.ldc = a.ldc;
  p.xscales = a.scales, p.xgroups = a.groups;
  p.xgroup = a.group;
  p.digits = act == Act::int8 ? a.digits : 1;
  p.xhalves = a.halves, p.ldh = a.ldh;
  p.wsquares = reinterpret_cast<const float*>(w.squares.get()), p.xsquares = a.squares, p.chunks = word_chunks(w.slots);
  p.sums = a.sums, p.lds = a.lds;
  const bool integers = act == Act::int8 || act == Act::int16;
  const int64_t most = act == Act::int8 ? kInt8Block : kWordBlock;
  p.block = !integers ? exact_block(w) : w.group == 0 ? most : block_of(w.group, most);
  if (integers && a.groups > 1) p.block = std::gcd(p.block, p.xgroup);
  if (w.kept) {
    assert(a.spec.kept && a.spec.kept->columns == w.kept->columns && "activations were prepared for other kept columns");
    p.kept = reinterpret_cast<const uint8_t*>(w.kept->values.get());
    p.kept_kind = w.kept->kind == ElementKind::fp32 ? kScaleFp32 : w.kept->kind == ElementKind::fp16 ? kScaleFp16 : kScaleBf16;
    p.kept_count = w.kept->count();
    p.xkept = a.kept, p.ldkept = a.ldkept, p.xkept_pairs = a.kept_pairs;
  }
  p.y = y, p.ldy = ldy;
  p.bias = epilogue.bias, p.addend = epilogue.addend, p.places = epilogue.places, p.one_order = epilogue.one_order;
  if (epilogue.tree) {
    assert(act == Act::exact && has_tree(w) && "only exact products have a tree");
    p.tree = p.one_order = true, p.begin = epilogue.first_leaf * kTreeLeaf;
    const int64_t end = epilogue.last_leaf * kTreeLeaf;
    p.slots = end < w.slots ? end : w.slots;
  }
  return p;
}

void matmul(Team& team, const Weight& w, const Activations& a, float* y, int64_t ldy, const Epilogue& epilogue, Ticket* ticket) {
  const Act act = act_of(w, a);
  const Problem p = problem_of(w, a, act, y, ldy, epilogue);
  if (p.m <= 0) return;
  const PanelFn run = choose(w, a, act);
  const bool many = p.m >= kManyRows;
  int64_t dealt = ticket && team.size > 1 ? w.panels / kDealtShare : 0;
  if (many && dealt < kFewestDealt * team.size) dealt = 0;  // a piece would be more than a rank is late
  const int64_t even = w.panels - dealt;
  const Share panels = share(team, even);
  if (panels.begin < panels.end) run(p, panels.begin, panels.end);
  if (dealt == 0) return;
  const int64_t together = many ? kernels().panels_at_once : act == Act::exact && p.m > 1 ? kExactTogether : 2;
  const int64_t some = many ? together : std::max(together, kDealtBytes / w.panel_bytes / together * together);
  for (int64_t begin; (begin = even + some * ticket->fetch_add(1, std::memory_order_relaxed)) < w.panels;) {
    run(p, begin, std::min(begin + some, w.panels));
  }
}

void embedding_row(const Weight& w, int64_t row, float factor, float* out) {
  const auto* panel = reinterpret_cast<const uint8_t*>(w.codes.get()) + row / 16 * w.panel_bytes;
  const auto* scales = reinterpret_cast<const uint8_t*>(w.scales.get());
  const auto* zeros = reinterpret_cast<const uint8_t*>(w.zeros.get());
  const int64_t lane = row % 16, per_group = w.geometry.group ? w.geometry.group : w.group ? w.group : w.k;
  const int64_t slots_per_group = w.geometry.group ? w.geometry.padded : per_group;
  int64_t k = 0;
  for (int64_t g = 0; k < w.k; ++g) {
    const int64_t at = (row / 16 * w.groups + g) * 16 + lane;
    float scale = 1.0f;
    switch (w.scale_kind) {
      case ScaleKind::none: break;
      case ScaleKind::fp32: std::memcpy(&scale, scales + 4 * at, 4); break;
      case ScaleKind::e8m0: scale = e8m0_to_float(scales[at]); break;
      default: {
        uint16_t half;
        std::memcpy(&half, scales + 2 * at, 2);
        scale = w.scale_kind == ScaleKind::fp16 ? fp16_to_float(half) : bf16_to_float(half);
      }
    }
    scale *= w.factor;
    const float zero = zeros ? static_cast<float>(int{zeros[at]} << w.step_shift) : static_cast<float>(-w.lowest);
    const int64_t end = k + per_group < w.k ? k + per_group : w.k;
    for (int64_t slot = g * slots_per_group; k < end; ++k, ++slot) {
      float value = 0.0f;
      switch (w.kind) {
        case ElementKind::integer:
          value = static_cast<float>(packed_code(panel, w.bits, lane, slot) << w.step_shift) - zero;
          break;
        case ElementKind::codebook: value = w.table[packed_code(panel, w.bits, lane, slot)]; break;
        case ElementKind::bf16:
        case ElementKind::int16:
        case ElementKind::fp16: {
          uint16_t half;
          std::memcpy(&half, panel + half_place(w.kind, lane, slot), 2);
          value = w.kind == ElementKind::bf16   ? bf16_to_float(half)
                  : w.kind == ElementKind::fp16 ? fp16_to_float(half)
                                                : static_cast<float>(static_cast<int16_t>(half));
          break;
        }
        case ElementKind::fp32: std::memcpy(&value, panel + slot / 32 * 2048 + slot % 32 * 64 + lane * 4, 4); break;
      }
      out[k] = value * scale * factor;
    }
  }
}

}  // namespace anybit
