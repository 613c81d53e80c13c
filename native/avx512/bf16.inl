// Weights that bf16 holds exactly times x of bf16, summed in float32 by vdpbf16ps: 16 outputs and two k an instruction.  A block of k is
// one chain of sums; acc = fma(sum, scale, acc) after it, as in exact.inl.

constexpr int kPairPanels = 3, kPairRows = 4;  // 12 sums of a block and 12 of all blocks in registers
constexpr int64_t kPairChunk = 256;            // slots unpacked at a time: 8 KiB a panel
constexpr int64_t kPairMostRows = 128;

// acc[MR][NP][16] += slots [begin, end), unpacked in `chunk`, times MR rows of x.
template <int NP, int MR>
__attribute__((noinline)) void pair_micro(const Problem& p, const uint8_t* chunk, int64_t panel, int64_t begin, int64_t end, int64_t row,
                                          float* acc) {
  const uint16_t* x = p.xhalves + row * p.ldh;
  F all[MR * NP];
#pragma GCC unroll 32
  for (int i = 0; i < MR * NP; ++i) all[i] = load_f(acc + 16 * i);
  for (int64_t k = begin; k < end;) {
    const int64_t stop = k + p.block < end ? k + p.block : end;
    __m512 sum[MR * NP];
#pragma GCC unroll 32
    for (int i = 0; i < MR * NP; ++i) sum[i] = _mm512_setzero_ps();
    const int64_t group = k / p.group;
    for (; k < stop; k += 8, chunk += 256) {
#pragma GCC unroll 4
      for (int pair = 0; pair < 4; ++pair) {
        __m512bh w[NP];
#pragma GCC unroll 4
        for (int i = 0; i < NP; ++i) w[i] = (__m512bh)_mm512_load_si512(chunk + 64 * pair + i * kPairChunk * 32);
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) {
          asm volatile("" ::: "memory");  // x is loaded in turn: loaded ahead it would take registers from the sums
          int32_t both;
          __builtin_memcpy(&both, x + m * p.ldh + k + 2 * pair, 4);
          const auto two = (__m512bh)_mm512_set1_epi32(both);
#pragma GCC unroll 4
          for (int i = 0; i < NP; ++i) sum[m * NP + i] = _mm512_dpbf16_ps(sum[m * NP + i], w[i], two);
        }
      }
#pragma GCC unroll 32
      for (int i = 0; i < MR * NP; ++i) sum[i] = held(F{sum[i]}).v;  // as Acc::stay()
    }
    F scale[NP];
#pragma GCC unroll 4
    for (int i = 0; i < NP; ++i) scale[i] = load_scales(p, panel + i, group);
#pragma GCC unroll 32
    for (int i = 0; i < MR * NP; ++i) all[i] = fma_f({sum[i]}, scale[i % NP], all[i]);
  }
#pragma GCC unroll 32
  for (int i = 0; i < MR * NP; ++i) store_f(acc + 16 * i, all[i]);
}

template <int NP, int MR>
ANYBIT_INLINE void pair_rows(const Problem& p, const uint8_t* chunk, int64_t panel, int64_t begin, int64_t end, int64_t row, int64_t rows,
                             float* acc) {
  for (; rows >= MR; rows -= MR, row += MR, acc += 16 * NP * MR) pair_micro<NP, MR>(p, chunk, panel, begin, end, row, acc);
  if constexpr (MR > 1) pair_rows<NP, smaller_tile(MR)>(p, chunk, panel, begin, end, row, rows, acc);
}

// Rows [row, row + rows) times NP panels from `panel` on.
template <class P, int NP>
__attribute__((noinline)) void pair_strip(const Problem& p, const P& of, int64_t panel, int64_t row, int64_t rows, float* acc) {
  alignas(64) uint8_t chunk[NP * kPairChunk * 32];
  const int64_t step = p.block * (kPairChunk / p.block);
  for (int64_t i = 0; i < rows * NP; ++i) store_f(acc + 16 * i, zero_f());
  for (int64_t k = 0; k < p.slots; k += step) {
    const int64_t end = k + step < p.slots ? k + step : p.slots;
    for (int i = 0; i < NP; ++i) bf16_unpack<P, kPrefetch>(p, of, panel + i, k, end, chunk + i * kPairChunk * 32);
    pair_rows<NP, kPairRows>(p, chunk, panel, k, end, row, rows, acc);
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int j = 0; j < NP; ++j) write_row(p, panel + j, row + i, load_f(acc + 16 * (i * NP + j)), P::factor(p));
  }
}

template <class E> void pair_panels(const Problem& p, int64_t first, int64_t last) {
  if (p.m == 1) return exact_panels<E>(p, first, last);
  with_pairs_of<E>(p, [&]<class P>() {
    const P of(p);
    alignas(64) float acc[kPairMostRows * kPairPanels * 16];
    for (int64_t row = 0; row < p.m; row += kPairMostRows) {
      const int64_t rows = row + kPairMostRows < p.m ? kPairMostRows : p.m - row;
      int64_t panel = first;
      for (; panel + kPairPanels <= last; panel += kPairPanels) pair_strip<P, kPairPanels>(p, of, panel, row, rows, acc);
      for (; panel < last; ++panel) pair_strip<P, 1>(p, of, panel, row, rows, acc);
    }
  });
}

constexpr Kernels with_pairs(Kernels k) {
  k.name = "avx512bf16";
  k.bf16_integer[1] = pair_panels<IntegerNumbers<1>>;
  k.bf16_integer[2] = pair_panels<IntegerNumbers<2>>;
  k.bf16_integer[3] = pair_panels<IntegerNumbers<3>>;
  k.bf16_integer[4] = pair_panels<IntegerNumbers<4>>;
  k.bf16_integer[5] = pair_panels<IntegerNumbers<5>>;
  k.bf16_integer[6] = pair_panels<IntegerNumbers<6>>;
  k.bf16_integer[7] = pair_panels<IntegerNumbers<7>>;
  k.bf16_integer[8] = pair_panels<IntegerNumbers<8>>;
  k.bf16_codebook[2] = pair_panels<CodebookNumbers<2>>;
  k.bf16_codebook[3] = pair_panels<CodebookNumbers<3>>;
  k.bf16_codebook[4] = pair_panels<CodebookNumbers<4>>;
  k.bf16_bf16 = pair_panels<Bf16Numbers>;
  k.to_bf16 = to_bf16, k.split_floats = split_floats, k.digit_rows = 4;
  return k;
}
