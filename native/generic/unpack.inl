// Reads of the packed layout drawn in matmul.hpp.  Compiled once per instruction set, inside its namespace.

#ifndef ANYBIT_MOVES_BITS  // in one instruction
// Bits [From, From + P) of each byte at [Pos, Pos + P), zeros elsewhere.
template <int P, int From, int Pos> ANYBIT_INLINE B move_bits(B a) {
  const B mask = splat_b(static_cast<uint8_t>(((1 << P) - 1) << Pos));
  if constexpr (From > Pos) return and_b(shr_b<From - Pos>(a), mask);
  else return and_b(shl_b<Pos - From>(a), mask);
}
#endif

// Tiles of Bits-bit codes of NP panels, each of whose vectors is read once; what reads quads from memory may read one for every quad.
template <int Bits, int NP> struct Lines {
  B line[NP * Bits];
  ANYBIT_INLINE Lines(const uint8_t* tile, int64_t apart) {
#pragma GCC unroll 32
    for (int i = 0; i < NP * Bits; ++i) line[i] = held(load(tile + i / Bits * apart + i % Bits * 64));
  }
};
template <int Bits, int NP> struct LinesOf {
  const Lines<Bits, NP>& all;
  int panel;
};
ANYBIT_INLINE B line_of(const uint8_t* tile, int i) { return load(tile + 64 * i); }
template <int Bits, int NP> ANYBIT_INLINE B line_of(const LinesOf<Bits, NP>& tile, int i) { return tile.all.line[tile.panel * Bits + i]; }

// Fields of P bits of the plane from line `First` on for quad Q, moved to bit `Pos` of each byte.
template <int P, int First, int Pos, int Q, class Tile> ANYBIT_INLINE B field(const Tile& tile) {
  constexpr int kPer = 8 / P, kFrom = Q % kPer * P;
  const B vector = line_of(tile, First + Q / kPer);
  if constexpr (P == 8) return vector;
  else if constexpr (kFrom == Pos) return and_b(vector, splat_b(static_cast<uint8_t>(((1 << P) - 1) << Pos)));
  else return move_bits<P, kFrom, Pos>(vector);
}

// Quad Q (k = 4Q .. 4Q+3 of the tile, all 16 rows) of a tile of Bits-bit codes, each at bit `At` of its byte.
template <int Bits, int Q, int At = 0, class Tile> ANYBIT_INLINE B codes_quad(const Tile& tile) {
  if constexpr (Bits == 1 || Bits == 2 || Bits == 4 || Bits == 8) return field<Bits, 0, At, Q>(tile);
  else if constexpr (Bits == 3) return or_b(field<2, 0, At + 1, Q>(tile), field<1, 2, At, Q>(tile));
  else if constexpr (Bits == 5) return or_b(field<4, 0, At + 1, Q>(tile), field<1, 4, At, Q>(tile));
  else if constexpr (Bits == 6) return or_b(field<4, 0, At + 2, Q>(tile), field<2, 4, At, Q>(tile));
  else return or_b(or_b(field<4, 0, At + 3, Q>(tile), field<2, 4, At + 1, Q>(tile)), field<1, 6, At, Q>(tile));
}

// The bit at which the codes of quad Q, and of every fourth from it, are left: where their widest field lies, unless there is no room below it.
template <int Bits, int Q> constexpr int kPlace = [] {
  constexpr int kWidest = Bits == 3 ? 2 : Bits > 4 && Bits < 8 ? 4 : Bits, kFrom = Q % 4 * kWidest % 8, kBelow = Bits - kWidest;
  return kFrom < kBelow ? 0 : kFrom - kBelow;
}();
// Quad Q times 2^kPlace.
template <int Bits, int Q, class Tile> ANYBIT_INLINE B placed_quad(const Tile& tile) {
  constexpr int kAt = kPlace<Bits, Q>;
  if constexpr (Bits > 1) return codes_quad<Bits, Q, kAt>(tile);
  const B line = line_of(tile, 0);  // of its eight places four, where half of it is moved by the same
  return and_b(Q < 4 ? line : shr_b<4>(line), splat_b(1 << kAt));
}

// What a weight offers the integer kernels: quads of unsigned bytes (or of byte pairs), and how to sum them against x.
constexpr int64_t kChunkSlots = 512;  // unpacked at a time at most: the largest block
constexpr int max_class(int max) { return max <= 15 ? 15 : max <= 31 ? 31 : max <= 63 ? 63 : max <= 127 ? 127 : 255; }

template <int Bits> struct IntegerCodes {
  static constexpr int kBits = Bits, kTileBytes = 64 * Bits, kMax = max_class((1 << Bits) - 1);
  static constexpr bool kWord = false, kPlain = Bits == 8;  // plain: a tile is its quads
  using Quad = B;
  explicit IntegerCodes(const Problem&) {}
  template <int Q, class Tile> ANYBIT_INLINE B quad(const Tile& tile) const { return codes_quad<Bits, Q>(tile); }
};
// Whether sums of codes where they lie (placed) are fewer instructions.
template <class W> constexpr bool kHasPlaces = false;
template <int Bits> constexpr bool kHasPlaces<IntegerCodes<Bits>> = kProductsOfBytes && Bits < 8;

template <int Bits, int Max = 31> struct CodebookBytes {
  static constexpr int kBits = Bits, kTileBytes = 64 * Bits, kMax = Max;
  static constexpr bool kWord = false, kPlain = false;
  using Quad = B;
  B table;
  explicit CodebookBytes(const Problem& p) : table(table16(p.level_bytes)) {}
  template <int Q, class Tile> ANYBIT_INLINE B quad(const Tile& tile) const { return lookup(table, codes_quad<Bits, Q>(tile)); }
};

struct WordQuad { B low, high; };
template <int Bits> struct CodebookWords {
  static constexpr int kBits = Bits, kTileBytes = 64 * Bits, kMax = 0;
  static constexpr bool kWord = true, kPlain = false;
  using Quad = WordQuad;
  Word table;
  explicit CodebookWords(const Problem& p) : table(p.level_words) {}
  template <int Q, class Tile> ANYBIT_INLINE WordQuad digits(const Tile& tile) const {
    const B index = codes_quad<Bits, Q>(tile);
    return {lookup(table.low, index), lookup(table.high, index)};
  }
  template <int Q, class Tile> ANYBIT_INLINE WordQuad quad(const Tile& tile) const {
    WordQuad out = digits<Q>(tile);
    arrange_word(out.low, out.high);
    return out;
  }
};

// A chunk of a panel unpacked by one of the above: 8 quads of 64 bytes a tile (word levels: low digits, and kHighDigits later high ones, or
// what arrange_word() makes of them).
constexpr int kHighDigits = kChunkSlots * 16;
template <int Max> struct UnpackedBytes {
  static constexpr int kTileBytes = 512, kMax = Max, kChunkBytes = kHighDigits;
  static constexpr bool kWord = false;
  using Quad = B;
  template <int Q> ANYBIT_INLINE B quad(const uint8_t* tile) const { return load(tile + 64 * Q); }
};
struct UnpackedWords {
  static constexpr int kTileBytes = 512, kMax = 0, kChunkBytes = 2 * kHighDigits;
  static constexpr bool kWord = true;
  using Quad = WordQuad;
  template <int Q> ANYBIT_INLINE WordQuad quad(const uint8_t* tile) const {
    return {load(tile + 64 * Q), load(tile + kHighDigits + 64 * Q)};
  }
};

#ifdef ANYBIT_WIDENS_CODES
constexpr bool kWidensCodes = true;
#else
constexpr bool kWidensCodes = false;
constexpr void (*widen_codes)(const int8_t* codes, int64_t slots, uint16_t* halves) = nullptr;
#endif
// Whether these weights are multiplied with widened codes of x once they are unpacked.
template <class W> constexpr bool kWide = kWidensCodes && W::kWord;

#ifndef ANYBIT_ZIPS_WORDS
constexpr int kMostZipped = 0;
struct ZippedAcc : WordAcc {};
#endif

template <bool IsWord, int Max> struct UnpackedOf { using Type = UnpackedBytes<Max>; using Accumulator = Acc<Max>; };
template <int Max> struct UnpackedOf<true, Max> { using Type = UnpackedWords; using Accumulator = WordAcc; };

// Calls body.operator()<0>(), ... <7>() one after the other, unrolled.
template <class Body> ANYBIT_INLINE void each_quad(Body&& body) {
  body.template operator()<0>();
  body.template operator()<1>();
  body.template operator()<2>();
  body.template operator()<3>();
  body.template operator()<4>();
  body.template operator()<5>();
  body.template operator()<6>();
  body.template operator()<7>();
}

// Scales of 16 rows of one group.
ANYBIT_INLINE F load_scales(const Problem& p, int64_t panel, int64_t group) {
  const int64_t at = (panel * p.groups + group) * 16;
  switch (p.scale_kind) {
    case kScaleFp16: return load_fp16(p.scales + 2 * at);
    case kScaleBf16: return load_bf16(p.scales + 2 * at);
    case kScaleE8m0: return load_e8m0(p.scales + at);
    case kScaleFp32: return load_f(reinterpret_cast<const float*>(p.scales) + at);
    default: return splat_f(1.0f);
  }
}

// What the kept columns of a row give to a panel: sums of even and odd ones, added.
__attribute__((noinline)) F kept_sum(const Problem& p, int64_t panel, int64_t row) {
  const float* x = p.xkept + row * p.ldkept;
  const auto sum_of = [&](const uint8_t* values, int bytes, auto&& load) ANYBIT_UNROLLED {
    values += panel * p.kept_count * 16 * bytes;
    F even = zero_f(), odd = zero_f();
    int64_t c = 0;
    for (; c + 2 <= p.kept_count; c += 2, values += 32 * bytes) {
      even = fma_f(load(values), splat_f(x[c]), even);
      odd = fma_f(load(values + 16 * bytes), splat_f(x[c + 1]), odd);
    }
    if (c < p.kept_count) even = fma_f(load(values), splat_f(x[c]), even);
    return add_f(even, odd);
  };
  if (p.kept_kind == kScaleBf16) return sum_of(p.kept, 2, [](const uint8_t* at) ANYBIT_UNROLLED { return load_bf16(at); });
  if (p.kept_kind == kScaleFp16) return sum_of(p.kept, 2, [](const uint8_t* at) ANYBIT_UNROLLED { return load_fp16(at); });
  return sum_of(p.kept, 4, [](const uint8_t* at) ANYBIT_UNROLLED { return load_f(reinterpret_cast<const float*>(at)); });
}

// y = acc * factor + kept columns + bias (+ addend) for the columns of one panel that exist, where they belong.  kept: their sum if known.
ANYBIT_INLINE void write_row(const Problem& p, int64_t panel, int64_t row, F acc, float factor, const float* kept = nullptr) {
  const int64_t column = panel * 16;
  float* y = p.y + row * p.ldy;
  acc = mul_f(acc, splat_f(factor));
  if (p.kept) acc = add_f(acc, kept ? load_f(kept) : kept_sum(p, panel, row));
  if (column + 16 <= p.n && !p.places) {
    if (p.bias) acc = add_f(acc, load_f(p.bias + column));
    if (p.addend) acc = add_f(acc, load_f(p.addend + (y - p.y) + column));
    store_f(y + column, acc);
    return;
  }
  alignas(64) float lane[16];
  store_f(lane, acc);
  if (column + 16 <= p.n && !p.bias && !p.addend) {
    const int32_t* place = p.places + column;
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) y[place[i]] = lane[i];
    return;
  }
  const int64_t columns = p.n - column < 16 ? p.n - column : 16;
  for (int64_t i = 0; i < columns; ++i) {
    const int64_t at = p.places ? p.places[column + i] : column + i;
    float value = lane[i];
    if (p.bias) value = value + p.bias[at];
    if (p.addend) value = value + p.addend[y - p.y + at];
    y[at] = value;
  }
}
