// More than 16 rows of x on AMX tiles: 16 of them times 16 outputs, 64 (or 32) k at a time.  An unpacked chunk is already a row of tiles:
// its quads, 16 outputs of 4 k each, are the rows of what tdpbsud takes as its second operand, and the codes of x are the first.
//
// Eight tiles: 2 x 2 sums, two of x, two of weights.  The second of weights is the next panel, or the high digits of levels of 16 bits.

constexpr int kSumsStride = 2 * 64;  // bytes from one row's sums to the next one's
constexpr int64_t kTileChunk = 256;  // slots unpacked at a time
constexpr int64_t kTilePass = 128, kTilePassBytes = 1 << 20;  // rows, and bytes of x, a pass over the weights: half of an L2

// sums[XTiles * 16][2][16] = x times slots [0, slots) of one or two rows of weight tiles, kHighDigits apart.
template <int XTiles, int WTiles>
ANYBIT_INLINE void tile_dots(const uint8_t* chunk, int64_t slots, int64_t depth, const int8_t* x, int64_t ldc, int32_t* sums) {
  _tile_zero(0);
  if constexpr (WTiles > 1) _tile_zero(1);
  if constexpr (XTiles > 1) _tile_zero(2);
  if constexpr (XTiles > 1 && WTiles > 1) _tile_zero(3);
  for (int64_t t = 0; t < slots; t += depth) {
    _tile_loadd(4, x + t, ldc);
    _tile_loadd(6, chunk + 16 * t, 64);
    _tile_dpbsud(0, 4, 6);
    if constexpr (WTiles > 1) {
      _tile_loadd(7, chunk + kHighDigits + 16 * t, 64);
      _tile_dpbsud(1, 4, 7);
    }
    if constexpr (XTiles > 1) {
      _tile_loadd(5, x + kTileX * ldc + t, ldc);
      _tile_dpbsud(2, 5, 6);
      if constexpr (WTiles > 1) _tile_dpbsud(3, 5, 7);
    }
  }
  _tile_stored(0, sums, kSumsStride);
  if constexpr (WTiles > 1) _tile_stored(1, sums + 16, kSumsStride);
  if constexpr (XTiles > 1) _tile_stored(2, sums + 32 * kTileX, kSumsStride);
  if constexpr (XTiles > 1 && WTiles > 1) _tile_stored(3, sums + 32 * kTileX + 16, kSumsStride);
}

// acc[rows][NP][16] += the scaled sums[rows][2][16] of a block: of NP panels, or of one in two digits.
template <int Offset, int NP, bool IsWord, bool Corrected>
ANYBIT_INLINE void tile_scale(const Problem& p, int64_t panel, const Block& block, int64_t rows, const int32_t* sums, float* acc) {
  F scale[NP];
  for (int i = 0; i < NP; ++i) scale[i] = load_scales(p, panel + i, block.group);
#pragma GCC unroll 4
  for (int64_t m = 0; m < rows; ++m, sums += 32, acc += 16 * NP) {
    const F xscale = splat_f(block.xscale[m * block.xscale_row]);
    const int32_t sum = block.sum(m);
    const I term = splat_i((p.lowest + Offset) * sum);
#pragma GCC unroll 2
    for (int i = 0; i < NP; ++i) {
      I total = load_i(sums + 16 * i);
      if constexpr (IsWord) total.v = _mm512_add_epi32(total.v, _mm512_slli_epi32(load_i(sums + 16).v, 7));
      if constexpr (Corrected) total = add_i(total, term);
      else total = add_i(shl_i(total, p.step_shift), zero_term<Offset>(p, panel + i, block.group, sum));
      store_f(acc + 16 * i, fma_f(mul_f(to_f(total), xscale), scale[i], load_f(acc + 16 * i)));
    }
  }
}

// Slots [begin, end) of NP panels, unpacked in `chunk`, times rows [row, row + rows), at most two tiles of them.  The tile unit
// multiplies a block while the one before is scaled.
template <class U, int NP, int XTiles>
__attribute__((noinline)) void tile_micro(const Problem& p, const uint8_t* chunk, int64_t panel, int64_t begin, int64_t end, int64_t depth,
                                          int64_t row, int64_t rows, float* acc, Ahead& ahead) {
  alignas(64) int32_t sums[2][XTiles * kTileX * 32];
  Block last{};
  int turn = 0;
  const bool corrected = starts_corrected(p);
  const auto scale = [&](const Block& block, const int32_t* from) ANYBIT_UNROLLED {
    if (corrected) tile_scale<kTakenOff<U>, NP, U::kWord, true>(p, panel, block, rows, from, acc);
    else tile_scale<kTakenOff<U>, NP, U::kWord, false>(p, panel, block, rows, from, acc);
  };
  each_block(p, begin, end, row, [&](const Block& block) ANYBIT_UNROLLED {
    tile_dots<XTiles, NP + U::kWord>(chunk + 16 * (block.begin - begin), block.end - block.begin, depth,
                                     p.xcodes + row * p.ldc + block.begin, p.ldc, sums[turn]);
    ahead.fetch();
    if (last.end > last.begin) scale(last, sums[turn ^ 1]);
    last = block;
    turn ^= 1;
  });
  scale(last, sums[turn ^ 1]);
}

template <class W> __attribute__((noinline)) void int8_unpack(const W& w, const uint8_t* tile, int64_t tiles, uint8_t* chunk) {
  for (int64_t t = 0; t < tiles; ++t, tile += W::kTileBytes, chunk += 512) {
    each_quad([&]<int Q>() ANYBIT_UNROLLED {
      const auto quad = w.template quad<Q>(tile);
      if constexpr (W::kWord) {
        store(chunk + 64 * Q, quad.low);
        store(chunk + kHighDigits + 64 * Q, quad.high);
      } else {
        store(chunk + 64 * Q, quad);
      }
    });
  }
}

// What differs between kinds of weights: how a chunk is unpacked (kPanelBytes apart for two panels) and multiplied.
template <class W> struct Int8Work {
  using U = typename UnpackedOf<W::kWord, W::kMax>::Type;
  static constexpr int kPanels = W::kWord ? 1 : 2, kTileBytes = W::kTileBytes, kPanelBytes = kHighDigits;
  static constexpr int64_t kXBytes = 1;  // of a number of x
  const W w;
  explicit Int8Work(const Problem& p) : w(p) {}
  static int64_t depth(const Problem& p) { return ((p.block | p.slots) & 63) == 0 ? 64 : 32; }
  static float factor(const Problem& p, int64_t row) { return int8_factor(p, row); }
  const uint8_t* unpack(const Problem& p, int64_t panel, int64_t begin, int64_t end, uint8_t* chunk) const {
    int8_unpack(w, p.codes + panel * p.panel_bytes + begin / 32 * W::kTileBytes, (end - begin) / 32, chunk);
    return chunk;
  }
  template <int NP, int XTiles>
  static void micro(const Problem& p, const uint8_t* chunk, int64_t, int64_t panel, int64_t begin, int64_t end, int64_t row, int64_t rows,
                    float* acc, Ahead& ahead) {
    tile_micro<U, NP, XTiles>(p, chunk, panel, begin, end, depth(p), row, rows, acc, ahead);
  }
};

// sums[rows][NP][16] = what the kept columns of bf16 give: rows [row, row + rows) of x, in bf16 and what that leaves over, times NP panels.
constexpr int64_t kMostKept = 256, kKeptDepth = 32;
template <int NP>
__attribute__((noinline)) void tile_kept(const Problem& p, Tiles& tiles, int64_t panel, int64_t row, int64_t rows, float* sums) {
  alignas(64) uint8_t pairs[NP][kMostKept * 32];  // of columns, as tdpbf16ps takes them: 16 outputs of 2 k each a row
  const int64_t depth = 2 * kKeptDepth, stride = 2 * p.ldkept;
  for (int i = 0; i < NP; ++i) {
    const uint8_t* values = p.kept + (panel + i) * p.kept_count * 32;
    const auto column = [&](int64_t c) ANYBIT_UNROLLED {
      return c < p.kept_count ? _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + 32 * c))) : _mm512_setzero_si512();
    };
    for (int64_t c = 0; c < p.ldkept; c += 2) {
      _mm512_store_si512(pairs[i] + 32 * c, _mm512_or_si512(column(c), _mm512_slli_epi32(column(c + 1), 16)));
    }
  }
  asm volatile("" ::"r"(pairs) : "memory");  // GCC 12 does not know that tiles are loaded from it
  for (int64_t i = 0; i < rows; i += kTileX) {
    tiles.shape(rows - i < kTileX ? rows - i : kTileX, depth);
    const uint16_t* x = p.xkept_pairs + (row + i) * stride;
    _tile_zero(0);
    if constexpr (NP > 1) _tile_zero(1);
    for (int64_t c = 0; c < p.ldkept; c += kKeptDepth) {
      _tile_loadd(6, pairs[0] + 32 * c, 64);
      if constexpr (NP > 1) _tile_loadd(7, pairs[NP - 1] + 32 * c, 64);
      _tile_loadd(4, x + c, 2 * stride);
      _tile_dpbf16ps(0, 4, 6);
      if constexpr (NP > 1) _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(4, x + p.ldkept + c, 2 * stride);
      _tile_dpbf16ps(0, 4, 6);
      if constexpr (NP > 1) _tile_dpbf16ps(1, 4, 7);
    }
    _tile_stored(0, sums + i * NP * 16, NP * 64);
    if constexpr (NP > 1) _tile_stored(1, sums + i * NP * 16 + 16, NP * 64);
  }
}

// Rows [row, row + rows) times NP panels from `panel` on.
template <class Work, int NP>
__attribute__((noinline)) void tile_strip(const Problem& p, const Work& work, Tiles& tiles, int64_t panel, int64_t row, int64_t rows,
                                          float* acc) {
  alignas(64) uint8_t chunk[2 * Work::kPanelBytes];
  const int64_t step = chunk_step(p, kTileChunk), row_tiles = (rows + 2 * kTileX - 1) / (2 * kTileX);
  const uint8_t* codes = p.codes + panel * p.panel_bytes;
  for (int64_t i = 0; i < rows * NP; ++i) store_f(acc + 16 * i, zero_f());
  for (int64_t k = 0; k < p.slots; k += step) {
    const int64_t end = k + step < p.slots ? k + step : p.slots;
    const uint8_t* first = work.unpack(p, panel, k, end, chunk);
    const int64_t apart = NP > 1 ? work.unpack(p, panel + 1, k, end, chunk + Work::kPanelBytes) - first : 0;
    const uint8_t* next = end < p.slots ? codes + end / 32 * Work::kTileBytes : codes + NP * p.panel_bytes;
    const int64_t bytes = step / 32 * Work::kTileBytes, parts = row_tiles * ((end - k + p.block - 1) / p.block);
    Ahead ahead{next, next + bytes, p.panel_bytes, NP, (bytes / parts + 63) / 64 * 64};
    for (int64_t i = 0; i < rows; i += 2 * kTileX) {
      const int64_t count = rows - i < 2 * kTileX ? rows - i : 2 * kTileX;
      tiles.shape(count, Work::depth(p));
      if (end == p.slots) prefetch_results(p, panel, NP, row + i, count);
      float* to = acc + 16 * NP * i;
      if (count > kTileX) Work::template micro<NP, 2>(p, first, apart, panel, k, end, row + i, count, to, ahead);
      else Work::template micro<NP, 1>(p, first, apart, panel, k, end, row + i, count, to, ahead);
    }
  }
  alignas(64) float kept[kTilePass * NP * 16];
  const bool on_tiles = p.xkept_pairs && p.kept_count <= kMostKept;  // else write_row adds kept columns itself
  if (on_tiles) tile_kept<NP>(p, tiles, panel, row, rows, kept);
  for (int64_t i = 0; i < rows * NP; ++i) {
    write_row(p, panel + i % NP, row + i / NP, load_f(acc + 16 * i), Work::factor(p, row + i / NP), on_tiles ? kept + 16 * i : nullptr);
  }
}

template <class Work> void tile_panels(const Problem& p, int64_t first, int64_t last) {
  const Work work(p);
  alignas(64) float acc[kTilePass * Work::kPanels * 16];
  Tiles tiles;
  int64_t pass = kTilePassBytes / (p.slots * Work::kXBytes) / (2 * kTileX) * (2 * kTileX);
  pass = pass < 2 * kTileX ? 2 * kTileX : pass > kTilePass ? kTilePass : pass;
  for (int64_t row = 0; row < p.m; row += pass) {
    const int64_t rows = row + pass < p.m ? pass : p.m - row;
    int64_t panel = first;
    for (; panel + Work::kPanels <= last; panel += Work::kPanels) tile_strip<Work, Work::kPanels>(p, work, tiles, panel, row, rows, acc);
    if constexpr (Work::kPanels > 1) {
      if (panel < last) tile_strip<Work, 1>(p, work, tiles, panel, row, rows, acc);
    }
  }
}
