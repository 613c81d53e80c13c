// Products of integers of 16 bits on tiles: digits of eight bits, the upper signed and the lower not, times each other,
//
//   sum w x = 2^16 sum wh xh + 2^8 (sum wl xh + sum wh xl) + sum wl xl
//
// are four products of tiles for one, each with a sum of its own, so that none waits for the one before; a tile multiplies 16 times as many
// numbers a cycle as a vector of pairs.  No sum of kWordBlock slots overflows, and the whole is rounded once, as in int16.inl.
//
// Eight tiles: the sums in the order above; the upper and lower digits of x, of weights.

constexpr int64_t kDigitChunk = 1024;  // slots of a panel whose digits are set apart at a time: 32 KiB, in L1
constexpr int64_t kDigitPass = 256;    // rows a pass over the weights

// Upper digits of words go to the first half of their place, lower ones to `low`.
void split_words(int16_t* words, int64_t slots, int8_t* low) {
  auto* high = reinterpret_cast<int8_t*>(words);
  for (int64_t k = 0; k < slots; k += 32) {
    const __m512i both = _mm512_loadu_si512(words + k);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(low + k), _mm512_cvtepi16_epi8(both));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(high + k), _mm512_cvtepi16_epi8(_mm512_srli_epi16(both, 8)));
  }
}

// Pairs of k become quads of their digits: what the rows of a tile are.
__attribute__((noinline)) void split_weights(const uint8_t* pairs, int64_t slots, uint8_t* high, uint8_t* low) {
  const __m512i by_digit = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15));
  for (int64_t k = 0; k < slots; k += 4, pairs += 128) {
    const __m512i a = _mm512_shuffle_epi8(_mm512_load_si512(pairs), by_digit), b = _mm512_shuffle_epi8(_mm512_load_si512(pairs + 64), by_digit);
    const __mmask32 second = 0xaaaaaaaa;  // of the halves of a dword
    _mm512_store_si512(low + 16 * k, _mm512_mask_blend_epi16(second, a, _mm512_slli_epi32(b, 16)));
    _mm512_store_si512(high + 16 * k, _mm512_mask_blend_epi16(second, _mm512_srli_epi32(a, 16), b));
  }
}

// Slots of a block that lie in a chunk, times one tile of rows of x; sums[rows][4][16] go on from the chunk before, or begin.
ANYBIT_INLINE void digit_dots(const uint8_t* high, const uint8_t* low, int64_t slots, int64_t depth, const int8_t* xhigh, int64_t ldh,
                              const int8_t* xlow, int64_t ldl, bool begin, int32_t* sums) {
  constexpr int kStride = 4 * 64;
  if (begin) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, sums, kStride);
    _tile_loadd(1, sums + 16, kStride);
    _tile_loadd(2, sums + 32, kStride);
    _tile_loadd(3, sums + 48, kStride);
  }
  for (int64_t t = 0; t < slots; t += depth) {
    _tile_loadd(4, xhigh + t, ldh);
    _tile_loadd(6, high + 16 * t, 64);
    _tile_dpbssd(0, 4, 6);
    _tile_loadd(7, low + 16 * t, 64);
    _tile_dpbsud(1, 4, 7);
    _tile_loadd(5, xlow + t, ldl);
    _tile_dpbusd(2, 5, 6);
    _tile_dpbuud(3, 5, 7);
  }
  _tile_stored(0, sums, kStride);
  _tile_stored(1, sums + 16, kStride);
  _tile_stored(2, sums + 32, kStride);
  _tile_stored(3, sums + 48, kStride);
}

// The number nearest to the sum of four sums of products of digits.
ANYBIT_INLINE F joined_digits(const int32_t* sums) {
  const __m512i upper = _mm512_load_si512(sums), lower = _mm512_load_si512(sums + 48);
  const __m512i middle = _mm512_add_epi32(_mm512_load_si512(sums + 16), _mm512_load_si512(sums + 32));
  const auto half = [](__m256i u, __m256i m, __m256i l) ANYBIT_UNROLLED {
    const __m512d rest = _mm512_fmadd_pd(_mm512_cvtepi32_pd(m), _mm512_set1_pd(256.0), _mm512_cvtepi32_pd(l));
    return _mm512_cvtpd_ps(_mm512_fmadd_pd(_mm512_cvtepi32_pd(u), _mm512_set1_pd(65536.0), rest));
  };
  const __m256 a = half(_mm512_castsi512_si256(upper), _mm512_castsi512_si256(middle), _mm512_castsi512_si256(lower));
  const __m256 b = half(_mm512_extracti64x4_epi64(upper, 1), _mm512_extracti64x4_epi64(middle, 1), _mm512_extracti64x4_epi64(lower, 1));
  return {_mm512_castpd_ps(_mm512_insertf64x4(_mm512_castpd256_pd512(_mm256_castps_pd(a)), _mm256_castps_pd(b), 1))};
}

// Slots [begin, end) of a panel, whose digits are set apart, times a tile of rows.
__attribute__((noinline)) void digit_micro(const Problem& p, const uint8_t* high, const uint8_t* low, int64_t panel, int64_t begin, int64_t end,
                                           int64_t depth, int64_t row, int64_t rows, int32_t* sums, float* acc) {
  const auto* xhigh = reinterpret_cast<const int8_t*>(p.xhalves + row * p.ldh);
  const int8_t* xlow = p.xcodes + row * p.ldc;
  for (int64_t k = begin; k < end;) {
    const int64_t whole = (k / p.block + 1) * p.block, stop = whole < end ? whole : end;
    const int64_t at = 16 * (k - begin);
    digit_dots(high + at, low + at, stop - k, depth, xhigh + k, 2 * p.ldh, xlow + k, p.ldc, k % p.block == 0, sums);
    if (stop == whole || stop == p.slots) {
      const F scale = load_scales(p, panel, k / p.group);
      for (int64_t m = 0; m < rows; ++m) {
        const F xscale = splat_f(p.xgroups > 1 ? p.xscales[(row + m) * p.xgroups + k / p.xgroup] : 1.0f);
        store_f(acc + 16 * m, fma_f(mul_f(joined_digits(sums + 64 * m), xscale), scale, load_f(acc + 16 * m)));
      }
    }
    k = stop;
  }
}

void tile_int16(const Problem& p, int64_t first, int64_t last) {
  if (p.m < kFewestSplit) return avx512::kMatmulKernels.int16(p, first, last);
  alignas(64) uint8_t high[16 * kDigitChunk], low[16 * kDigitChunk];
  alignas(64) int32_t sums[kDigitPass * 64];
  alignas(64) float acc[2][kDigitPass * 16];  // of two panels, which are written together: every row lies on a page of its own
  const int64_t depth = ((p.block | p.slots) & 63) == 0 ? 64 : 32;
  Tiles tiles;
  for (int64_t row = 0; row < p.m; row += kDigitPass) {
    const int64_t rows = row + kDigitPass < p.m ? kDigitPass : p.m - row;
    for (int64_t panel = first; panel < last; ++panel) {
      const bool second = (panel - first) % 2 != 0;
      for (int64_t i = 0; i < rows; ++i) store_f(acc[second] + 16 * i, zero_f());
      for (int64_t k = 0; k < p.slots; k += kDigitChunk) {
        const int64_t end = k + kDigitChunk < p.slots ? k + kDigitChunk : p.slots;
        split_weights(p.codes + panel * p.panel_bytes + 32 * k, end - k, high, low);
        if (end == p.slots && !second) prefetch_results(p, panel, panel + 1 < last ? 2 : 1, row, rows);
        for (int64_t i = 0; i < rows; i += kTileX) {
          const int64_t count = rows - i < kTileX ? rows - i : kTileX;
          tiles.shape_two(count, count, depth);
          digit_micro(p, high, low, panel, k, end, depth, row + i, count, sums + 64 * i, acc[second] + 16 * i);
        }
      }
      if (!second && panel + 1 < last) continue;
      for (int64_t i = 0; i < rows; ++i) {
        for (int j = 0; j <= second; ++j) write_row(p, panel - second + j, row + i, load_f(acc[j] + 16 * i), int8_factor(p, row + i));
      }
    }
  }
}
