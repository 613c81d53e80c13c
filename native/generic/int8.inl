// Integer dot products: packed weights times int8 activations.  Compiled once per instruction set, inside its namespace.
//
// The order of floating-point operations is fixed, so that every instruction set gives the same bits: for every k-block in order
//   sum = exact integer;  acc = fma(float(sum) [* scale_x of the block], scale_w, acc)
// and at the end y = acc * (factor [* scale_x of the row]) [+ kept columns] + bias (+ y); kept columns on tiles have an order of their own.
//
// What the zero point takes off a block, zero * (sum of x), is known before it, so that without zero points the integer sum starts
// there and a block ends with no more than a conversion, a multiplication and an fma for 16 results.

constexpr int smaller_tile(int rows) { return rows > 8 ? 8 : rows > 4 ? 4 : rows > 2 ? 2 : 1; }

// Sums apart for every result of a tile of so many: a few would wait for their own latency, more than four cost more than they hide.
constexpr int chains(int results) {
  const int parts = kChains / results < 4 ? kChains / results : 4;
  return parts > 1 ? parts : 1;
}

// Bytes to read ahead in the weight stream for so many rows of x (measured on Zen 4): with more than two a miss costs time that products
// would take.
template <class W, int MR> constexpr int64_t kAhead = [] {
  constexpr int64_t kOne = W::kTileBytes == 384 ? kPrefetch / 4 * 3 : W::kTileBytes == 512 ? kPrefetch : 2 * kPrefetch;
  return MR > 2 && kOne < 2 * kPrefetch ? 2 * kOne : kOne;
}();

// Fetches a tile of NP panels, `from` being of the first.  Behind its end follows the next panel, which side by side with others is not
// what is wanted next.
template <int kTileBytes, int NP> ANYBIT_INLINE void prefetch_tile(const uint8_t* from, const uint8_t* end, int64_t apart) {
  if (NP > 1) from += from >= end ? (NP - 1) * apart : 0;
#pragma GCC unroll 4
  for (int i = 0; i < NP; ++i) {
    for (int line = 0; line < kTileBytes; line += 64) prefetch(from + i * apart + line);
  }
}

template <class W> constexpr int kTakenOff = W::kWord ? -kWordBias : W::kMax == 255 ? kByteOffset : 0;  // by the accumulator from every level

// Whether the sums of a block can start at their correction: it is the same for all 16 rows and comes before no shift.
ANYBIT_INLINE bool starts_corrected(const Problem& p) { return p.step_shift == 0 && !p.zeros; }

// The correction of a block: -(zero point - Offset) * step * (sum of x) for 16 rows of a panel.
template <int Offset> ANYBIT_INLINE I zero_term(const Problem& p, int64_t panel, int64_t group, int32_t sum) {
  if (!p.zeros) return splat_i((p.lowest + Offset * (1 << p.step_shift)) * sum);
  const I zero = sub_i(load_u8(p.zeros + (panel * p.groups + group) * 16), splat_i(Offset));
  return mul_i(shl_i(zero, p.step_shift), splat_i(-sum));
}

ANYBIT_INLINE float int8_factor(const Problem& p, int64_t row) { return p.xgroups > 1 ? p.factor : p.factor * p.xscales[row]; }

// A block of k: slots between two scalings, and what scales it.  Pointers are to the entries of the first row of x.
struct Block {
  int64_t begin, end, group, xgroup;
  const int32_t *sums_begin, *sums_end;
  const float* xscale;
  int64_t xscale_row;  // from one row's to the next one's
  ANYBIT_INLINE int32_t sum(int64_t row) const { return sums_end[row] - sums_begin[row]; }
};

// The blocks of slots [begin, end) in order: body(Block).
template <class Body> ANYBIT_INLINE void each_block(const Problem& p, int64_t begin, int64_t last, int64_t row, Body&& body) {
  static constexpr float kOne = 1.0f;
  int64_t group = begin / p.group, xgroup = begin / p.xgroup, group_end = (group + 1) * p.group, xgroup_end = (xgroup + 1) * p.xgroup;
  const bool scaled = p.xgroups > 1;
  for (int64_t k = begin; k < last;) {
    const int64_t end = k + p.block < last ? k + p.block : last;
    if (k >= group_end) ++group, group_end += p.group;
    if (k >= xgroup_end) ++xgroup, xgroup_end += p.xgroup;
    body(Block{k, end, group, xgroup, p.sums + (k >> 5) * p.lds + row, p.sums + (end >> 5) * p.lds + row,
               scaled ? p.xscales + row * p.xgroups + xgroup : &kOne, scaled ? p.xgroups : 0});
    k = end;
  }
}

// Where quads of NP panels come from, a tile after the other: packed tiles, each of whose vectors is read once;
template <class W, int NP, int64_t kFurther> struct Packed {
  static constexpr bool kInTurn = false;  // there are few sums
  using Tile = Lines<W::kBits, NP>;
  const W& w;
  const uint8_t *at, *end;  // of the first panel
  int64_t apart;            // of panels
  ANYBIT_INLINE Packed(const Problem& p, const W& w, int64_t panel)
      : w(w), at(p.codes + panel * p.panel_bytes), end(at + p.panel_bytes), apart(p.panel_bytes) {}
  ANYBIT_INLINE void fetch() const { prefetch_tile<W::kTileBytes, NP>(at + kFurther, end, apart); }
  ANYBIT_INLINE Tile tile() const { return Tile(at, apart); }
  template <int Q> ANYBIT_INLINE typename W::Quad quad(const Tile& tile, int i) const {
    return w.template quad<Q>(LinesOf<W::kBits, NP>{tile, i});
  }
  template <int Q> ANYBIT_INLINE WordQuad digits(const Tile& tile, int i) const { return w.template digits<Q>(LinesOf<W::kBits, NP>{tile, i}); }
  template <int Q> ANYBIT_INLINE B placed(const Tile& tile, int i) const { return placed_quad<W::kBits, Q>(LinesOf<W::kBits, NP>{tile, i}); }
  ANYBIT_INLINE void next() { at += W::kTileBytes; }
};
// a chunk unpacked before;
template <class U> struct Unpacked {
  static constexpr bool kInTurn = true;
  using Tile = const uint8_t*;
  const uint8_t* at;
  ANYBIT_INLINE void fetch() const {}
  ANYBIT_INLINE Tile tile() const { return at; }
  template <int Q> ANYBIT_INLINE typename U::Quad quad(Tile tile, int i) const { return U{}.template quad<Q>(tile + i * U::kChunkBytes); }
  ANYBIT_INLINE void next() { at += U::kTileBytes; }
};
// packed tiles that are as a chunk would be;
template <class U> struct Plain {
  static constexpr bool kInTurn = true;
  using Tile = const uint8_t*;
  const uint8_t* at;
  int64_t apart;  // of panels
  ANYBIT_INLINE void fetch() const {}
  ANYBIT_INLINE Tile tile() const { return at; }
  template <int Q> ANYBIT_INLINE typename U::Quad quad(Tile tile, int i) const { return U{}.template quad<Q>(tile + i * apart); }
  ANYBIT_INLINE void next() { at += U::kTileBytes; }
};
// or packed tiles, of which the chunk is made on the way: while it is stored there are products to do.
template <class U, class W> struct Unpacking {
  static constexpr bool kInTurn = true;
  using Tile = const uint8_t*;
  W w;
  const uint8_t* at;
  int64_t apart;  // of panels
  uint8_t* chunk;
  ANYBIT_INLINE void fetch() const {}
  ANYBIT_INLINE Tile tile() const { return at; }
  template <int Q> ANYBIT_INLINE typename U::Quad quad(Tile tile, int i) const {
    const auto made = w.template quad<Q>(tile + i * apart);
    uint8_t* to = chunk + i * U::kChunkBytes + 64 * Q;
    if constexpr (U::kWord) {
      store(to, made.low);
      store(to + kHighDigits, made.high);
    } else {
      store(to, made);
    }
    return made;
  }
  ANYBIT_INLINE void next() { at += W::kTileBytes, chunk += U::kTileBytes; }
};

#ifndef ANYBIT_ROW_PAIRS
constexpr bool kRowPairs = false;
template <class U, int NP, int MR> struct RowPairs;
#endif

// sum[MR][NP] += slots [begin, end) of NP panels times MR rows of x; sums of integers and of blocks stay in registers.
template <class U, int NP, int MR, class From, class Each>
ANYBIT_INLINE void int8_sums(const Problem& p, From from, int64_t panel, int64_t begin, int64_t end, int64_t row, F* sum, Each&& each_tile) {
  constexpr bool kZipped = U::kWord && !From::kInTurn && MR <= kMostZipped;
  using Accumulator = std::conditional_t<kZipped, ZippedAcc, typename UnpackedOf<U::kWord, U::kMax>::Accumulator>;
  constexpr int kTile = MR * NP, kParts = chains(kTile);
  constexpr bool kInPlace = kParts == 4 && kHasPlaces<U>;  // each of four sums has codes at one place of their bytes
  const bool corrected = starts_corrected(p);
  const int32_t level = corrected ? p.lowest + kTakenOff<U> : 0;
  constexpr bool kFromHalves = kWide<U> && From::kInTurn;
  const int64_t ldc = kFromHalves ? 2 * p.ldh : p.ldc;
  const int8_t* x = kFromHalves ? reinterpret_cast<const int8_t*>(p.xhalves + row * p.ldh + begin) : p.xcodes + row * ldc + begin;
  each_block(p, begin, end, row, [&](const Block& block) ANYBIT_UNROLLED {
    const auto finish = [&](auto&& total_of) ANYBIT_UNROLLED {
      F scale[NP];
#pragma GCC unroll 4
      for (int i = 0; i < NP; ++i) scale[i] = load_scales(p, panel + i, block.group);
#pragma GCC unroll 32
      for (int i = 0; i < kTile; ++i) {
        I total = total_of(i);
        if (!corrected) total = add_i(shl_i(total, p.step_shift), zero_term<kTakenOff<U>>(p, panel + i % NP, block.group, block.sum(i / NP)));
        sum[i] = fma_f(mul_f(to_f(total), splat_f(block.xscale[i / NP * block.xscale_row])), scale[i % NP], sum[i]);
      }
    };
    if constexpr (kRowPairs && !U::kWord && (MR > 1 || From::kInTurn)) {
      RowPairs<U, NP, MR> pairs([&](int m) ANYBIT_UNROLLED { return level * block.sum(m); });
      for (int64_t t = block.begin; t < block.end; t += 32, x += 32, from.next()) {
        from.fetch();
        each_tile();
        pairs.add(from, x, ldc);
      }
      return finish([&](int i) ANYBIT_UNROLLED { return pairs.result(i / NP, i % NP); });
    }
    Accumulator dot[kTile * kParts];
#pragma GCC unroll 32
    for (int i = 0; i < kTile * kParts; ++i) dot[i].start(i < kTile ? splat_i(level * block.sum(i / NP)) : zero_i());
    for (int64_t t = block.begin; t < block.end; t += 32, x += kFromHalves ? 64 : 32, from.next()) {
      from.fetch();
      each_tile();
      const typename From::Tile tile = from.tile();
      each_quad([&]<int Q>() ANYBIT_UNROLLED {
        typename U::Quad quad[NP];
#pragma GCC unroll 4
        for (int i = 0; i < NP; ++i) {
          if constexpr (kInPlace) quad[i] = from.template placed<Q>(tile, i);
          else if constexpr (kZipped) quad[i] = from.template digits<Q>(tile, i);
          else quad[i] = from.template quad<Q>(tile, i);
        }
        if constexpr (kFromHalves) {
          const auto pairs = [&](B WordQuad::*part, int at) ANYBIT_UNROLLED {
#pragma GCC unroll 32
            for (int m = 0; m < MR; ++m) {
              asm volatile("" ::: "memory");  // as below
              const B two = broadcast4(x + m * ldc + at);
#pragma GCC unroll 4
              for (int i = 0; i < NP; ++i) dot[m * NP + i].total = dot_pairs(dot[m * NP + i].total, quad[i].*part, two);
            }
          };
          pairs(&WordQuad::low, 8 * Q), pairs(&WordQuad::high, 8 * Q + 4);
          return;
        }
#pragma GCC unroll 32
        for (int m = 0; m < MR; ++m) {
          if constexpr (From::kInTurn) asm volatile("" ::: "memory");  // x loaded ahead would take registers from the sums
          const B four = broadcast4(x + m * ldc + 4 * Q);
#pragma GCC unroll 4
          for (int i = 0; i < NP; ++i) {
            Accumulator& to = dot[m * NP + i + Q % kParts * kTile];
            if constexpr (U::kWord) to.add(quad[i].low, quad[i].high, four);
            else to.add(quad[i], four);
            if constexpr ((Q / kParts + 1) % Accumulator::kRun == 0 || Q + kParts >= 8) to.flush();
          }
        }
      });
      if constexpr (From::kInTurn && requires { dot[0].stay(); }) {
#pragma GCC unroll 32
        for (int i = 0; i < kTile * kParts; ++i) dot[i].stay();
      }
    }
    finish([&](int i) ANYBIT_UNROLLED {
      I total = dot[i].result();
      if constexpr (kInPlace) {
        const auto part = [&]<int Q>() ANYBIT_UNROLLED { return sar_i<kPlace<U::kBits, Q>>(dot[i + Q * kTile].result()); };
        return add_i(add_i(total, part.template operator()<1>()), add_i(part.template operator()<2>(), part.template operator()<3>()));
      }
#pragma GCC unroll 8
      for (int part = 1; part < kParts; ++part) total = add_i(total, dot[i + part * kTile].result());
      return total;
    });
  });
}

// Few rows of x: unpack in registers, use at once for MR rows.  (More panels side by side gain a sixth in cache and lose up to 40 % from memory.)
template <class W, int MR> __attribute__((noinline)) void int8_fused(const Problem& p, const W& w, int64_t panel, int64_t row) {
  F sum[MR];
#pragma GCC unroll 16
  for (int m = 0; m < MR; ++m) sum[m] = zero_f();
  int8_sums<W, 1, MR>(p, Packed<W, 1, kAhead<W, MR>>(p, w, panel), panel, 0, p.slots, row, sum, [] {});
#pragma GCC unroll 16
  for (int m = 0; m < MR; ++m) write_row(p, panel, row + m, sum[m], int8_factor(p, row + m));
}

// Of few rows three are a tile too: as two and one they unpack twice and take longer than four.
constexpr int smaller_fused(int rows) { return rows > 4 ? smaller_tile(rows) : rows - 1; }

// All rows from `row` on: tiles of MR, then of ever fewer (few sizes, because each is a kernel of its own).
template <class W, int MR> ANYBIT_INLINE void int8_fused_rows(const Problem& p, const W& w, int64_t panel, int64_t row) {
  for (; row + MR <= p.m; row += MR) int8_fused<W, MR>(p, w, panel, row);
  if constexpr (MR > 1) int8_fused_rows<W, smaller_fused(MR)>(p, w, panel, row);
}

// What the sums of a row's digits (digits.inl) come to, which count 2^16, 2^8 and 1, in units of the highest.
ANYBIT_INLINE F of_digits(F high, F middle, F low) { return fma_f(fma_f(low, splat_f(0x1p-8f), middle), splat_f(0x1p-8f), high); }

// Rows [row, row + R) of x in digits times NP panels.
template <class W, int NP, int R> __attribute__((noinline)) void int8_digits(const Problem& p, const W& w, int64_t panel, int64_t row) {
  F sum[kDigits * R * NP];
#pragma GCC unroll 32
  for (int i = 0; i < kDigits * R * NP; ++i) sum[i] = zero_f();
  int8_sums<W, NP, kDigits * R>(p, Packed<W, NP, kPrefetch>(p, w, panel), panel, 0, p.slots, row * kDigits, sum, [] {});
#pragma GCC unroll 32
  for (int i = 0; i < R * NP; ++i) {
    const int r = i / NP;
    const F* digit = sum + kDigits * r * NP + i % NP;
    write_row(p, panel + i % NP, row + r, of_digits(digit[0], digit[NP], digit[2 * NP]), int8_factor(p, (row + r) * kDigits));
  }
}

// Slots to unpack at a time: whole blocks, about `most` in all.
ANYBIT_INLINE int64_t chunk_step(const Problem& p, int64_t most) { return p.block >= most ? p.block : p.block * (most / p.block); }

// Packed bytes wanted soon, fetched a few lines at a time between other work.
struct Ahead {
  const uint8_t *at, *end;
  int64_t apart;  // of panels
  int panels;
  int64_t bytes;  // at a time, a multiple of 64
  ANYBIT_INLINE void fetch() {
    const uint8_t* stop = at + bytes < end ? at + bytes : end;
    for (; at < stop; at += 64) {
      for (int i = 0; i < panels; ++i) prefetch(at + i * apart);
    }
  }
};

// Results that are about to be written: every row lies on a page of its own, and often in the same few sets of a cache.
ANYBIT_INLINE void prefetch_results(const Problem& p, int64_t panel, int panels, int64_t row, int64_t rows) {
  if (p.places) return;
  for (int64_t i = row; i < row + rows; ++i) {
    for (int j = 0; j < panels; ++j) __builtin_prefetch(p.y + i * p.ldy + (panel + j) * 16, 1);
  }
}

// Writes acc[rows][NP][16] as the results of rows [row, row + rows).
template <int NP> __attribute__((noinline)) void int8_results(const Problem& p, int64_t panel, int64_t row, int64_t rows, const float* acc) {
  for (int64_t i = 0; i < rows; ++i) {
    const float factor = int8_factor(p, row + i);
    for (int j = 0; j < NP; ++j) write_row(p, panel + j, row + i, load_f(acc + 16 * (i * NP + j)), factor);
  }
}

// Many rows: acc[MR][NP][16] += slots [begin, end) of NP panels times MR rows of x.
template <class U, int NP, int MR, class From>
__attribute__((noinline)) void int8_micro(const Problem& p, From from, int64_t panel, int64_t begin, int64_t end, int64_t row, float* acc,
                                          Ahead& ahead) {
  F sum[MR * NP];
#pragma GCC unroll 32
  for (int i = 0; i < MR * NP; ++i) sum[i] = load_f(acc + 16 * i);
  int8_sums<U, NP, MR>(p, from, panel, begin, end, row, sum, [&]() ANYBIT_UNROLLED { ahead.fetch(); });
#pragma GCC unroll 32
  for (int i = 0; i < MR * NP; ++i) store_f(acc + 16 * i, sum[i]);
}

// The same; behind the last slot the sums are written as results.
template <class U, int NP, int MR, class From>
ANYBIT_INLINE void int8_tile(const Problem& p, From from, int64_t panel, int64_t begin, int64_t end, int64_t row, float* acc, Ahead& ahead) {
  const bool last = end == p.slots;
  if (last) prefetch_results(p, panel, NP, row, MR);
  int8_micro<U, NP, MR>(p, from, panel, begin, end, row, acc, ahead);
  if (last) int8_results<NP>(p, panel, row, MR, acc);
}

template <class U, int NP, int MR, class From>
ANYBIT_INLINE void int8_tiles(const Problem& p, From from, int64_t panel, int64_t begin, int64_t end, int64_t row, int64_t rows, float* acc,
                              Ahead& ahead) {
  for (; rows >= MR; rows -= MR, row += MR, acc += 16 * NP * MR) int8_tile<U, NP, MR>(p, from, panel, begin, end, row, acc, ahead);
  if constexpr (MR > 1) int8_tiles<U, NP, smaller_tile(MR)>(p, from, panel, begin, end, row, rows, acc, ahead);
}

// Rows [row, row + rows), kTileRows or more, times NP panels from `panel` on.
template <class W, int NP>
__attribute__((noinline)) void int8_strip(const Problem& p, const W& w, int64_t panel, int64_t row, int64_t rows, float* acc) {
  using U = typename UnpackedOf<W::kWord, W::kMax>::Type;
  constexpr bool kAsPacked = W::kPlain && !kRowPairs;
  alignas(64) uint8_t chunk[kAsPacked ? 64 : NP * U::kChunkBytes];
  const int64_t step = chunk_step(p, kChunkSlots), row_tiles = (rows + kTileRows - 1) / kTileRows;
  const uint8_t* codes = p.codes + panel * p.panel_bytes;
  for (int64_t i = 0; i < rows * NP; ++i) store_f(acc + 16 * i, zero_f());
  for (int64_t k = 0; k < p.slots; k += step) {
    const int64_t end = k + step < p.slots ? k + step : p.slots;
    // the next chunk of these panels, or the first of the next ones; beyond the last a prefetch does nothing
    const uint8_t* next = end < p.slots ? codes + end / 32 * W::kTileBytes : codes + NP * p.panel_bytes;
    const int64_t bytes = step / 32 * W::kTileBytes, parts = row_tiles * ((end - k + 31) / 32);
    Ahead ahead{next, next + bytes, p.panel_bytes, NP, (bytes / parts + 63) / 64 * 64};
    const uint8_t* tiles = codes + k / 32 * W::kTileBytes;
    if constexpr (kAsPacked) {
      int8_tiles<U, NP, kTileRows>(p, Plain<U>{tiles, p.panel_bytes}, panel, k, end, row, rows, acc, ahead);
    } else {
      int8_tile<U, NP, kTileRows>(p, Unpacking<U, W>{w, tiles, p.panel_bytes, chunk}, panel, k, end, row, acc, ahead);
      int8_tiles<U, NP, kTileRows>(p, Unpacked<U>{chunk}, panel, k, end, row + kTileRows, rows - kTileRows, acc + kTileRows * NP * 16, ahead);
    }
  }
}

template <class W> void int8_many(const Problem& p, const W& w, int64_t first, int64_t last) {
  constexpr int kPanels = W::kWord ? 1 : kTilePanels;  // words have two sums each
  alignas(64) float acc[kMostRows * kPanels * 16];
  int64_t pass = kPassBytes / (kWide<W> ? 2 * p.slots : p.slots) / kTileRows * kTileRows;
  pass = (pass < 32 ? 32 : pass > kMostRows ? kMostRows : pass) / kTileRows * kTileRows;
  for (int64_t row = 0; row < p.m; row += pass) {
    const int64_t rows = row + pass < p.m ? pass : p.m - row;
    int64_t panel = first;
    if (rows < kTileRows) {
      for (; panel < last; ++panel) int8_fused_rows<W, kTileRows < kFusedRows ? kTileRows : kFusedRows>(p, w, panel, row);
      break;
    }
    for (; panel + kPanels <= last; panel += kPanels) int8_strip<W, kPanels>(p, w, panel, row, rows, acc);
    if constexpr (kPanels > 1) {
      for (; panel < last; ++panel) int8_strip<W, 1>(p, w, panel, row, rows, acc);
    }
  }
}

template <class W> struct Int8 {
  static void panels(const Problem& p, int64_t first, int64_t last) {
    const W w(p);
    int64_t panel = first;
    if constexpr (kFloatDigits && !W::kWord) {
      if (p.digits > 1) {
        // with three digits it is not reading that takes longest: two panels share what the end of a block costs
        if (p.m == 1) {
          for (; panel + 2 <= last; panel += 2) int8_digits<W, 2, 1>(p, w, panel, 0);
        }
        for (; panel < last; ++panel) {
          int64_t row = 0;
          for (; row + 2 <= p.m; row += 2) int8_digits<W, 1, 2>(p, w, panel, row);
          if (row < p.m) int8_digits<W, 1, 1>(p, w, panel, row);
        }
        return;
      }
    }
    if (p.m > kMostFused) return int8_many(p, w, first, last);
    for (; panel < last; ++panel) int8_fused_rows<W, kFusedRows>(p, w, panel, 0);
  }
};
