#include "generic/planes.hpp"

#include <cstring>
#include <stdexcept>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "generic/arena.hpp"
#include "generic/dispatch.hpp"

namespace anybit {
namespace {

// Bit (row, slot) of a tile's line: byte offset and shift.
struct Spot {
  int64_t byte;
  int shift;
};
Spot spot(PlaneOrder order, int64_t lane, int64_t in_tile) {
  if (order == PlaneOrder::bits) return {lane * 4 + in_tile / 8, static_cast<int>(in_tile % 8)};
  const int64_t quad = in_tile / 4;
  return {quad % 4 * 16 + 4 * (lane % 4) + lane / 4, static_cast<int>(quad / 4 * 4 + in_tile % 4)};
}

#ifdef __SSE2__
// Bit b of 32 bytes: it becomes the highest of each, and those make a word.
uint32_t plane_of(const int8_t* codes, int b) {
  const auto half = [&](int i) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + 16 * i));
    return static_cast<uint32_t>(_mm_movemask_epi8(_mm_sll_epi16(bytes, _mm_cvtsi32_si128(7 - b))));
  };
  return half(0) | half(1) << 16;
}
#else
uint32_t plane_of(const int8_t* codes, int b) {
  uint32_t word = 0;
  for (int slot = 0; slot < 32; ++slot) word |= static_cast<uint32_t>(codes[slot] >> b & 1) << slot;
  return word;
}
#endif

// Words of the planes of one row: bit b of slots [32t, 32t + 32) at words[b * ldp + t].
void split_row(const int8_t* codes, int64_t first, int64_t last, int bits, uint32_t* words, int64_t ldp) {
  for (int64_t tile = first; tile < last; ++tile) {
    for (int b = 0; b < bits; ++b) words[b * ldp + tile] = plane_of(codes + 32 * tile, b);
  }
}

using Words = int16_t __attribute__((vector_size(16)));
using Bytes = int8_t __attribute__((vector_size(8)));
constexpr Words kChosen[3] = {{0, -1, 0, -1, 0, -1, 0, -1}, {0, 0, -1, -1, 0, 0, -1, -1}, {0, 0, 0, 0, -1, -1, -1, -1}};

// Tables of one row: for a tile the lower digits of 8 quads, 16 each, then the upper ones.
void tabulate_row(const int8_t* codes, int64_t first, int64_t last, uint8_t* tables) {
  for (int64_t tile = first; tile < last; ++tile) {
    for (int quad = 0; quad < 8; ++quad) {
      const int8_t* x = codes + 32 * tile + 4 * quad;
      uint8_t* at = tables + 256 * tile + 16 * quad;
      for (int half = 0; half < 2; ++half) {  // of the 16 sums, those without and with the last number
        Words sums = half ? Words{} + x[3] : Words{};
        for (int t = 0; t < 3; ++t) sums += kChosen[t] & (Words{} + x[t]);
        const Bytes low = __builtin_convertvector(sums & 63, Bytes), high = __builtin_convertvector((sums >> 6) + kUpperDigit, Bytes);
        std::memcpy(at + 8 * half, &low, 8);
        std::memcpy(at + 128 + 8 * half, &high, 8);
      }
    }
  }
}

int64_t word_stride(int64_t slots) { return ((slots / 32 + 15) / 16 | 1) * 16; }  // an odd number of cache lines

}  // namespace

PlaneWeightPtr to_planes(ThreadPool& pool, const Weight& w, PlaneOrder order) {
  if (w.kind != ElementKind::integer || w.kept) throw std::invalid_argument("planes of bits are made of integers without kept columns");
  auto made = std::make_shared<PlaneWeight>();
  made->grid = w;
  made->order = order;
  made->grid.codes = arena_allocate(static_cast<size_t>(w.panels) * w.panel_bytes);  // as many bits as before
  std::byte* const to = made->grid.codes.get();
  pool.run([&](Team& team) {
    const Share mine = share(team, w.panels);
    for (int64_t panel = mine.begin; panel < mine.end; ++panel) {
      const auto* from = reinterpret_cast<const uint8_t*>(w.codes.get()) + panel * w.panel_bytes;
      auto* lines = reinterpret_cast<uint8_t*>(to) + panel * w.panel_bytes;
      for (int64_t slot = 0; slot < w.slots; ++slot) {
        uint8_t* tile = lines + slot / 32 * 64 * w.bits;
        for (int64_t lane = 0; lane < 16; ++lane) {
          const int code = packed_code(from, w.bits, lane, slot);
          const Spot at = spot(order, lane, slot % 32);
          for (int b = 0; b < w.bits; ++b) tile[64 * b + at.byte] |= static_cast<uint8_t>((code >> b & 1) << at.shift);
        }
      }
    }
  });
  return made;
}

void PlaneActivations::reserve(int64_t m, int64_t k, int64_t slots, int threads) {
  codes.reserve(m, k, threads, static_cast<double>(slots) / static_cast<double>(k));
  // the larger of both: 256 bytes of tables a tile, or at most 8 words and their padding
  const size_t bytes = static_cast<size_t>(m) * static_cast<size_t>(slots / 32 * 256 + 8 * 64);
  if (bytes <= capacity) return;
  memory = arena_allocate(bytes);
  capacity = bytes;
}

PreparedPlanes prepare_planes(Team& team, PlaneActivations& shared, const PlaneSpec& spec, const float* x, int64_t m, int64_t k) {
  ActSpec of;
  of.act = Act::int8, of.group = spec.group, of.geometry = spec.geometry, of.levels = (1 << (spec.bits - 1)) - 1;
  const Activations& a = prepare(team, shared.codes, x, m, k, k, of);
  const int64_t tiles = a.slots / 32;
  PreparedPlanes made{&a, spec.bits, nullptr, word_stride(a.slots), nullptr, tiles * 256};
  auto* words = reinterpret_cast<uint32_t*>(shared.memory.get());
  auto* tables = reinterpret_cast<uint8_t*>(shared.memory.get());
  const Share mine = share(team, m * tiles, 8);
  for (int64_t at = mine.begin; at < mine.end;) {
    const int64_t row = at / tiles, first = at % tiles, left = mine.end - at, last = first + left < tiles ? first + left : tiles;
    const int8_t* codes = a.codes + row * a.ldc;
    if (spec.order == PlaneOrder::bits) split_row(codes, first, last, spec.bits, words + row * spec.bits * made.ldp, made.ldp);
    else tabulate_row(codes, first, last, tables + row * made.ldt);
    at += last - first;
  }
  made.words = words, made.tables = tables;
  team.barrier();
  return made;
}

void plane_matmul(Team& team, const PlaneWeight& planes, const PreparedPlanes& x, float* y, int64_t ldy, const Epilogue& epilogue) {
  Problem p = problem_of(planes.grid, *x.codes, Act::int8, y, ldy, epilogue);
  p.bits = planes.grid.bits, p.xbits = x.bits;
  p.xplanes = x.words, p.ldp = x.ldp;
  p.tables = x.tables, p.ldt = x.ldt;
  const Share panels = share(team, planes.grid.panels);
  const Kernels& k = kernels();
  if (p.m > 0 && panels.begin < panels.end) (planes.order == PlaneOrder::bits ? k.bit_serial : k.look_up)(p, panels.begin, panels.end);
}

}  // namespace anybit
