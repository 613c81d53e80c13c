// Products of weights in planes of bits (planes.hpp).  Compiled once per instruction set, inside its namespace.
//
// Both give sum u x of a block as an exact integer and scale it as int8.inl does, so their results are bit for bit those of the
// integer kernels.

constexpr int kBitRows = 8;           // planes of x against which a line of weights is counted while it is in a register
constexpr int64_t kCountedTiles = 31; // whose counts of up to 8 a byte still fit it
constexpr int kTableRows = 4;
constexpr int64_t kTableTiles = 8;  // whose 16 upper digits of up to 15 in each part fit a byte, and 64 sums of up to 1020 fit 16 bits
constexpr int64_t kLookedUp = 8 * 64 * kUpperDigit;  // a tile: eight lookups a row

// The 16 sums of four counts of a byte each.
ANYBIT_INLINE I summed(const B& counts) {
  Acc<255> sum;
  sum.start(splat_i(4 * kByteOffset));
  sum.add(counts, splat_b(1));
  sum.flush();
  return sum.result();
}

// out[t] += (sum over tiles of popcount(plane & x_t)) << shift for T planes of x, `ldp` words apart; lines of the plane `stride` apart.
template <int T>
ANYBIT_INLINE void count_plane(const uint8_t* plane, int64_t stride, int64_t tiles, const uint32_t* x, int64_t ldp, int shift, I* out) {
  for (int64_t from = 0; from < tiles; from += kCountedTiles) {
    const int64_t to = from + kCountedTiles < tiles ? from + kCountedTiles : tiles;
    B counts[T];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) counts[t] = splat_b(0);
    for (int64_t tile = from; tile < to; ++tile) {
      const uint8_t* at = plane + tile * stride;
      prefetch(at + kPrefetch);
      const B line = load(at);
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) {
        const B bits = broadcast4(reinterpret_cast<const int8_t*>(x + t * ldp + tile));
        counts[t] = add_b(counts[t], count_b(and_b(line, bits)));
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) out[t] = add_i(out[t], shl_i(summed(counts[t]), shift));
  }
}

// sums[i][16] of `rows` planes of x over the tiles of a block.
template <int T>
ANYBIT_INLINE void count_block(const Problem& p, const uint8_t* tile, int64_t tiles, const uint32_t* x, int64_t rows, int32_t* sums) {
  const int64_t stride = 64 * p.bits;
  for (; rows >= T; rows -= T, x += T * p.ldp, sums += 16 * T) {
    I out[T];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) out[t] = zero_i();
    for (int b = 0; b < p.bits; ++b) count_plane<T>(tile + 64 * b, stride, tiles, x, p.ldp, b, out);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) store_i(sums + 16 * t, out[t]);
  }
  if constexpr (T > 1) {
    if (rows > 0) count_block<T / 2>(p, tile, tiles, x, rows, sums);
  }
}

// acc + the scaled integer sum of a block, which lacks its correction.
ANYBIT_INLINE F scaled(const Problem& p, int64_t panel, const Block& block, int64_t row, I total, F acc) {
  total = add_i(shl_i(total, p.step_shift), zero_term<0>(p, panel, block.group, block.sum(static_cast<int>(row))));
  return fma_f(mul_f(to_f(total), splat_f(block.xscale[row * block.xscale_row])), load_scales(p, panel, block.group), acc);
}

// Planes of weights times planes of x: n m one-bit products, counted.
void bit_serial(const Problem& p, int64_t first, int64_t last) {
  constexpr int64_t kRows = 16;
  alignas(64) int32_t sums[kRows * 8 * 16];
  for (int64_t panel = first; panel < last; ++panel) {
    for (int64_t row = 0; row < p.m; row += kRows) {
      const int64_t rows = row + kRows < p.m ? kRows : p.m - row;
      alignas(64) float acc[kRows * 16] = {};
      const uint8_t* codes = p.codes + panel * p.panel_bytes;
      each_block(p, 0, p.slots, row, [&](const Block& block) ANYBIT_UNROLLED {
        const int64_t tiles = (block.end - block.begin) / 32;
        count_block<kBitRows>(p, codes + block.begin / 32 * 64 * p.bits, tiles, p.xplanes + row * p.xbits * p.ldp + block.begin / 32,
                              rows * p.xbits, sums);
        for (int64_t m = 0; m < rows; ++m) {
          const int32_t* of = sums + m * p.xbits * 16;
          I total = shl_i(load_i(of + 16 * (p.xbits - 1)), p.xbits - 1);  // the sign of two's complement
          total = sub_i(zero_i(), total);
          for (int b = 0; b < p.xbits - 1; ++b) total = add_i(total, shl_i(load_i(of + 16 * b), b));
          store_f(acc + 16 * m, scaled(p, panel, block, m, total, load_f(acc + 16 * m)));
        }
      });
      for (int64_t m = 0; m < rows; ++m) write_row(p, panel, row + m, load_f(acc + 16 * m), int8_factor(p, row + m));
    }
  }
}

// The indices in the two halves of a line, which is read once.
struct Indices {
  B low, up;
  ANYBIT_INLINE explicit Indices(const uint8_t* at) {
    prefetch(at + kPrefetch);
    const B line = load(at), mask = splat_b(15);
    low = and_b(line, mask), up = and_b(shr_b<4>(line), mask);
  }
};

// What one plane and one row of x have come to: of lower digits even bytes plus 2^8 times odd ones modulo 2^16, and odd ones; upper digits.
struct LookedUp {
  B both, odd, high;
  ANYBIT_INLINE void start() { both = odd = high = splat_b(0); }
  // The lower digits that a line chooses; the upper ones are added.
  ANYBIT_INLINE B line(const uint8_t* tables, const Indices& of) {
    high = add_b(add_b(high, lookup(load(tables + 128), of.low)), lookup(load(tables + 192), of.up));
    return add_b(lookup(load(tables), of.low), lookup(load(tables + 64), of.up));
  }
  ANYBIT_INLINE void widen(const B& digits) { both = add_h(both, digits), odd = add_h(odd, high_h(digits)); }
  ANYBIT_INLINE B evens() const { return add_h(sub_h(both, low_up_h(odd)), times64_h(low_h(high))); }
  ANYBIT_INLINE B odds() const { return add_h(odd, times64_h(high_h(high))); }
};

// total[m] += sums of NB planes, which count 2^shift and on, over up to kTableTiles tiles for MR rows of x, by lookup of four bits at a
// time; kLookedUp too large for every tile and unit.  A line's lower digits fit a byte twice over, so those of two tiles are added before
// they are widened; the upper ones of all tiles fit one, and all of a row 16 bits.
template <int MR, int NB>
ANYBIT_INLINE void look_up_planes(const uint8_t* plane, int64_t stride, int64_t tiles, const uint8_t* tables, int64_t ldt, int shift,
                                  I* total) {
  LookedUp sums[MR * NB];
#pragma GCC unroll 8
  for (int i = 0; i < MR * NB; ++i) sums[i].start();
  for (; tiles >= 2; tiles -= 2, plane += 2 * stride, tables += 512) {
#pragma GCC unroll 8
    for (int b = 0; b < NB; ++b) {
      const Indices one(plane + 64 * b), two(plane + 64 * b + stride);
#pragma GCC unroll 4
      for (int m = 0; m < MR; ++m) {
        LookedUp& sum = sums[m * NB + b];
        const B first = sum.line(tables + m * ldt, one);
        sum.widen(add_b(first, sum.line(tables + m * ldt + 256, two)));
      }
    }
  }
  if (tiles) {
#pragma GCC unroll 8
    for (int b = 0; b < NB; ++b) {
      const Indices one(plane + 64 * b);
#pragma GCC unroll 4
      for (int m = 0; m < MR; ++m) sums[m * NB + b].widen(sums[m * NB + b].line(tables + m * ldt, one));
    }
  }
#pragma GCC unroll 4
  for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 8
    for (int b = 0; b < NB; ++b) {
      const LookedUp& sum = sums[m * NB + b];
      total[m] = add_i(total[m], shl_i(rows_h(sum.evens(), sum.odds()), shift + b));
    }
  }
}

// The same of all planes of a weight, as many at a time as registers hold.
template <int MR>
ANYBIT_INLINE void look_up_tiles(int bits, const uint8_t* plane, int64_t stride, int64_t tiles, const uint8_t* tables, int64_t ldt, I* total) {
  constexpr int kMost = MR == 1 ? kTablePlanes : 1;
  int b = 0;
  for (; b + kMost <= bits; b += kMost) look_up_planes<MR, kMost>(plane + 64 * b, stride, tiles, tables, ldt, b, total);
  if constexpr (kMost > 2) {
    for (; b + 2 <= bits; b += 2) look_up_planes<MR, 2>(plane + 64 * b, stride, tiles, tables, ldt, b, total);
  }
  if constexpr (kMost > 1) {
    if (b < bits) look_up_planes<MR, 1>(plane + 64 * b, stride, tiles, tables, ldt, b, total);
  }
}

template <int MR> __attribute__((noinline)) void look_up_rows(const Problem& p, int64_t panel, int64_t row) {
  F acc[MR];
#pragma GCC unroll 4
  for (int m = 0; m < MR; ++m) acc[m] = zero_f();
  const int64_t stride = 64 * p.bits;
  const uint8_t* codes = p.codes + panel * p.panel_bytes;
  each_block(p, 0, p.slots, row, [&](const Block& block) ANYBIT_UNROLLED {
    const auto too_much = static_cast<int32_t>((block.end - block.begin) / 32 * kLookedUp * ((1 << p.bits) - 1));
    I total[MR];
#pragma GCC unroll 4
    for (int m = 0; m < MR; ++m) total[m] = splat_i(-too_much);
    for (int64_t tile = block.begin / 32; tile < block.end / 32; tile += kTableTiles) {
      const int64_t tiles = tile + kTableTiles < block.end / 32 ? kTableTiles : block.end / 32 - tile;
      look_up_tiles<MR>(p.bits, codes + tile * stride, stride, tiles, p.tables + row * p.ldt + tile * 256, p.ldt, total);
    }
#pragma GCC unroll 4
    for (int m = 0; m < MR; ++m) acc[m] = scaled(p, panel, block, m, total[m], acc[m]);
  });
#pragma GCC unroll 4
  for (int m = 0; m < MR; ++m) write_row(p, panel, row + m, acc[m], int8_factor(p, row + m));
}

// Four weight bits choose among 16 sums of four activations: no product but by scales.
void look_up(const Problem& p, int64_t first, int64_t last) {
  for (int64_t panel = first; panel < last; ++panel) {
    int64_t row = 0;
    for (; row + kTableRows <= p.m; row += kTableRows) look_up_rows<kTableRows>(p, panel, row);
    for (; row < p.m; ++row) look_up_rows<1>(p, panel, row);
  }
}

// out[i][j] = bits set in a_i & b_j, or in a_i ^ b_j, of TA rows and TB: `lines` lines of 64 bytes each.
template <bool Exclusive, int TA, int TB>
ANYBIT_INLINE void count_tile(const BitRows& a, int64_t i, const BitRows& b, int64_t j, int64_t lines, int32_t* out, int64_t ldo) {
  I sums[TA * TB];
#pragma GCC unroll 16
  for (int t = 0; t < TA * TB; ++t) sums[t] = zero_i();
  for (int64_t from = 0; from < lines; from += kCountedTiles) {
    const int64_t to = from + kCountedTiles < lines ? from + kCountedTiles : lines;
    B counts[TA * TB];
#pragma GCC unroll 16
    for (int t = 0; t < TA * TB; ++t) counts[t] = splat_b(0);
    for (int64_t line = from; line < to; ++line) {
      B left[TA];
#pragma GCC unroll 4
      for (int t = 0; t < TA; ++t) left[t] = held(load(a.of(i + t) + 64 * line));
#pragma GCC unroll 4
      for (int u = 0; u < TB; ++u) {
        const uint8_t* at = b.of(j + u) + 64 * line;
        if (i == 0) prefetch(at + TB * b.apart);  // the rows that come next
        const B right = held(load(at));
#pragma GCC unroll 4
        for (int t = 0; t < TA; ++t) {
          B& count = counts[t * TB + u];
          count = add_b(count, count_b(Exclusive ? xor_b(left[t], right) : and_b(left[t], right)));
        }
      }
    }
#pragma GCC unroll 16
    for (int t = 0; t < TA * TB; ++t) sums[t] = add_i(sums[t], summed(counts[t]));
  }
#pragma GCC unroll 16
  for (int t = 0; t < TA * TB; ++t) out[(i + t / TB) * ldo + j + t % TB] = reduce_add(sums[t]);
}

template <bool Exclusive> void count_rows(const BitRows& a, const BitRows& b, int64_t first, int64_t last, int64_t lines, int32_t* out, int64_t ldo) {
  constexpr int kSide = kCountSide;
  int64_t j = first;
  for (; j + kSide <= last; j += kSide) {
    int64_t i = 0;
    for (; i + kSide <= a.rows; i += kSide) count_tile<Exclusive, kSide, kSide>(a, i, b, j, lines, out, ldo);
    for (; i < a.rows; ++i) count_tile<Exclusive, 1, kSide>(a, i, b, j, lines, out, ldo);
  }
  for (; j < last; ++j) {
    for (int64_t i = 0; i < a.rows; ++i) count_tile<Exclusive, 1, 1>(a, i, b, j, lines, out, ldo);
  }
}

void count_pairs(const BitRows& a, const BitRows& b, int64_t first, int64_t last, int64_t lines, bool exclusive, int32_t* out, int64_t ldo) {
  if (exclusive) count_rows<true>(a, b, first, last, lines, out, ldo);
  else count_rows<false>(a, b, first, last, lines, out, ldo);
}
