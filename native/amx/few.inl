// Up to 16 rows of x (or of its digits) on AMX tiles: one tile of x, and reading the weights is most of the work.
//
// Two streams of weights are multiplied side by side, two panels or the low and high digits of levels of 16 bits.  While the tile unit
// works at a block, vectors unpack weights and scale the sums of the block before.  Measured on Sapphire Rapids:
//
//   * A sum begins as a tile of zeros that is loaded: tilezero may cost 35 cycles ahead of the next product, which nothing hides.
//   * Three tiles take turns as sums, so that those which are stored need not wait for those which are summed.
//   * Weights are unpacked two chunks ahead: a tile is not loaded from stores that have not left the core.
//   * For some 1200 cycles after an instruction on tiles vectors multiply and convert floats once a cycle, not twice.
//
// Eight tiles: three sums, one of x, and two pairs of weights that take turns.

constexpr int64_t kFewChunk = 128;    // slots unpacked at a time, where blocks are not longer
constexpr int64_t kFewAhead = 2048;   // bytes to read ahead in a stream of weights
constexpr int kTileSums = kTileX * 16;
alignas(64) constexpr int32_t kZeroRow[16] = {};

// What a block gave, still to be scaled and added to acc[rows][panels][16].
struct FewResult {
  Block block;
  const int32_t* sums = nullptr;  // [kTileX][16] of each stream; null: nothing yet
};

// acc += the sums of a block, scaled: of NP panels, or of one in two digits.
template <int Offset, int NP, bool IsWord, bool Corrected>
ANYBIT_INLINE void few_scale(const Problem& p, int64_t panel, const FewResult& result, float* acc) {
  const Block& block = result.block;
  alignas(64) int32_t terms[kTileX];
  if constexpr (Corrected) {  // of rows beyond the last, what lies there: it is not used
    const __m512i sum = _mm512_sub_epi32(_mm512_loadu_si512(block.sums_end), _mm512_loadu_si512(block.sums_begin));
    _mm512_store_si512(terms, _mm512_mullo_epi32(sum, _mm512_set1_epi32(p.lowest + Offset)));
  }
  F scale[NP];
  for (int i = 0; i < NP; ++i) scale[i] = load_scales(p, panel + i, block.group);
  const int32_t* sums = result.sums;
#pragma GCC unroll 4
  for (int64_t m = 0; m < p.m * p.digits; ++m, sums += 16, acc += 16 * NP) {
    const F xscale = splat_f(block.xscale[m * block.xscale_row]);
    const I term = splat_i(terms[m]);
#pragma GCC unroll 2
    for (int i = 0; i < NP; ++i) {
      I total = load_i(sums + kTileSums * i);
      if constexpr (IsWord) total.v = _mm512_add_epi32(total.v, _mm512_slli_epi32(load_i(sums + kTileSums).v, 7));
      if constexpr (Corrected) total = add_i(total, term);
      else total = add_i(shl_i(total, p.step_shift), zero_term<Offset>(p, panel + i, block.group, block.sum(m)));
      store_f(acc + 16 * i, fma_f(mul_f(to_f(total), xscale), scale[i], load_f(acc + 16 * i)));
    }
  }
}

// What differs between kinds of weights.
template <class W> struct Int8Few {
  using U = typename UnpackedOf<W::kWord, W::kMax>::Type;
  static constexpr int kPanels = W::kWord ? 1 : 2, kTileBytes = W::kTileBytes;
  static constexpr int64_t kXBytes = 1, kSlotBytes = 16, kMostSlots = kChunkSlots;  // of a number of x, of an unpacked slot; of a chunk
  static constexpr bool kPlain = false;                                        // whether packed weights are streams already
  const W w;
  const bool corrected;
  explicit Int8Few(const Problem& p) : w(p), corrected(starts_corrected(p)) {}
  static int64_t depth(const Problem& p) { return Int8Work<W>::depth(p); }
  static float factor(const Problem& p, int64_t row) { return int8_factor(p, row); }
  static const uint8_t* x(const Problem& p) { return reinterpret_cast<const uint8_t*>(p.xcodes); }
  static int64_t x_stride(const Problem& p) { return p.ldc; }
  static constexpr int streams(int panels) { return panels + W::kWord; }
  // Tiles from `tile` on; of words the low digits, and `apart` later the high ones.  `ahead` is fetched meanwhile.
  __attribute__((noinline)) void unpack(const Problem&, int64_t, int64_t, const uint8_t* tile, int64_t slots, const uint8_t* ahead,
                                        uint8_t* chunk, int64_t apart) const {
    for (int64_t t = 0; t < slots; t += 32, tile += kTileBytes, ahead += kTileBytes, chunk += 512) {
      for (int line = 0; line < kTileBytes; line += 64) prefetch(ahead + line);
      each_quad([&]<int Q>() ANYBIT_UNROLLED {
        const auto quad = w.template quad<Q>(tile);
        if constexpr (W::kWord) {
          store(chunk + 64 * Q, quad.low);
          store(chunk + apart + 64 * Q, quad.high);
        } else {
          store(chunk + 64 * Q, quad);
        }
      });
    }
  }
  template <int Sum, int X, int Weights> static ANYBIT_INLINE void multiply() { tile_dot_bytes<Sum, X, Weights>(); }
  template <int NP> ANYBIT_INLINE void scale(const Problem& p, int64_t panel, const FewResult& result, float* acc) const {
    if (corrected) few_scale<kTakenOff<U>, NP, W::kWord, true>(p, panel, result, acc);
    else few_scale<kTakenOff<U>, NP, W::kWord, false>(p, panel, result, acc);
  }
};

// Sums A and B of a block: x times `steps` tiles of each stream, which lie `apart` if they are two.
template <class Work, int Streams, int A, int B>
ANYBIT_INLINE void few_block(const uint8_t* x, int64_t x_stride, int64_t depth_bytes, const uint8_t* w, int64_t apart, int64_t steps, int32_t* sums) {
  const auto step = [&]<int W>(int64_t t) ANYBIT_UNROLLED {
    tile_load<3>(x + t * depth_bytes, x_stride);
    tile_load<W>(w + 16 * t * depth_bytes, 64);
    if constexpr (Streams > 1) tile_load<W + 1>(w + apart + 16 * t * depth_bytes, 64);
    Work::template multiply<A, 3, W>();
    if constexpr (Streams > 1) Work::template multiply<B, 3, W + 1>();
  };
  tile_load<A>(kZeroRow, 0);
  if constexpr (Streams > 1) tile_load<B>(kZeroRow, 0);
  int64_t t = 0;
  for (; t + 2 <= steps; t += 2) {
    step.template operator()<4>(t);
    step.template operator()<6>(t + 1);
  }
  if (t < steps) step.template operator()<4>(t);
  tile_store<A>(sums, 64);
  if constexpr (Streams > 1) tile_store<B>(sums + kTileSums, 64);
}

// All rows times NP panels from `panel` on.
template <class Work, int NP> __attribute__((noinline)) void few_strip(const Problem& p, const Work& work, int64_t panel) {
  constexpr int kStreams = Work::streams(NP), kChunks = 3;
  alignas(64) uint8_t chunks[Work::kPlain ? 64 : kChunks * kStreams * Work::kMostSlots * Work::kSlotBytes];
  alignas(64) int32_t sums[3][kStreams * kTileSums];
  alignas(64) float acc[kTileX * NP * 16];
  const int64_t step = chunk_step(p, kFewChunk), depth = Work::depth(p), depth_bytes = depth * Work::kXBytes, x_stride = Work::x_stride(p);
  const int64_t stream_bytes = step * Work::kSlotBytes, apart = Work::kPlain ? p.panel_bytes : stream_bytes;
  const int64_t chunk_bytes = step / 32 * Work::kTileBytes, far = (kFewAhead + chunk_bytes - 1) / chunk_bytes * step;
  const uint8_t* codes = p.codes + panel * p.panel_bytes;
  for (int64_t i = 0; i < p.m * p.digits * NP; ++i) store_f(acc + 16 * i, zero_f());
  int64_t next = 0;  // slot to unpack from, into this place
  int place = 0;
  const auto unpack = [&]() ANYBIT_UNROLLED {
    if (next >= p.slots) return;
    const int64_t slots = next + step < p.slots ? step : p.slots - next, later = next + far;
    // beyond the end of these panels the next ones begin; beyond the last a prefetch does nothing
    const int64_t ahead = later < p.slots ? later / 32 * Work::kTileBytes : NP * p.panel_bytes + (later - p.slots) / 32 * Work::kTileBytes;
    uint8_t* chunk = chunks + place * kStreams * stream_bytes;
    for (int i = 0; i < NP; ++i) {
      const uint8_t* from = codes + i * p.panel_bytes;
      if constexpr (Work::kPlain) {
        for (int64_t line = 0; line < chunk_bytes; line += 64) prefetch(from + ahead + line);
      } else {
        work.unpack(p, panel + i, next, from + next / 32 * Work::kTileBytes, slots, from + ahead, chunk + i * stream_bytes, stream_bytes);
      }
    }
    next += step, place = place == kChunks - 1 ? 0 : place + 1;
  };
  FewResult last;
  int turn = 0, at = 0;
  unpack();
  unpack();
  for (int64_t k = 0; k < p.slots; k += step, at = at == kChunks - 1 ? 0 : at + 1) {
    const int64_t end = k + step < p.slots ? k + step : p.slots;
    const uint8_t* chunk = Work::kPlain ? codes + k / 32 * Work::kTileBytes : chunks + at * kStreams * stream_bytes;
    if (end == p.slots) prefetch_results(p, panel, NP, 0, p.m);
    each_block(p, k, end, 0, [&](const Block& block) ANYBIT_UNROLLED {
      const uint8_t* w = chunk + (block.begin - k) * Work::kSlotBytes;
      const uint8_t* x = Work::x(p) + block.begin * Work::kXBytes;
      const int64_t steps = (block.end - block.begin) / depth;
      if (turn == 0) few_block<Work, kStreams, 0, 1>(x, x_stride, depth_bytes, w, apart, steps, sums[0]);
      else if (turn == 1) few_block<Work, kStreams, 2, 0>(x, x_stride, depth_bytes, w, apart, steps, sums[1]);
      else few_block<Work, kStreams, 1, 2>(x, x_stride, depth_bytes, w, apart, steps, sums[2]);
      if (block.begin == k) unpack();
      if (last.sums) work.template scale<NP>(p, panel, last, acc);
      last.block = block, last.sums = sums[turn];
      turn = turn == 2 ? 0 : turn + 1;
    });
  }
  if (last.sums) work.template scale<NP>(p, panel, last, acc);
  for (int64_t i = 0; i < p.m; ++i) {
    for (int j = 0; j < NP; ++j) {
      const float* digit = acc + 16 * (i * p.digits * NP + j);  // the highest
      F sum = load_f(digit);
      if (p.digits > 1) sum = of_digits(sum, load_f(digit + 16 * NP), load_f(digit + 32 * NP));
      write_row(p, panel + j, i, sum, Work::factor(p, i * p.digits));
    }
  }
}

template <class Work> void few_panels(const Problem& p, int64_t first, int64_t last) {
  const Work work(p);
  Tiles tiles;
  tiles.shape_one(p.m * p.digits, Work::depth(p) * Work::kXBytes);
  int64_t panel = first;
  for (; panel + Work::kPanels <= last; panel += Work::kPanels) few_strip<Work, Work::kPanels>(p, work, panel);
  if constexpr (Work::kPanels > 1) {
    if (panel < last) few_strip<Work, 1>(p, work, panel);
  }
}
