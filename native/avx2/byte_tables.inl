// fp32 numbers of up to 4 bits, made of bytes that are looked up 32 at a time (vpshufb) and zipped twice.

// kBytes: the upper ones of a number that are not zero, 2 for integers (bf16 holds them), 4 for any.
template <int Bits, int kBytes> struct ByteTables {
  __m256i byte[kBytes];  // the highest last
  bool holds = true;     // all of every number
  template <class Value> explicit ByteTables(Value&& value) {
    uint32_t words[16];
    for (int c = 0; c < 16; ++c) {
      const float number = value(c & ((1 << Bits) - 1));
      __builtin_memcpy(words + c, &number, 4);
      if constexpr (kBytes == 2) holds = holds && (words[c] & 0xffff) == 0;
    }
#pragma GCC unroll 4
    for (int b = 0; b < kBytes; ++b) {
      alignas(16) uint8_t of[16];
      for (int c = 0; c < 16; ++c) of[c] = static_cast<uint8_t>(words[c] >> (8 * (4 - kBytes + b)));
      byte[b] = table16(of).v[0];
    }
  }
  // Of the four codes in every four bytes: those of bytes 0 to 3 and 16 to 19, of 4 to 7 and 20 to 23, ...
  ANYBIT_INLINE void numbers(__m256i codes, __m256* out) const {
    const auto of = [&](int b) ANYBIT_UNROLLED { return _mm256_shuffle_epi8(byte[b], codes); };
    const auto zipped = [](__m256i low, __m256i high, __m256* to) ANYBIT_UNROLLED {
      to[0] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(low, high)), to[1] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(low, high));
    };
    const __m256i one = of(kBytes - 2), other = of(kBytes - 1);
    const __m256i first = _mm256_unpacklo_epi8(one, other), last = _mm256_unpackhi_epi8(one, other);
    if constexpr (kBytes == 2) {
      const __m256i none = _mm256_setzero_si256();
      zipped(none, first, out), zipped(none, last, out + 2);
    } else {
      const __m256i low = of(0), next = of(1);
      zipped(_mm256_unpacklo_epi8(low, next), first, out), zipped(_mm256_unpackhi_epi8(low, next), last, out + 2);
    }
  }
};

// TableNumbers (exact.inl). An output's four k lie side by side; its numbers want the outputs of one k so.
template <int Bits> struct TableNumbers {
  static constexpr int kTileBytes = 64 * Bits;
  ByteTables<Bits, 4> tables;
  template <class Value> explicit TableNumbers(Value&& value) : tables(value) {}
  template <int Q> ANYBIT_INLINE void quad(const uint8_t* tile, const F&, F* v) const {
    const __m256i order = _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const B codes = codes_quad<Bits, Q>(tile);
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      __m256 of[4];
      tables.numbers(_mm256_shuffle_epi8(codes.v[h], order), of);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) v[j].v[h] = of[j];
    }
  }
};
