// Weights that bf16 holds exactly times x of bf16, on AMX tiles: 16 rows of x times 16 outputs, 32 k at a time, summed in float32.  A
// block of k is one sum; acc = fma(sum, scale, acc) after it, as in exact.inl, but the order within a block is the tile unit's.

// Slots [begin, end) of a panel as pairs of bf16: 16 outputs of k and k + 1 in a vector.
template <class E>
__attribute__((noinline)) void bf16_unpack(const Problem& p, const E& e, int64_t panel, int64_t begin, int64_t end, uint8_t* chunk) {
  const uint8_t* tile = p.codes + panel * p.panel_bytes + begin / 32 * E::kTileBytes;
  int64_t group = -1;
  F zero = zero_f();
  for (int64_t k = begin; k < end; k += 32, tile += E::kTileBytes, chunk += 1024) {
    if (group != k / p.group) group = k / p.group, zero = load_zeros(p, panel, group);
    each_quad([&]<int Q>() ANYBIT_UNROLLED {
      F v[4];
      e.template quad<Q>(tile, zero, v);
      const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
#pragma GCC unroll 2
      for (int i = 0; i < 4; i += 2) {
        const __m512i even = _mm512_srli_epi32(_mm512_castps_si512(v[i].v), 16);
        store(chunk + 128 * Q + 32 * i, {_mm512_ternarylogic_epi32(even, _mm512_castps_si512(v[i + 1].v), high, 0xf8)});  // a | (b & c)
      }
    });
  }
}

template <class E> struct Bf16Work {
  static constexpr int kPanels = 2, kTileBytes = E::kTileBytes, kPanelBytes = kTileChunk * 32;
  static constexpr int64_t kXBytes = 2;
  const E e;
  explicit Bf16Work(const Problem& p) : e(p) {}
  static int64_t depth(const Problem&) { return 64; }
  static float factor(const Problem& p, int64_t) { return E::factor(p); }
  const uint8_t* unpack(const Problem& p, int64_t panel, int64_t begin, int64_t end, uint8_t* chunk) const {
    if constexpr (std::is_same_v<E, Bf16Numbers>) {
      return p.codes + panel * p.panel_bytes + begin / 32 * kTileBytes;  // packed as the tile unit wants it
    } else {
      bf16_unpack(p, e, panel, begin, end, chunk);
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

void to_bf16(const float* x, int64_t slots, uint16_t* halves) {
  for (int64_t k = 0; k < slots; k += 16) {
    const __m512i high = _mm512_srli_epi32(_mm512_castps_si512(load_f(x + k).v), 16);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(halves + k), _mm512_cvtepi32_epi16(high));
  }
}

template <class E> void tile_bf16(const Problem& p, int64_t first, int64_t last) {
  if constexpr (!std::is_void_v<typename TableOf<E>::Type>) {
    if (!p.zeros) return tile_panels<Bf16Work<typename TableOf<E>::Type>>(p, first, last);
  }
  tile_panels<Bf16Work<E>>(p, first, last);
}
