// Canonical arrays into the packed layout drawn in matmul.hpp.
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

#include "generic/arena.hpp"
#include "generic/kernels.hpp"
#include "generic/matmul.hpp"

namespace anybit {
namespace {

struct Plane {
  int bits, position, offset;  // width, lowest bit of the code it holds, byte offset in the tile
};
struct Planes {
  int count;
  Plane plane[3];
};
constexpr Planes kPlanes[9] = {
    {0, {}},
    {1, {{1, 0, 0}}},
    {1, {{2, 0, 0}}},
    {2, {{2, 1, 0}, {1, 0, 128}}},
    {1, {{4, 0, 0}}},
    {2, {{4, 1, 0}, {1, 0, 256}}},
    {2, {{4, 2, 0}, {2, 0, 256}}},
    {3, {{4, 3, 0}, {2, 1, 256}, {1, 0, 384}}},
    {1, {{8, 0, 0}}},
};

// Where field of quad `quad`, byte `j`, row `lane` lies in a plane: byte offset and shift.
struct Place {
  int64_t byte;
  int shift;
};
Place place(const Plane& plane, int64_t lane, int64_t in_tile) {
  const int64_t quad = in_tile / 4, j = in_tile % 4, per = 8 / plane.bits;
  return {plane.offset + quad / per * 64 + lane * 4 + j, static_cast<int>(quad % per) * plane.bits};
}

// 32 codes of row `lane` of a panel into a tile: quads at a time, for their fields lie in the four bytes of a row at the same place.
template <int bits>
void put(uint8_t* tile, int64_t lane, const uint8_t* codes) {
  for (int i = 0; i < kPlanes[bits].count; ++i) {
    const Plane plane = kPlanes[bits].plane[i];
    const int per = 8 / plane.bits;
    const uint32_t mask = ((1u << plane.bits) - 1) * 0x01010101u;
    for (int part = 0; part < 8 / per; ++part) {
      uint32_t word = 0;
      for (int quad = 0; quad < per; ++quad) {
        uint32_t four;
        std::memcpy(&four, codes + (part * per + quad) * 4, 4);
        word |= (four >> plane.position & mask) << (quad * plane.bits);
      }
      std::memcpy(tile + plane.offset + part * 64 + lane * 4, &word, 4);
    }
  }
}

// A row of the source: its codes, and what they are stored as.
struct Row {
  const uint8_t* bytes;
  int64_t size;
  int bits;
  const uint8_t* stored;
};

// `count` codes from column k on, eight in a window of 64 bits (which codes of a byte start at bit 0 of).
void unpack(const Row& row, int64_t k, int64_t count, uint8_t* out) {
  const unsigned mask = (1u << row.bits) - 1;
  for (int64_t i = 0; i < count; i += 8) {
    const int64_t bit = (k + i) * row.bits, byte = bit >> 3;
    uint64_t window = 0;
    if (row.size - byte >= 8) {
      std::memcpy(&window, row.bytes + byte, 8);
    } else {
      std::memcpy(&window, row.bytes + byte, static_cast<size_t>(row.size - byte));
    }
    window >>= bit & 7;
    for (int64_t j = i; j < i + 8 && j < count; ++j, window >>= row.bits) out[j] = row.stored[window & mask];
  }
}

// A scale grid of the source spread to [panel][group][16]: every row of a panel has its own entry, rows beyond n are zero.
void spread(const void* source, size_t item, int64_t n, int64_t block_rows, int64_t groups, std::byte* out) {
  const auto* in = static_cast<const std::byte*>(source);
  for (int64_t row = 0; row < n; ++row) {
    const int64_t source_row = block_rows ? row / block_rows : 0;
    for (int64_t g = 0; g < groups; ++g) {
      std::memcpy(out + ((row / 16 * groups + g) * 16 + row % 16) * item, in + (source_row * groups + g) * item, item);
    }
  }
}

void refuse(const std::string& what) { throw std::invalid_argument(what); }

// Scale geometry shared by packed and plain weights.
void set_grid(Weight& w, int64_t block_rows, int64_t block_cols, ScaleKind kind) {
  if (w.n < 1 || w.k < 1) refuse("a weight needs at least one row and one column; got " + std::to_string(w.n) + " x " + std::to_string(w.k));
  if (block_rows < 0 || block_cols < 0) refuse("block sizes must not be negative");
  const bool whole = kind == ScaleKind::none || block_cols == 0 || block_cols >= w.k;
  w.scale_kind = kind;
  w.groups = whole ? 1 : (w.k + block_cols - 1) / block_cols;
  const int64_t padded = (block_cols + 31) / 32 * 32;
  w.group = whole ? 0 : padded;
  if (!whole && padded != block_cols) w.geometry = {block_cols, padded};
  w.slots = w.geometry.slots(w.k);
  w.panels = (w.n + 15) / 16;
}

void set_scales(Weight& w, const void* scale, int64_t block_rows) {
  const size_t item = scale_bytes(w.scale_kind);
  if (item == 0) return;
  if (!scale) refuse("a scaled weight needs its scales");
  w.scales = arena_allocate(static_cast<size_t>(w.panels) * w.groups * 16 * item);
  spread(scale, item, w.n, block_rows, w.groups, w.scales.get());
}

// Integer elements: value = lowest + (u << shift) for every code that has a value, u < 2^bits.  False where the table is not such.
bool as_integer(Weight& w, const float* table, int bits, uint8_t* stored) {
  const int count = 1 << bits;
  float low = INFINITY, high = -INFINITY;
  for (int c = 0; c < count; ++c) {
    if (!std::isfinite(table[c])) continue;
    low = std::fmin(low, table[c]), high = std::fmax(high, table[c]);
  }
  for (int power = 0; power <= 12; ++power) {  // unit 2^-power: fixed point and small floats are integers in it
    for (int shift = 1; shift >= 0; --shift) {
      const float unit = std::ldexp(1.0f, -power), step = unit * static_cast<float>(1 << shift);
      bool fits = true;
      int most = 0;
      for (int c = 0; c < count && fits; ++c) {
        if (!std::isfinite(table[c])) {
          stored[c] = 0;
          continue;
        }
        const float u = (table[c] - low) / step;
        fits = u == std::floor(u) && u <= 255.0f && low / unit == std::floor(low / unit) && std::fabs(low / unit) <= 512.0f;
        stored[c] = fits ? static_cast<uint8_t>(u) : 0;
        most = fits && stored[c] > most ? stored[c] : most;
      }
      if (!fits) continue;
      int width = 1;
      while ((1 << width) <= most) ++width;
      if (width > bits && bits <= 4) return false;  // a codebook is smaller
      w.kind = ElementKind::integer;
      w.bits = width > bits ? width : bits;
      w.step_shift = shift;
      w.lowest = static_cast<int>(low / unit);
      w.factor *= unit;
      return true;
    }
  }
  return false;
}

void as_codebook(Weight& w, const float* table, int bits, bool int8_levels, uint8_t* stored) {
  w.kind = ElementKind::codebook;
  w.bits = bits < 2 ? 2 : bits;
  float top = 0.0f, low = 0.0f;
  const int count = 1 << bits;
  for (int c = 0; c < count; ++c) {
    stored[c] = static_cast<uint8_t>(c);
    w.table[c] = std::isfinite(table[c]) ? table[c] : 0.0f;
    uint32_t value;
    std::memcpy(&value, &w.table[c], 4);
    w.table_is_bf16 = (c == 0 || w.table_is_bf16) && (value & 0xffff) == 0;
    top = std::fmax(top, std::fabs(w.table[c]));
    low = std::fmin(low, w.table[c]);
  }
  const auto as_bytes = [&](int power, float most) {
    bool fits = true;
    for (int c = 0; c < count && fits; ++c) {
      const float level = std::ldexp(w.table[c] - low, power);
      fits = level == std::floor(level) && level <= most && std::ldexp(low, power) == std::floor(std::ldexp(low, power));
    }
    if (!fits) return;
    w.table_is_bytes = true, w.bytes_are_wide = most > 31.0f;
    w.byte_unit = std::ldexp(1.0f, -power);
    w.level_zero = static_cast<int>(-std::ldexp(low, power));
    for (int c = 0; c < count; ++c) w.level_bytes[c] = static_cast<uint8_t>(std::ldexp(w.table[c] - low, power));
  };
  for (float most : {31.0f, 255.0f}) {
    for (int power = 0; power <= 8 && !w.table_is_bytes; ++power) as_bytes(power, most);
  }
  if (int8_levels && !w.table_is_bytes && top > 0.0f) {
    const float unit = top / 127.0f;
    for (int c = 0; c < count; ++c) w.table[c] = std::nearbyint(w.table[c] / unit);
    w.factor *= unit, low = std::nearbyint(low / unit), top = 127.0f;
    w.table_is_bf16 = true;
    as_bytes(0, 255.0f);
  }
  w.level_unit = top > 0.0f ? top / 16256.0f : 1.0f;
  for (int c = 0; c < count; ++c) w.level_words[c] = static_cast<int16_t>(std::lrintf(w.table[c] / w.level_unit));
}

// Weight::squares: for every panel and chunk the largest sum of squares of a row over each length of spans.
void set_squares(ThreadPool& pool, Weight& w) {
  const int64_t chunks = (w.slots + kWordChunk - 1) / kWordChunk;
  w.squares = arena_allocate(sizeof(float) * static_cast<size_t>(w.panels * chunks) * kSpans);
  pool.run([&](Team& team) {
    const Share panels = share(team, w.panels);
    for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
      const auto* codes = reinterpret_cast<const int16_t*>(w.codes.get() + panel * w.panel_bytes);
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        auto* squares = reinterpret_cast<float*>(w.squares.get()) + (panel * chunks + chunk) * kSpans;
        const int64_t end = (chunk + 1) * kWordChunk < w.slots ? (chunk + 1) * kWordChunk : w.slots;
        for (int64_t lane = 0; lane < 16; ++lane) {
          double sums[kSpans] = {};
          for (int64_t slot = chunk * kWordChunk; slot < end; slot += 8) {
            double eight = 0.0;
            for (int64_t j = slot; j < slot + 8; ++j) {
              const double code = codes[j / 2 * 32 + lane * 2 + j % 2];
              eight += code * code;
            }
            for (int i = 0; i < kSpans; ++i) {
              sums[i] += eight;
              if (((slot + 8) & ((8 << i) - 1)) != 0 && slot + 8 < end) continue;
              squares[i] = std::fmax(squares[i], static_cast<float>(sums[i]));
              sums[i] = 0.0;
            }
          }
        }
      }
    }
  });
}

}  // namespace

int packed_code(const uint8_t* panel, int bits, int64_t lane, int64_t slot) {
  const uint8_t* tile = panel + slot / 32 * 64 * bits;
  int code = 0;
  for (int i = 0; i < kPlanes[bits].count; ++i) {
    const Plane& plane = kPlanes[bits].plane[i];
    const Place at = place(plane, lane, slot % 32);
    code |= (tile[at.byte] >> at.shift & ((1 << plane.bits) - 1)) << plane.position;
  }
  return code;
}

int64_t half_place(ElementKind kind, int64_t lane, int64_t slot) {
  switch (kind) {
    case ElementKind::bf16: return slot / 4 * 128 + slot % 2 * 64 + lane * 4 + slot / 2 % 2 * 2;
    case ElementKind::int16: return slot / 2 * 64 + lane * 4 + slot % 2 * 2;
    default: return slot * 32 + lane * 2;
  }
}

WeightPtr pack(ThreadPool& pool, const Source& source) {
  if (source.bits < 1 || source.bits > 8) refuse("packed elements have 1 to 8 bits; got " + std::to_string(source.bits));
  auto made = std::make_shared<Weight>();
  Weight& w = *made;
  w.n = source.n, w.k = source.k, w.factor = source.factor;
  uint8_t stored[256];
  if (!as_integer(w, source.table, source.bits, stored)) {
    if (source.bits > 4) refuse("only integer elements and codebooks of up to 16 values can be packed");
    if (source.zero) refuse("a codebook that is not evenly spaced cannot have zero points");
    as_codebook(w, source.table, source.bits, source.int8_levels, stored);
  }
  set_grid(w, source.block_rows, source.block_cols, source.scale_kind);
  set_scales(w, source.scale, source.block_rows);
  const int bits = w.bits;
  w.panel_bytes = w.slots / 32 * 64 * bits;
  w.codes = arena_allocate(static_cast<size_t>(w.panels) * w.panel_bytes);
  if (source.zero) {
    w.zeros = arena_allocate(static_cast<size_t>(w.panels) * w.groups * 16);
    spread(source.zero, 1, w.n, source.block_rows, w.groups, w.zeros.get());
    auto* zeros = reinterpret_cast<uint8_t*>(w.zeros.get());
    for (int64_t i = 0; i < w.panels * w.groups * 16; ++i) zeros[i] = stored[zeros[i] & ((1 << source.bits) - 1)];
  }
  using Tile = void (*)(uint8_t*, int64_t, const uint8_t*);
  constexpr Tile kPut[9] = {nullptr, put<1>, put<2>, put<3>, put<4>, put<5>, put<6>, put<7>, put<8>};
  const int64_t row_bytes = (w.k * source.bits + 7) / 8, group = w.geometry.group ? w.geometry.group : w.k;
  const int64_t padded = w.geometry.group ? w.geometry.padded : w.k;
  pool.run([&](Team& team) {
    const Share share_of_panels = share(team, w.panels);
    for (int64_t row = share_of_panels.begin * 16; row < share_of_panels.end * 16 && row < w.n; ++row) {
      const uint8_t* in = source.codes + row * row_bytes;
      auto* panel = reinterpret_cast<uint8_t*>(w.codes.get()) + row / 16 * w.panel_bytes;
      for (int64_t start = 0, first_slot = 0; start < w.k; start += group, first_slot += padded) {
        const int64_t end = start + group < w.k ? start + group : w.k;
        for (int64_t k = start, slot = first_slot; k < end; k += 32, slot += 32) {
          uint8_t codes[32] = {};
          unpack({in, row_bytes, source.bits, stored}, k, end - k < 32 ? end - k : 32, codes);
          kPut[bits](panel + slot / 32 * 64 * bits, row % 16, codes);
        }
      }
    }
  });
  return made;
}

WeightPtr pack_dense(ThreadPool& pool, const DenseSource& source) {
  auto made = std::make_shared<Weight>();
  Weight& w = *made;
  w.n = source.n, w.k = source.k, w.factor = source.factor, w.kind = source.kind;
  if (has_integer_form(w)) refuse("pack_dense takes bf16, fp16, fp32 or int16");
  const int64_t item = source.kind == ElementKind::fp32 ? 4 : 2;
  w.bits = static_cast<int>(8 * item);
  set_grid(w, source.block_rows, source.block_cols, source.scale_kind);
  set_scales(w, source.scale, source.block_rows);
  w.panel_bytes = w.slots * 16 * item;
  w.codes = arena_allocate(static_cast<size_t>(w.panels) * w.panel_bytes);
  const int64_t group = w.geometry.group ? w.geometry.group : w.k, padded = w.geometry.group ? w.geometry.padded : w.k;
  pool.run([&](Team& team) {
    const Share share_of_panels = share(team, w.panels);
    for (int64_t row = share_of_panels.begin * 16; row < share_of_panels.end * 16 && row < w.n; ++row) {
      const auto* in = static_cast<const std::byte*>(source.values) + row * w.k * item;
      std::byte* panel = w.codes.get() + row / 16 * w.panel_bytes;
      const int64_t lane = row % 16;
      for (int64_t start = 0, first_slot = 0; start < w.k; start += group, first_slot += padded) {
        const int64_t end = start + group < w.k ? start + group : w.k;
        for (int64_t k = start, slot = first_slot; k < end; ++k, ++slot) {
          const int64_t at = item == 2 ? half_place(source.kind, lane, slot) : slot * 64 + lane * 4;
          if (item == 2) {
            std::memcpy(panel + at, in + k * 2, 2);
          } else {
            std::memcpy(panel + at, in + k * 4, 4);
          }
        }
      }
    }
  });
  if (source.kind == ElementKind::int16) set_squares(pool, w);
  return made;
}

}  // namespace anybit
