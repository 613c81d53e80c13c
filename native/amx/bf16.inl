// Weights that bf16 holds exactly times x of bf16, on AMX tiles: 16 rows of x times 16 outputs, 32 k at a time, summed in float32.  A
// block of k is one sum; acc = fma(sum, scale, acc) after it, as in exact.inl, but the order within a block is the tile unit's.

template <class P> constexpr bool kPlainPairs = std::is_same_v<P, NumberPairs<Bf16Numbers>>;  // packed as the tile unit wants it

template <class P> struct Bf16Work {
  static constexpr int kPanels = 2, kTileBytes = P::kTileBytes, kPanelBytes = kTileChunk * 32;
  static constexpr int64_t kXBytes = 2;
  const P of;
  explicit Bf16Work(const Problem& p) : of(p) {}
  static int64_t depth(const Problem&) { return 64; }
  static float factor(const Problem& p, int64_t) { return P::factor(p); }
  const uint8_t* unpack(const Problem& p, int64_t panel, int64_t begin, int64_t end, uint8_t* chunk) const {
    if constexpr (kPlainPairs<P>) {
      return p.codes + panel * p.panel_bytes + begin / 32 * kTileBytes;
    } else {
      bf16_unpack(p, of, panel, begin, end, chunk);
      return chunk;
    }
  }
  template <int NP, int XTiles>
  static __attribute__((noinline)) void micro(const Problem& p, const uint8_t* chunk, int64_t apart, int64_t panel, int64_t begin, int64_t end,
                                              int64_t row, int64_t rows, float* acc, Ahead& ahead) {
    alignas(64) float sums[XTiles * kTileX * 32];
    for (int64_t k = begin; k < end; k += p.block) {
      const int64_t stop = k + p.block < end ? k + p.block : end, stride = 2 * p.ldh;
      const uint16_t* x = p.xhalves + row * p.ldh;
      _tile_zero(0);
      if constexpr (NP > 1) _tile_zero(1);
      if constexpr (XTiles > 1) _tile_zero(2);
      if constexpr (XTiles > 1 && NP > 1) _tile_zero(3);
      for (int64_t t = k; t < stop; t += 32) {
        const uint8_t* w = chunk + (t - begin) * 32;
        _tile_loadd(4, x + t, stride);
        _tile_loadd(6, w, 64);
        _tile_dpbf16ps(0, 4, 6);
        if constexpr (NP > 1) {
          _tile_loadd(7, w + apart, 64);
          _tile_dpbf16ps(1, 4, 7);
        }
        if constexpr (XTiles > 1) {
          _tile_loadd(5, x + kTileX * p.ldh + t, stride);
          _tile_dpbf16ps(2, 5, 6);
          if constexpr (NP > 1) _tile_dpbf16ps(3, 5, 7);
        }
      }
      _tile_stored(0, sums, kSumsStride);
      if constexpr (NP > 1) _tile_stored(1, sums + 16, kSumsStride);
      if constexpr (XTiles > 1) _tile_stored(2, sums + 32 * kTileX, kSumsStride);
      if constexpr (XTiles > 1 && NP > 1) _tile_stored(3, sums + 32 * kTileX + 16, kSumsStride);
      ahead.fetch();
      F scale[NP];
      for (int i = 0; i < NP; ++i) scale[i] = load_scales(p, panel + i, k / p.group);
      for (int64_t m = 0; m < rows; ++m) {
#pragma GCC unroll 2
        for (int i = 0; i < NP; ++i) {
          float* to = acc + 16 * (m * NP + i);
          store_f(to, fma_f(load_f(sums + 32 * m + 16 * i), scale[i], load_f(to)));
        }
      }
    }
  }
};

template <class P> struct Bf16Few {
  static constexpr int kPanels = 2, kTileBytes = P::kTileBytes;
  static constexpr int64_t kXBytes = 2, kSlotBytes = 32, kMostSlots = kTileChunk;
  static constexpr bool kPlain = kPlainPairs<P>;
  const P of;
  explicit Bf16Few(const Problem& p) : of(p) {}
  static int64_t depth(const Problem&) { return 32; }
  static float factor(const Problem& p, int64_t) { return P::factor(p); }
  static const uint8_t* x(const Problem& p) { return reinterpret_cast<const uint8_t*>(p.xhalves); }
  static int64_t x_stride(const Problem& p) { return 2 * p.ldh; }
  static constexpr int streams(int panels) { return panels; }
  void unpack(const Problem& p, int64_t panel, int64_t k, const uint8_t*, int64_t slots, const uint8_t* ahead, uint8_t* chunk, int64_t) const {
    for (int64_t line = 0; line < slots / 32 * kTileBytes; line += 64) prefetch(ahead + line);
    bf16_unpack(p, of, panel, k, k + slots, chunk);
  }
  template <int Sum, int X, int Weights> static ANYBIT_INLINE void multiply() { tile_dot_halves<Sum, X, Weights>(); }
  template <int NP> ANYBIT_INLINE void scale(const Problem& p, int64_t panel, const FewResult& result, float* acc) const {
    F scale[NP];
    for (int i = 0; i < NP; ++i) scale[i] = load_scales(p, panel + i, result.block.group);
    const auto* sums = reinterpret_cast<const float*>(result.sums);
#pragma GCC unroll 4
    for (int64_t m = 0; m < p.m; ++m, sums += 16, acc += 16 * NP) {
#pragma GCC unroll 2
      for (int i = 0; i < NP; ++i) store_f(acc + 16 * i, fma_f(load_f(sums + kTileSums * i), scale[i], load_f(acc + 16 * i)));
    }
  }
};

template <class E> void tile_bf16(const Problem& p, int64_t first, int64_t last) {
  with_pairs_of<E>(p, [&]<class P>() {
    if (p.m <= kTileX / 2) few_panels<Bf16Few<P>>(p, first, last);  // with 16 rows it is the slower one
    else tile_panels<Bf16Work<P>>(p, first, last);
  });
}
