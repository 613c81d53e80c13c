// Two rows of x at a time (Armv8.6, FEAT_I8MM): 2 rows times 2 outputs, 8 k each, are one smmla, twice the products of a dot product.  It wants
// the 8 k of an output side by side, which two quads have apart: they are zipped, for a chunk where it is made.  What an odd row is paired with is zero.
constexpr bool kRowPairs = true;

// 16 outputs of 8 k, two outputs a register.
struct QuadPair { int8x16_t v[8]; };

template <int Max> ANYBIT_INLINE QuadPair zipped(const B& first, const B& second) {
  const auto words = [](uint8x16_t b) { return vreinterpretq_u32_u8(Max == 255 ? veorq_u8(b, vdupq_n_u8(128)) : b); };  // as Acc<255> has them
  QuadPair out;
#pragma GCC unroll 4
  for (int h = 0; h < 4; ++h) {
    const uint32x4_t one = words(first.v[h]), other = words(second.v[h]);
    out.v[2 * h] = vreinterpretq_s8_u32(vzip1q_u32(one, other));
    out.v[2 * h + 1] = vreinterpretq_s8_u32(vzip2q_u32(one, other));
  }
  return out;
}

// Quads Q and Q + 1 of panel i: packed, in a chunk, or on the way from one to the other.
template <class U, int Q, class From> ANYBIT_INLINE QuadPair pair_of(const From& from, const typename From::Tile& tile, int i) {
  if constexpr (!From::kInTurn) {
    return zipped<U::kMax>(from.template quad<Q>(tile, i), from.template quad<Q + 1>(tile, i));
  } else if constexpr (requires { from.chunk; }) {
    const uint8_t* packed = tile + i * from.apart;
    const QuadPair made = zipped<U::kMax>(from.w.template quad<Q>(packed), from.w.template quad<Q + 1>(packed));
    auto* to = reinterpret_cast<int8_t*>(from.chunk + i * U::kChunkBytes + 64 * Q);
#pragma GCC unroll 8
    for (int h = 0; h < 8; ++h) vst1q_s8(to + 16 * h, made.v[h]);
    return made;
  } else {
    const auto* at = reinterpret_cast<const int8_t*>(tile + i * U::kChunkBytes + 64 * Q);
    QuadPair out;
#pragma GCC unroll 8
    for (int h = 0; h < 8; ++h) out.v[h] = vld1q_s8(at + 16 * h);
    return out;
  }
}

// The sums of MR rows times NP panels.
template <class U, int NP, int MR> struct RowPairs {
  static constexpr int kPairs = (MR + 1) / 2;
  int32x4_t sum[kPairs * NP][8];  // of rows r and r + 1 and outputs o and o + 1: r o, r o + 1, r + 1 o, r + 1 o + 1

  // first(m): what the sums of row m begin with.
  template <class First> ANYBIT_INLINE explicit RowPairs(First&& first) {
#pragma GCC unroll 8
    for (int pair = 0; pair < kPairs; ++pair) {
      const int32_t one = first(2 * pair), other = 2 * pair + 1 < MR ? first(2 * pair + 1) : 0;
      const int32x4_t both = vcombine_s32(vdup_n_s32(one), vdup_n_s32(other));
#pragma GCC unroll 32
      for (int i = 0; i < NP * 8; ++i) sum[pair * NP + i / 8][i % 8] = both;
    }
  }
  // A tile of 32 k; x is its first number in the first row.
  template <class From> ANYBIT_INLINE void add(const From& from, const int8_t* x, int64_t ldx) {
    const typename From::Tile tile = from.tile();
    each_quad([&]<int Q>() ANYBIT_UNROLLED {
      if constexpr (Q % 2 == 0) {
        QuadPair weights[NP];
#pragma GCC unroll 4
        for (int i = 0; i < NP; ++i) weights[i] = pair_of<U, Q>(from, tile, i);
#pragma GCC unroll 8
        for (int pair = 0; pair < kPairs; ++pair) {
          const int8_t* at = x + 2 * pair * ldx + 4 * Q;
          const int8x16_t rows = vcombine_s8(vld1_s8(at), 2 * pair + 1 < MR ? vld1_s8(at + ldx) : vdup_n_s8(0));
#pragma GCC unroll 32
          for (int i = 0; i < NP * 8; ++i) {
            int32x4_t& to = sum[pair * NP + i / 8][i % 8];
            to = vmmlaq_s32(to, rows, weights[i / 8].v[i % 8]);
          }
        }
      }
    });
  }
  // Of row m and panel i.
  ANYBIT_INLINE I result(int m, int i) const {
    const int32x4_t* of = sum[m / 2 * NP + i];
    ANYBIT_FOUR(I, vcombine_s32(m % 2 ? vget_high_s32(of[2 * h]) : vget_low_s32(of[2 * h]), m % 2 ? vget_high_s32(of[2 * h + 1]) : vget_low_s32(of[2 * h + 1])))
  }
};

double int8_rounds(int64_t rounds) {
  constexpr int kSums = 12;
  alignas(16) int8_t bytes[16];
  for (int i = 0; i < 16; ++i) bytes[i] = static_cast<int8_t>(i - 3);
  int32x4_t sum[kSums];
  const int8x16_t x = vld1q_s8(bytes);
  int8x16_t w = x;
#pragma GCC unroll 12
  for (int m = 0; m < kSums; ++m) sum[m] = vdupq_n_s32(0);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 8
    for (int q = 0; q < 8; ++q) {
      asm volatile("" : "+w"(w));  // else equal products would be made once
#pragma GCC unroll 12
      for (int m = 0; m < kSums; ++m) sum[m] = vmmlaq_s32(sum[m], x, w);
    }
  }
  volatile int32_t sink = 0;
#pragma GCC unroll 12
  for (int m = 0; m < kSums; ++m) sink = vaddvq_s32(sum[m]);
  (void)sink;
  return static_cast<double>(rounds) * 8 * kSums * 32 * 2;
}
