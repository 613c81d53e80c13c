// Weights and x as bf16, for kernels that multiply pairs of them: AVX-512's and AMX's.

// Slots [begin, end) of a panel as pairs of bf16: 16 outputs of k and k + 1 in a vector.  Reads `Ahead` bytes ahead, 0 for not.
template <class E, int Ahead = 0>
__attribute__((noinline)) void bf16_unpack(const Problem& p, const E& e, int64_t panel, int64_t begin, int64_t end, uint8_t* chunk) {
  const uint8_t* tile = p.codes + panel * p.panel_bytes + begin / 32 * E::kTileBytes;
  int64_t group = -1;
  F zero = zero_f();
  for (int64_t k = begin; k < end; k += 32, tile += E::kTileBytes, chunk += 1024) {
    if constexpr (Ahead) {
      for (int line = 0; line < E::kTileBytes; line += 64) prefetch(tile + Ahead + line);
    }
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

// Of numbers that are bf16.
void to_bf16(const float* x, int64_t slots, uint16_t* halves) {
  for (int64_t k = 0; k < slots; k += 16) {
    const __m512i high = _mm512_srli_epi32(_mm512_castps_si512(load_f(x + k).v), 16);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(halves + k), _mm512_cvtepi32_epi16(high));
  }
}
