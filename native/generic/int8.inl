// Integer dot products: packed weights times int8 activations.  Compiled once per instruction set, inside its namespace.
//
// The order of floating-point operations is fixed, so that every instruction set gives the same bits: for every k-block in order
//   sum = exact integer;  acc = fma(float(sum) [* scale_x of the block], scale_w, acc)
// and at the end y = acc * (factor [* scale_x of the row]) + bias (+ y).

constexpr int64_t kChunkBytes = 16 << 10;  // of unpacked levels: half of a small L1
constexpr int64_t kMostRows = 128;  // rows of x per pass over the weights, whose float sums are kept on the stack
constexpr int64_t kXBytes = 256 << 10;  // of x per pass: half of a small L2

constexpr int smaller_tile(int rows) { return rows > 4 ? 4 : rows > 2 ? 2 : 1; }

// Slots [begin, end) of a panel, and the groups of scales that `begin` lies in.
struct Span {
  int64_t panel, begin, end, group, xgroup;
};
ANYBIT_INLINE Span span_of(const Problem& p, int64_t panel, int64_t begin, int64_t end) {
  return {panel, begin, end, begin / p.group, begin / p.xgroup};
}

// Stored zero points of a group times the step, less what the accumulator took off every level.
template <int Offset> ANYBIT_INLINE I block_zeros(const Problem& p, int64_t panel, int64_t group) {
  if (!p.zeros) return splat_i(-p.lowest - Offset * (1 << p.step_shift));
  return shl_i(sub_i(load_u8(p.zeros + (panel * p.groups + group) * 16), splat_i(Offset)), p.step_shift);
}

// Adds MR rows from `row` times a span to acc[MR][16].  `tile` points at its first slot.
template <class W, class Accumulator, int MR>
ANYBIT_INLINE void int8_blocks(const Problem& p, const W& w, const uint8_t* tile, const Span& span, int64_t row, F* acc) {
  const bool scale_each_block = p.xgroups > 1;
  const int64_t panel = span.panel, k1 = span.end;
  int64_t group = span.group, group_end = (group + 1) * p.group;
  int64_t xgroup_end = (span.xgroup + 1) * p.xgroup;
  const float one = 1.0f;
  const float* xscale = scale_each_block ? p.xscales + row * p.xgroups + span.xgroup : &one;
  const int64_t xscale_row = scale_each_block ? p.xgroups : 0;
  constexpr int kOffset = W::kWord ? -kWordBias : W::kMax == 255 ? kByteOffset : 0;  // what the accumulator took off every level
  const int8_t* x = p.xcodes + row * p.ldc;
  const int32_t* sums = p.sums + row;
  for (int64_t k = span.begin; k < k1;) {
    const int64_t end = k + p.block < k1 ? k + p.block : k1;
    if (k >= group_end) ++group, group_end += p.group;
    constexpr int kParts = MR == 1 ? kChains : 1;  // one row alone would wait for its own sums
    Accumulator dot[MR * kParts];
#pragma GCC unroll 16
    for (int m = 0; m < MR * kParts; ++m) dot[m].clear();
    for (int64_t t = k; t < end; t += 32, tile += W::kTileBytes) {
      if constexpr (MR == 1) {
        for (int line = 0; line < W::kTileBytes; line += 64) prefetch(tile + kPrefetch + line);
      }
      each_quad([&]<int Q>() ANYBIT_UNROLLED {
        const auto quad = w.template quad<Q>(tile);
#pragma GCC unroll 16
        for (int m = 0; m < MR; ++m) {
          const B four = broadcast4(x + m * p.ldc + t + 4 * Q);
          Accumulator& sum = dot[m + Q % kParts];
          if constexpr (W::kWord) sum.add(quad.low, quad.high, four);
          else sum.add(quad, four);
          if constexpr ((Q / kParts + 1) % Accumulator::kRun == 0 || Q + kParts >= 8) sum.flush();
        }
      });
    }
#pragma GCC unroll 16
    for (int part = 1; part < kParts; ++part) dot[0].total = add_i(dot[0].total, dot[part].total);
    // Free of branches, because it runs after as few as 32 multiply-adds a row: without zero points the zero is -lowest / step for
    // every row, and without a scale of x for each block that scale is 1.
    const F scale = load_scales(p, panel, group);
    const I zero = block_zeros<kOffset>(p, panel, group);
    const int32_t *sums_begin = sums + (k >> 5) * p.lds, *sums_end = sums + (end >> 5) * p.lds;
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
      const I sum = sub_i(splat_i(sums_end[m]), splat_i(sums_begin[m]));
      const I total = sub_i(shl_i(dot[m].total, p.step_shift), mul_i(zero, sum));
      const F value = mul_f(to_f(total), splat_f(xscale[m * xscale_row]));
      acc[m] = fma_f(value, scale, acc[m]);
    }
    if (end == xgroup_end) xscale += scale_each_block, xgroup_end += p.xgroup;
    k = end;
  }
}

ANYBIT_INLINE float int8_factor(const Problem& p, int64_t row) { return p.xgroups > 1 ? p.factor : p.factor * p.xscales[row]; }

// Few rows of x: unpack in registers, use at once for up to MR rows.
template <class W, int MR> __attribute__((noinline)) void int8_fused(const Problem& p, const W& w, int64_t panel, int64_t row) {
  using Accumulator = typename UnpackedOf<W::kWord, W::kMax>::Accumulator;
  F acc[MR];
#pragma GCC unroll 16
  for (int m = 0; m < MR; ++m) acc[m] = zero_f();
  int8_blocks<W, Accumulator, MR>(p, w, p.codes + panel * p.panel_bytes, {panel, 0, p.slots, 0, 0}, row, acc);
#pragma GCC unroll 16
  for (int m = 0; m < MR; ++m) write_row(p, panel, row + m, acc[m], int8_factor(p, row + m));
}

// All rows from `row` on: tiles of MR, then of ever fewer (few sizes, because each is a kernel of its own).
template <class W, int MR> ANYBIT_INLINE void int8_fused_rows(const Problem& p, const W& w, int64_t panel, int64_t row) {
  for (; row + MR <= p.m; row += MR) int8_fused<W, MR>(p, w, panel, row);
  if constexpr (MR > 1) int8_fused_rows<W, smaller_tile(MR)>(p, w, panel, row);
}

// Many rows: the micro-kernel over an unpacked chunk.  acc lies in memory between chunks.
template <class U, class Accumulator, int MR>
__attribute__((noinline)) void int8_micro(const Problem& p, const uint8_t* chunk, const Span& span, int64_t row, float* memory) {
  F acc[MR];
#pragma GCC unroll 16
  for (int m = 0; m < MR; ++m) acc[m] = load_f(memory + 16 * m);
  int8_blocks<U, Accumulator, MR>(p, U{}, chunk, span, row, acc);
#pragma GCC unroll 16
  for (int m = 0; m < MR; ++m) store_f(memory + 16 * m, acc[m]);
}

template <class U, class Accumulator, int MR>
ANYBIT_INLINE void int8_micro_rows(const Problem& p, const uint8_t* chunk, const Span& span, int64_t row, int64_t rows, float* memory) {
  for (; rows >= MR; rows -= MR, row += MR, memory += 16 * MR) int8_micro<U, Accumulator, MR>(p, chunk, span, row, memory);
  if constexpr (MR > 1) int8_micro_rows<U, Accumulator, smaller_tile(MR)>(p, chunk, span, row, rows, memory);
}

template <class W> __attribute__((noinline)) void int8_unpack(const W& w, const uint8_t* tile, int64_t tiles, uint8_t* chunk) {
  for (int64_t t = 0; t < tiles; ++t, tile += W::kTileBytes) {
    each_quad([&]<int Q>() ANYBIT_UNROLLED {
      const auto quad = w.template quad<Q>(tile);
      if constexpr (W::kWord) {
        store(chunk + 64 * Q, quad.low);
        store(chunk + 512 + 64 * Q, quad.high);
      } else {
        store(chunk + 64 * Q, quad);
      }
    });
    chunk += W::kWord ? 1024 : 512;
  }
}

template <class W> void int8_many(const Problem& p, const W& w, int64_t first, int64_t last) {
  using U = typename UnpackedOf<W::kWord, W::kMax>::Type;
  using Accumulator = typename UnpackedOf<W::kWord, W::kMax>::Accumulator;
  constexpr int64_t kChunk = kChunkBytes / (W::kWord ? 32 : 16);
  alignas(64) uint8_t chunk[kChunkBytes];
  alignas(64) float acc[kMostRows * 16];
  int64_t pass = kXBytes / p.slots / kTileRows * kTileRows;
  pass = pass < 32 ? 32 : pass > kMostRows ? kMostRows : pass;
  const int64_t step = p.block * (kChunk / p.block);
  for (int64_t row = 0; row < p.m; row += pass) {
    const int64_t rows = row + pass < p.m ? pass : p.m - row;
    for (int64_t panel = first; panel < last; ++panel) {
      for (int64_t i = 0; i < rows; ++i) store_f(acc + 16 * i, zero_f());
      for (int64_t k = 0; k < p.slots; k += step) {
        const int64_t end = k + step < p.slots ? k + step : p.slots;
        int8_unpack(w, p.codes + panel * p.panel_bytes + k / 32 * W::kTileBytes, (end - k) / 32, chunk);
        const Span span = span_of(p, panel, k, end);
        int8_micro_rows<U, Accumulator, kTileRows>(p, chunk, span, row, rows, acc);
      }
      for (int64_t i = 0; i < rows; ++i) write_row(p, panel, row + i, load_f(acc + 16 * i), int8_factor(p, row + i));
    }
  }
}

template <class W> void int8_panels(const Problem& p, int64_t first, int64_t last) {
  const W w(p);
  if (p.m > 2 * kFusedRows) return int8_many(p, w, first, last);
  for (int64_t panel = first; panel < last; ++panel) int8_fused_rows<W, kFusedRows>(p, w, panel, 0);
}
