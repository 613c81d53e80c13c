// Products of integers of 16 bits.  Compiled once per instruction set, inside its namespace.
//
// A product has up to 31 bits and so has the register that sums it, so a sum is moved on before it can overflow, its upper half only:
//
//   high += low >> 16;  low &= 65535                     total = high * 2^16 + low, exact for kWordBlock slots and more
//
// How many slots that may take, a chain, follows from Cauchy and Schwarz: |sum of w x over a span| <= |w| |x|, with the largest norms that
// were found for these rows and panels (kernels.hpp), in place of 2 slots for any codes (Das et al., arXiv 1802.00930, convert chains to
// float32, which is not exact).  Two products of a code up to 2^15 with one up to 2^15 - 1, which codes of x do not pass, leave just the
// room that the lower half needs: 2 * 32768 * 32767 + 65535 = 2^31 - 1.
//
// A block is then scaled as in int8.inl, its sum rounded once to float32: the bits depend neither on chains nor on the instruction set.

constexpr float kChainLimit = 4.611e18f;  // just below (2^31 - 1 - 65535)^2: norms are rounded, in sums of up to 256 numbers

// The longest chain, in slots, that cannot overflow in a chunk of NP panels from `panel` on times rows [row, row + rows); 2 for any.
ANYBIT_INLINE int64_t chain_of(const Problem& p, int64_t panel, int panels, int64_t row, int64_t rows, int64_t chunk) {
  for (int i = kSpans - 1; i >= 0; --i) {
    float w = 0.0f, x = 0.0f;
    for (int j = 0; j < panels; ++j) {
      const float one = p.wsquares[((panel + j) * p.chunks + chunk) * kSpans + i];
      w = one > w ? one : w;
    }
    for (int64_t at = row / kSquaredRows; at <= (row + rows - 1) / kSquaredRows; ++at) {
      const float one = p.xsquares[(at * p.chunks + chunk) * kSpans + i];
      x = one > x ? one : x;
    }
    if (w * x < kChainLimit) return int64_t{8} << i;
  }
  return 2;
}

// Calls body.operator()<0>(), ... <N - 1>(): unrolled whatever the compiler thinks of it, so that sums stay in registers.
template <int N, class Body> ANYBIT_INLINE void each_index(Body&& body) {
  [&]<int... I>(std::integer_sequence<int, I...>) ANYBIT_UNROLLED { (body.template operator()<I>(), ...); }(std::make_integer_sequence<int, N>{});
}

// GCC's elimination of partial redundancies copies every sum at the end of a loop that is left for a few instructions and entered again.
#if defined(__GNUC__) && !defined(__clang__)
#define ANYBIT_KEEP_SUMS __attribute__((noinline, optimize("no-tree-pre")))
#else
#define ANYBIT_KEEP_SUMS __attribute__((noinline))
#endif

// low, high[MR][NP][16] += x times slots [k, end) of a chunk of NP panels `apart` bytes apart; w and x are at slot k, rows of x `ldx` bytes apart.
template <int NP, int MR, int Pairs>
ANYBIT_KEEP_SUMS void int16_dots(const uint8_t* w, int64_t apart, const int8_t* x, int64_t ldx, int64_t k, int64_t end, int64_t chain,
                                 int32_t* low, int32_t* high) {
  I sum[MR * NP];
  each_index<MR * NP>([&]<int J>() ANYBIT_UNROLLED { sum[J] = load_i(low + 16 * J); });
  while (k < end) {
    const int64_t next = (k | (chain - 1)) + 1, stop = next < end ? next : end;  // spans begin at multiples of their length
    for (; k < stop; k += 2 * Pairs, w += 64 * Pairs, x += 4 * Pairs) {
      each_index<Pairs>([&]<int J>() ANYBIT_UNROLLED {
        PairsOfK pair[NP];
        each_index<NP>([&]<int P>() ANYBIT_UNROLLED { pair[P] = load_pairs(w + P * apart + 64 * J); });
        each_index<MR>([&]<int M>() ANYBIT_UNROLLED {
          asm volatile("" ::: "memory");  // as in int8_sums
          const PairOfX two = broadcast_pair(x + M * ldx + 4 * J);
          each_index<NP>([&]<int P>() ANYBIT_UNROLLED { sum[M * NP + P] = dot_pairs(sum[M * NP + P], pair[P], two); });
        });
      });
    }
    each_index<MR * NP>([&]<int J>() ANYBIT_UNROLLED {
      store_i(high + 16 * J, add_upper(load_i(high + 16 * J), sum[J]));
      sum[J] = lower(sum[J]);
    });
  }
  each_index<MR * NP>([&]<int J>() ANYBIT_UNROLLED { store_i(low + 16 * J, sum[J]); });
}

// Of rows and panels of a strip: [rows][NP][16] sums since the block began, and scaled sums of the blocks before.
struct WordSums {
  int32_t *low, *high;
  float* acc;
  ANYBIT_INLINE WordSums from(int64_t vectors) const { return {low + 16 * vectors, high + 16 * vectors, acc + 16 * vectors}; }
};

// The end of a block: acc += the scaled sums, which begin anew.
template <int NP> ANYBIT_INLINE void int16_scale_rows(const Problem& p, int64_t panel, int64_t slot, int64_t row, int64_t rows, WordSums s) {
  const int64_t group = slot / p.group;
  F scale[NP];
#pragma GCC unroll 4
  for (int i = 0; i < NP; ++i) scale[i] = load_scales(p, panel + i, group);
  for (int64_t m = 0; m < rows; ++m) {
    const F xscale = splat_f(p.xgroups > 1 ? p.xscales[(row + m) * p.xgroups + slot / p.xgroup] : 1.0f);
#pragma GCC unroll 4
    for (int i = 0; i < NP; ++i) {
      const int64_t at = 16 * (m * NP + i);
      const F total = joined(load_i(s.high + at), load_i(s.low + at));
      store_f(s.acc + at, fma_f(mul_f(total, xscale), scale[i], load_f(s.acc + at)));
      store_i(s.high + at, zero_i());
      store_i(s.low + at, zero_i());
    }
  }
}

// Slots [begin, end) of a chunk times MR rows.
template <int NP, int MR> ANYBIT_INLINE void int16_micro(const Problem& p, int64_t panel, int64_t begin, int64_t end, int64_t row, WordSums s) {
  const int64_t chain = chain_of(p, panel, NP, row, MR, begin / kWordChunk);
  const auto* x = reinterpret_cast<const int8_t*>(p.xhalves + row * p.ldh);
  for (int64_t k = begin; k < end;) {
    const int64_t whole = (k / p.block + 1) * p.block, stop = whole < end ? whole : end;
    const uint8_t* w = p.codes + panel * p.panel_bytes + 32 * k;
    if (chain > 2) int16_dots<NP, MR, 4>(w, p.panel_bytes, x + 2 * k, 2 * p.ldh, k, stop, chain, s.low, s.high);
    else int16_dots<NP, MR, 1>(w, p.panel_bytes, x + 2 * k, 2 * p.ldh, k, stop, chain, s.low, s.high);
    if (stop == whole || stop == p.slots) int16_scale_rows<NP>(p, panel, k, row, MR, s);
    k = stop;
  }
}

template <int NP, int MR>
ANYBIT_INLINE void int16_micro_rows(const Problem& p, int64_t panel, int64_t begin, int64_t end, int64_t row, int64_t rows, WordSums s) {
  for (; rows >= MR; rows -= MR, row += MR, s = s.from(NP * MR)) int16_micro<NP, MR>(p, panel, begin, end, row, s);
  if constexpr (MR > 1) int16_micro_rows<NP, smaller_tile(MR)>(p, panel, begin, end, row, rows, s);
}

// Rows [row, row + rows) times NP panels from `panel` on, a chunk of the panels, which stays in L1, after the other.
template <int NP> __attribute__((noinline)) void int16_strip(const Problem& p, int64_t panel, int64_t row, int64_t rows, WordSums s) {
  for (int64_t i = 0; i < rows * NP; ++i) {
    store_i(s.low + 16 * i, zero_i());
    store_i(s.high + 16 * i, zero_i());
    store_f(s.acc + 16 * i, zero_f());
  }
  for (int64_t k = 0; k < p.slots; k += kWordChunk) {
    const int64_t end = k + kWordChunk < p.slots ? k + kWordChunk : p.slots;
    if (end == p.slots) prefetch_results(p, panel, NP, row, rows);
    int16_micro_rows<NP, kShortRows>(p, panel, k, end, row, rows, s);
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int j = 0; j < NP; ++j) write_row(p, panel + j, row + i, load_f(s.acc + 16 * (i * NP + j)), int8_factor(p, row + i));
  }
}

void int16_panels(const Problem& p, int64_t first, int64_t last) {
  constexpr int64_t kNumbers = kMostRows * kTilePanels * 16;
  alignas(64) int32_t low[kNumbers], high[kNumbers];
  alignas(64) float acc[kNumbers];
  int64_t pass = kPassBytes / (2 * p.slots) / kShortRows * kShortRows;
  pass = pass < 32 ? 32 : pass > kMostRows ? kMostRows : pass;
  for (int64_t row = 0; row < p.m; row += pass) {
    const int64_t rows = row + pass < p.m ? pass : p.m - row;
    int64_t panel = first;
    for (; panel + kTilePanels <= last; panel += kTilePanels) int16_strip<kTilePanels>(p, panel, row, rows, {low, high, acc});
    if constexpr (kTilePanels > 1) {
      for (; panel < last; ++panel) int16_strip<1>(p, panel, row, rows, {low, high, acc});
    }
  }
}
