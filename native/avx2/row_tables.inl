// One row of fp32 x times numbers of up to 4 bits from tables of bytes: the four k of an output lie side by side, and so do its four chains.
// x is read as it lies, four numbers at once.

template <int Bits, int kBytes> __attribute__((noinline)) void table_row(const Problem& p, const ByteTables<Bits, kBytes>& e, int64_t panel, float factor) {
  constexpr int kTileBytes = 64 * Bits;
  const uint8_t* tile = p.codes + panel * p.panel_bytes;
  F acc = zero_f();
  int64_t group = 0, group_end = p.group;
  for (int64_t k = 0; k < p.slots;) {
    const int64_t end = k + p.block < p.slots ? k + p.block : p.slots;
    if (k >= group_end) ++group, group_end += p.group;
    __m256 c[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) c[i] = _mm256_setzero_ps();
    for (int64_t t = k; t < end; t += 32, tile += kTileBytes) {
      for (int line = 0; line < kTileBytes; line += 64) prefetch(tile + kPrefetch + line);
      each_quad([&]<int Q>() ANYBIT_UNROLLED {
        const B codes = codes_quad<Bits, Q>(tile);
        const __m256 x = _mm256_broadcast_ps(reinterpret_cast<const __m128*>(p.x + t + 4 * Q));
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h) {
          __m256 v[4];
          e.numbers(codes.v[h], v);
#pragma GCC unroll 4
          for (int i = 0; i < 4; ++i) c[4 * h + i] = _mm256_fmadd_ps(v[i], x, c[4 * h + i]);
        }
      });
    }
    F part;
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {  // (c0 + c1) + (c2 + c3) of every output
      part.v[h] = _mm256_hadd_ps(_mm256_hadd_ps(c[4 * h], c[4 * h + 1]), _mm256_hadd_ps(c[4 * h + 2], c[4 * h + 3]));
    }
    acc = fma_f(part, load_scales(p, panel, group), acc);
    k = end;
  }
  write_row(p, panel, 0, acc, factor);
}

// What makes the tables of E's numbers; nothing for those that have none.
template <class E> struct RowTablesOf { using Type = void; };
template <int Bits>
  requires(Bits <= 4)
struct RowTablesOf<IntegerNumbers<Bits>> {
  using Type = ByteTables<Bits, 2>;
  static constexpr bool kZeros = true;  // may have zero points, for which there is no table
  static float value(const Problem& p, int c) { return static_cast<float>(c) - common_zero(p); }
};
template <int Bits> struct RowTablesOf<CodebookNumbers<Bits>> {
  using Type = ByteTables<Bits, 4>;
  static constexpr bool kZeros = false;
  static float value(const Problem& p, int c) { return p.table[c]; }
};

// Whether it has multiplied panels [first, last).
template <class E> ANYBIT_INLINE bool table_rows(const Problem& p, int64_t first, int64_t last) {
  using Of = RowTablesOf<E>;
  if constexpr (!std::is_void_v<typename Of::Type>) {
    if (p.m != 1 || p.one_order || (Of::kZeros && p.zeros)) return false;
    const typename Of::Type tables([&](int c) { return Of::value(p, c); });
    if (!tables.holds) return false;
    for (; first < last; ++first) table_row(p, tables, first, E::factor(p));
    return true;
  }
  return false;
}
