// Weights and x as bf16, for kernels that multiply pairs of them: AVX-512's and AMX's.
//
// A dword holds two k of an output.  Codes of a quad (4 k, a byte each) lie so that its 16-bit words hold k and k + 2: shifted to the lowest
// bits of a word, 32 of them are looked up at once.  So pairs are k, k + 2 and k + 1, k + 3 everywhere: x is put in that order, and plain bf16
// is packed in it.

// Levels of codes of up to 5 bits.  vpermw takes five bits of an index: what a narrow field's neighbours add to it, the table repeats.
template <int Bits> struct PairTable {
  static constexpr int kTileBytes = 64 * Bits, kPer = Bits <= 4 ? 8 / Bits : 1;
  static constexpr bool kZeros = false;
  __m512i levels;
  template <class Value> explicit PairTable(Value&& value) {
    alignas(64) uint16_t all[32];
    for (int c = 0; c < 32; ++c) {
      const float level = value(c & ((1 << Bits) - 1));
      uint32_t word;
      __builtin_memcpy(&word, &level, 4);
      all[c] = static_cast<uint16_t>(word >> 16);
    }
    levels = _mm512_load_si512(all);
  }
  template <int From> ANYBIT_INLINE B look_up(B codes) const {
    return {_mm512_permutexvar_epi16(From ? _mm512_srli_epi16(codes.v, From) : codes.v, levels)};
  }
  template <int Q> ANYBIT_INLINE void quad(const uint8_t* tile, const F&, B* pairs) const {
    constexpr bool kRaw = Bits != 3 && Bits != 5;
    constexpr int kFrom = kRaw ? Q % kPer * Bits : 0;
    const B codes = kRaw ? load(tile + 64 * (Q / kPer)) : codes_quad<Bits, Q>(tile);
    pairs[0] = look_up<kFrom>(codes), pairs[1] = look_up<kFrom + 8>(codes);
  }
};

template <int Bits> struct CodebookPairs : PairTable<Bits> {
  explicit CodebookPairs(const Problem& p) : PairTable<Bits>([&](int c) { return p.table[c]; }) {}
  static float factor(const Problem& p) { return p.factor; }
};

// Integers without zero points.
template <int Bits> struct IntegerPairs : PairTable<Bits> {
  explicit IntegerPairs(const Problem& p) : PairTable<Bits>([&](int c) { return static_cast<float>(c) - common_zero(p); }) {}
  static float factor(const Problem& p) { return IntegerNumbers<Bits>::factor(p); }
};

// Any others, by way of float32.
template <class E> struct NumberPairs : E {
  static constexpr bool kZeros = true;
  using E::E;
  template <int Q> ANYBIT_INLINE void quad(const uint8_t* tile, const F& zero, B* pairs) const {
    F v[4];
    E::template quad<Q>(tile, zero, v);
    const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const __m512i first = _mm512_srli_epi32(_mm512_castps_si512(v[i].v), 16);
      pairs[i] = {_mm512_ternarylogic_epi32(first, _mm512_castps_si512(v[i + 2].v), high, 0xf8)};  // a | (b & c)
    }
  }
};

template <> struct NumberPairs<Bf16Numbers> : Bf16Numbers {
  static constexpr bool kZeros = false;
  using Bf16Numbers::Bf16Numbers;
  template <int Q> ANYBIT_INLINE void quad(const uint8_t* tile, const F&, B* pairs) const {
    pairs[0] = load(tile + 128 * Q), pairs[1] = load(tile + 128 * Q + 64);
  }
};

// The pairs of integers of so many bits where there are no zero points, and of a codebook.
template <class E> struct TablePairsOf { using Type = void; };
template <int Bits>
  requires(Bits <= 5)
struct TablePairsOf<IntegerNumbers<Bits>> { using Type = IntegerPairs<Bits>; };
template <int Bits> struct TablePairsOf<CodebookNumbers<Bits>> { using Type = CodebookPairs<Bits>; };

// body.operator()<P>() with the pairs P of E in this problem.
template <class E, class Body> ANYBIT_INLINE void with_pairs_of(const Problem& p, Body&& body) {
  if constexpr (!std::is_void_v<typename TablePairsOf<E>::Type>) {
    if (!p.zeros) return body.template operator()<typename TablePairsOf<E>::Type>();
  }
  body.template operator()<NumberPairs<E>>();
}

// Slots [begin, end) of a panel as pairs: 16 outputs a vector.  Reads `Ahead` bytes ahead, 0 for not.
template <class P, int Ahead = 0>
__attribute__((noinline)) void bf16_unpack(const Problem& p, const P& of, int64_t panel, int64_t begin, int64_t end, uint8_t* chunk) {
  const uint8_t* tile = p.codes + panel * p.panel_bytes + begin / 32 * P::kTileBytes;
  int64_t group = -1;
  F zero = zero_f();
  for (int64_t k = begin; k < end; k += 32, tile += P::kTileBytes, chunk += 1024) {
    if constexpr (Ahead) {
      for (int line = 0; line < P::kTileBytes; line += 64) prefetch(tile + Ahead + line);
    }
    if constexpr (P::kZeros) {
      if (group != k / p.group) group = k / p.group, zero = load_zeros(p, panel, group);
    }
    each_quad([&]<int Q>() ANYBIT_UNROLLED {
      B pairs[2];
      of.template quad<Q>(tile, zero, pairs);
      store(chunk + 128 * Q, pairs[0]);
      store(chunk + 128 * Q + 64, pairs[1]);
    });
  }
}

// Of numbers that are bf16, in the order of pairs.
void to_bf16(const float* x, int64_t slots, uint16_t* halves) {
  const __m256i order = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
  for (int64_t k = 0; k < slots; k += 16) {
    const __m512i high = _mm512_srli_epi32(_mm512_castps_si512(load_f(x + k).v), 16);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(halves + k), _mm256_shuffle_epi8(_mm512_cvtepi32_epi16(high), order));
  }
}
