// fp32 activations as they are: weights become fp32 in registers.  Compiled once per instruction set, inside its namespace.
//
// Fixed order of operations.  One row of x: within a k-block four chains, k mod 4, of fma; (c0 + c1) + (c2 + c3); then
// acc = fma(part, scale, acc).  Several rows: one chain over the block, then the same.  The two differ in the last bits,
// unless the problem asks for one order.  A tree has that order within a leaf, whose sum starts anew, and adds leaves pairwise.

constexpr int64_t kExactChunk = 256;  // most slots of a panel that are made fp32 at a time, 16 KiB: any block, a leaf of a tree
constexpr int64_t kStripSlots = 128;  // that many where blocks are no longer, so that those of several panels stay in the nearest cache
constexpr int64_t kExactMostRows = 96;
constexpr int kTreeLevels = 32;  // more than any row has

// Sums of a binary tree that is built leaf by leaf: bit l of `leaves` says that a sum of 2^l leaves waits at level l.  A new leaf belongs at
// place(); join() then adds to it what waits below, the older sum first.
struct TreeCounter {
  uint64_t leaves = 0;
  int place() const { return __builtin_ctzll(~leaves); }
  template <class Add> ANYBIT_INLINE void join(Add add) {
    const int to = place();
    for (int l = 0; l < to; ++l) add(l, to);
    ++leaves;
  }
  // Where the sum of all is, after what waits has been added from the youngest on.
  template <class Add> ANYBIT_INLINE int finish(Add add) const {
    const int to = __builtin_ctzll(leaves);
    for (int l = to + 1; l < kTreeLevels; ++l) {
      if (leaves >> l & 1) add(l, to);
    }
    return to;
  }
};

// What is taken off every code of a weight without zero points, in units of the step.
ANYBIT_INLINE float common_zero(const Problem& p) { return static_cast<float>(-p.lowest) / static_cast<float>(1 << p.step_shift); }

// Kinds of numbers have quad<Q>(tile, zero, v): the four k of quad Q.  Those that also say what they read for it (codes), and what number J
// is, can have theirs used one by one (each_number).
template <int Bits> struct IntegerNumbers {
  static constexpr int kTileBytes = 64 * Bits;
  explicit IntegerNumbers(const Problem&) {}
  static float factor(const Problem& p) { return p.factor * static_cast<float>(1 << p.step_shift); }
  template <int Q> ANYBIT_INLINE B codes(const uint8_t* tile) const { return codes_quad<Bits, Q>(tile); }
  template <int Q, int J> ANYBIT_INLINE F number(const B& codes, const F& zero) const { return sub_f(to_f(byte<J>(codes)), zero); }
  template <int Q> ANYBIT_INLINE void quad(const uint8_t* tile, const F& zero, F* v) const {
    const B all = codes<Q>(tile);
    v[0] = number<Q, 0>(all, zero), v[1] = number<Q, 1>(all, zero), v[2] = number<Q, 2>(all, zero), v[3] = number<Q, 3>(all, zero);
  }
};

#ifdef ANYBIT_BYTE_TABLES
#include "avx2/byte_tables.inl"
#else
// Values of up to 4 bits from a table of 16 floats.  Where a look-up takes the low four bits of a dword and no others (kRawLookup), a
// plane is looked up as it is, shifted but not masked: what a narrow field's neighbours add to the index, the table repeats.
template <int Bits> struct TableNumbers {
  static constexpr int kTileBytes = 64 * Bits, kPer = 8 / Bits;
  T table;
  template <class Value> explicit TableNumbers(Value&& value) {
    alignas(64) float all[16];
    for (int c = 0; c < 16; ++c) all[c] = value(c & ((1 << Bits) - 1));
    table = table_f(all);
  }
  template <int Q> ANYBIT_INLINE void quad(const uint8_t* tile, const F&, F* v) const {
    if constexpr (kRawLookup && Bits != 3) {
      constexpr int kFrom = Q % kPer * Bits;
      const B raw = load(tile + 64 * (Q / kPer));
      v[0] = lookup_raw<kFrom>(table, raw), v[1] = lookup_raw<kFrom + 8>(table, raw);
      v[2] = lookup_raw<kFrom + 16>(table, raw), v[3] = lookup_raw<kFrom + 24>(table, raw);
    } else {
      const B codes = codes_quad<Bits, Q>(tile);
      if constexpr (kRawLookup) {
        v[0] = lookup_raw<0>(table, codes), v[1] = lookup_raw<8>(table, codes);
        v[2] = lookup_raw<16>(table, codes), v[3] = lookup_raw<24>(table, codes);
      } else {
        v[0] = lookup_f(table, byte<0>(codes)), v[1] = lookup_f(table, byte<1>(codes));
        v[2] = lookup_f(table, byte<2>(codes)), v[3] = lookup_f(table, byte<3>(codes));
      }
    }
  }
};
#endif

template <int Bits> struct CodebookNumbers : TableNumbers<Bits> {
  explicit CodebookNumbers(const Problem& p) : TableNumbers<Bits>([&](int c) { return p.table[c]; }) {}
  static float factor(const Problem& p) { return p.factor; }
};

// Integers of up to 4 bits without zero points: code - zero is exact, so a table of them gives the bits that subtraction gives.
template <int Bits> struct IntegerTable : TableNumbers<Bits> {
  explicit IntegerTable(const Problem& p) : TableNumbers<Bits>([&](int c) { return static_cast<float>(c) - common_zero(p); }) {}
  static float factor(const Problem& p) { return IntegerNumbers<Bits>::factor(p); }
};

// More bits without zero points: or-ed below the exponent of 2^(23 - P), the field at bit P is 2^(23 - P) + code, from which taking
// 2^(23 - P) + zero is exact and gives the same bits.  P is not 0, because a zero point may be half of an odd number.  Fewer bits lie at
// more places, whose constants cost more than the look-ups.
template <int Bits> struct IntegerFields {
  static constexpr int kTileBytes = 64 * Bits, kExponent = 23;
  static constexpr int64_t kMostRows = 3;  // of x: with more registers run out
  float less[kExponent];  // by P
  explicit IntegerFields(const Problem& p) {
    for (int at = 0; at < kExponent; ++at) less[at] = static_cast<float>(1 << (kExponent - at)) + common_zero(p);
  }
  static float factor(const Problem& p) { return IntegerNumbers<Bits>::factor(p); }
  template <int P> ANYBIT_INLINE F at(const B& codes) const { return sub_f(field_f<P, Bits>(codes), splat_f(less[P])); }
  template <int Q> ANYBIT_INLINE void quad(const uint8_t* tile, const F&, F* v) const {
    const B codes = codes_quad<Bits, Q>(tile), upper = shr_d<15>(codes);
    v[0] = at<1>(shl_d<1>(codes)), v[1] = at<8>(codes), v[3] = at<9>(upper);
    if constexpr (Bits < 8) v[2] = at<16>(codes);
    else v[2] = at<1>(upper);
  }
};

// bf16, int16: vectors of 16 rows x 2 k, a dword a row; of bf16 k and k + 2.  fp16, fp32: 16 rows of one k after the other.
struct Bf16Numbers {
  static constexpr int kTileBytes = 1024;
  explicit Bf16Numbers(const Problem&) {}
  static float factor(const Problem& p) { return p.factor; }
  template <int Q> ANYBIT_INLINE void quad(const uint8_t* tile, const F&, F* v) const {
    const B a = load(tile + 128 * Q), b = load(tile + 128 * Q + 64);
    v[0] = bf16_even(a), v[1] = bf16_even(b), v[2] = bf16_odd(a), v[3] = bf16_odd(b);
  }
};
struct Int16Numbers {
  static constexpr int kTileBytes = 1024;
  explicit Int16Numbers(const Problem&) {}
  static float factor(const Problem& p) { return p.factor; }
  template <int Q> ANYBIT_INLINE void quad(const uint8_t* tile, const F&, F* v) const {
    const B a = load(tile + 128 * Q), b = load(tile + 128 * Q + 64);
    v[0] = to_f(s16_even(a)), v[1] = to_f(s16_odd(a)), v[2] = to_f(s16_even(b)), v[3] = to_f(s16_odd(b));
  }
};
struct Fp16Numbers {
  static constexpr int kTileBytes = 1024;
  explicit Fp16Numbers(const Problem&) {}
  static float factor(const Problem& p) { return p.factor; }
  template <int Q> ANYBIT_INLINE void quad(const uint8_t* tile, const F&, F* v) const {
#pragma GCC unroll 16
    for (int j = 0; j < 4; ++j) v[j] = load_fp16(tile + 128 * Q + 32 * j);
  }
};
struct Fp32Numbers {
  static constexpr int kTileBytes = 2048;
  explicit Fp32Numbers(const Problem&) {}
  static float factor(const Problem& p) { return p.factor; }
  template <int Q> ANYBIT_INLINE void quad(const uint8_t* tile, const F&, F* v) const {
#pragma GCC unroll 16
    for (int j = 0; j < 4; ++j) v[j] = load_f(reinterpret_cast<const float*>(tile) + 64 * Q + 16 * j);
  }
};

// body.operator()<J>(number) for the four numbers of quad Q, of which `Rows` rows make use: where registers are few, one is used before the
// next is made.
template <int Q, int Rows, class E, class Body> ANYBIT_INLINE void each_number(const E& e, const uint8_t* tile, const F& zero, Body&& body) {
  if constexpr (kFewRegisters && requires { e.template codes<Q>(tile); }) {
    const B codes = e.template codes<Q>(tile);
    body.template operator()<0>(e.template number<Q, 0>(codes, zero));
    body.template operator()<1>(e.template number<Q, 1>(codes, zero));
    body.template operator()<2>(e.template number<Q, 2>(codes, zero));
    body.template operator()<3>(e.template number<Q, 3>(codes, zero));
  } else {
    F v[4];
    e.template quad<Q>(tile, zero, v);
    body.template operator()<0>(v[0]);
    body.template operator()<1>(v[1]);
    body.template operator()<2>(v[2]);
    body.template operator()<3>(v[3]);
  }
}

// Zero points of a group in units of the step.
ANYBIT_INLINE F load_zeros(const Problem& p, int64_t panel, int64_t group) {
  if (p.zeros) return to_f(load_u8(p.zeros + (panel * p.groups + group) * 16));
  return splat_f(common_zero(p));
}

template <class E> __attribute__((noinline)) void exact_row(const Problem& p, const E& e, int64_t panel) {
  const uint8_t* tile = p.codes + panel * p.panel_bytes;
  F acc = zero_f();
  int64_t group = 0, group_end = p.group;
  for (int64_t k = 0; k < p.slots;) {
    const int64_t end = k + p.block < p.slots ? k + p.block : p.slots;
    if (k >= group_end) ++group, group_end += p.group;
    const F zero = load_zeros(p, panel, group);
    F c[4] = {zero_f(), zero_f(), zero_f(), zero_f()};
    for (int64_t t = k; t < end; t += 32, tile += E::kTileBytes) {
      for (int line = 0; line < E::kTileBytes; line += 64) prefetch(tile + kPrefetch + line);
      each_quad([&]<int Q>() ANYBIT_UNROLLED {
        each_number<Q, 1>(e, tile, zero, [&]<int J>(const F& v) ANYBIT_UNROLLED { c[J] = fma_f(v, splat_f(p.x[t + 4 * Q + J]), c[J]); });
      });
    }
    acc = fma_f(add_f(add_f(c[0], c[1]), add_f(c[2], c[3])), load_scales(p, panel, group), acc);
    k = end;
  }
  write_row(p, panel, 0, acc, E::factor(p));
}

// acc[MR][NP][16] += slots [k0, k1) of NP panels times MR rows of x: within a block body(k, end, group, part) adds to part[MR][NP].
template <int MR, int NP, class Body>
ANYBIT_INLINE void exact_blocks(const Problem& p, int64_t panel, int64_t k0, int64_t k1, float* acc, Body&& body) {
  int64_t group = k0 / p.group, group_end = (group + 1) * p.group;
  for (int64_t k = k0; k < k1;) {
    const int64_t end = k + p.block < k1 ? k + p.block : k1;
    if (k >= group_end) ++group, group_end += p.group;
    F part[MR * NP];
#pragma GCC unroll 32
    for (int i = 0; i < MR * NP; ++i) part[i] = zero_f();
    body(k, end, group, part);
    F scale[NP];
#pragma GCC unroll 4
    for (int i = 0; i < NP; ++i) scale[i] = load_scales(p, panel + i, group);
#pragma GCC unroll 32
    for (int i = 0; i < MR * NP; ++i) store_f(acc + 16 * i, fma_f(part[i], scale[i % NP], load_f(acc + 16 * i)));
    k = end;
  }
}

// The same from slots made fp32 before, of panel i at chunk + 16 * kExactChunk * i.
template <int NP, int MR>
__attribute__((noinline)) void exact_micro(const Problem& p, const float* chunk, int64_t panel, int64_t k0, int64_t k1, int64_t row,
                                           float* acc) {
  const float* x = p.x + row * p.ldx;
  exact_blocks<MR, NP>(p, panel, k0, k1, acc, [&](int64_t k, int64_t end, int64_t, F* part) ANYBIT_UNROLLED {
    for (; k < end; ++k, chunk += 16) {
      F w[NP];
#pragma GCC unroll 4
      for (int i = 0; i < NP; ++i) w[i] = load_f(chunk + 16 * kExactChunk * i);
#pragma GCC unroll 16
      for (int m = 0; m < MR; ++m) {
        const F number = splat_f(x[m * p.ldx + k]);
#pragma GCC unroll 4
        for (int i = 0; i < NP; ++i) part[m * NP + i] = fma_f(w[i], number, part[m * NP + i]);
      }
    }
  });
}

// How many of so many rows are multiplied at a time; of those that are left then, no more.  A sum is a chain of fmas, so that where six rows
// fit, fewer than four take as long as four do: none to three are not left over.
constexpr bool kSixRows = kExactRows == 6;
constexpr int exact_tile(int64_t rows) {
  if (!kSixRows) {
    int tile = kExactRows;
    while (tile > rows) tile = smaller_tile(tile);
    return tile;
  }
  for (int tile = 6; tile > 4; --tile) {
    const int64_t left = rows - tile;
    if (left == 0 || (left >= 4 && left != 7)) return tile;
  }
  return rows < 4 ? static_cast<int>(rows) : 4;
}
static_assert([] {
  for (int64_t rows = 2; rows <= kExactMostRows; ++rows) {
    const int64_t left = rows - exact_tile(rows);
    if (left > 0 && exact_tile(left) > exact_tile(rows)) return false;
  }
  return true;
}());

template <int NP, int MR>
ANYBIT_INLINE void exact_micro_rows(const Problem& p, const float* chunk, int64_t panel, int64_t k0, int64_t k1, int64_t row, int64_t rows,
                                    float* acc) {
  if constexpr (exact_tile(MR) == MR) {
    for (; rows > 0 && exact_tile(rows) == MR; rows -= MR, row += MR, acc += 16 * NP * MR) exact_micro<NP, MR>(p, chunk, panel, k0, k1, row, acc);
  }
  if constexpr (MR > 1) exact_micro_rows<NP, MR - 1>(p, chunk, panel, k0, k1, row, rows, acc);
}

// The same from packed tiles, a panel's numbers after the other's: the processor finds the products of the next while one waits.  Where
// there are further rows (kKeep), the chunk is made on the way.
template <class E, int NP, int MR, bool kKeep>
__attribute__((noinline)) void exact_fused(const Problem& p, const E& e, int64_t panel, int64_t k0, int64_t k1, int64_t row, float* chunk,
                                           float* acc) {
  const int64_t ldx = p.ldx;  // in a register: a chunk that is stored might be its place
  const float* x = p.x + row * ldx;
  const uint8_t *tile = p.codes + panel * p.panel_bytes + k0 / 32 * E::kTileBytes, *last = p.codes + (panel + 1) * p.panel_bytes;
  exact_blocks<MR, NP>(p, panel, k0, k1, acc, [&](int64_t k, int64_t end, int64_t group, F* part) ANYBIT_UNROLLED {
    F zero[NP];
#pragma GCC unroll 4
    for (int i = 0; i < NP; ++i) zero[i] = load_zeros(p, panel + i, group);
    for (; k < end; k += 32, tile += E::kTileBytes, chunk += 512) {
      prefetch_tile<E::kTileBytes, NP>(tile + kPrefetch, last, p.panel_bytes);
      each_quad([&]<int Q>() ANYBIT_UNROLLED {
#pragma GCC unroll 4
        for (int i = 0; i < NP; ++i) {
          each_number<Q, MR>(e, tile + i * p.panel_bytes, zero[i], [&]<int J>(const F& v) ANYBIT_UNROLLED {
            if constexpr (kKeep) store_f(chunk + 16 * (kExactChunk * i + 4 * Q + J), v);
#pragma GCC unroll 16
            for (int m = 0; m < MR; ++m) part[m * NP + i] = fma_f(v, splat_f(x[m * ldx + k + 4 * Q + J]), part[m * NP + i]);
          });
        }
      });
    }
  });
}

// Slots [k0, k1) of a panel as fp32 without scales, k by k.
template <class E> __attribute__((noinline)) void exact_unpack(const Problem& p, const E& e, int64_t panel, int64_t k0, int64_t k1, float* chunk) {
  const uint8_t* tile = p.codes + panel * p.panel_bytes + k0 / 32 * E::kTileBytes;
  int64_t group = k0 / p.group, group_end = (group + 1) * p.group;
  F zero = load_zeros(p, panel, group);
  for (int64_t k = k0; k < k1; k += 32, tile += E::kTileBytes, chunk += 512) {
    if (k >= group_end) ++group, group_end += p.group, zero = load_zeros(p, panel, group);
    each_quad([&]<int Q>() ANYBIT_UNROLLED {
      F v[4];
      e.template quad<Q>(tile, zero, v);
#pragma GCC unroll 16
      for (int j = 0; j < 4; ++j) store_f(chunk + 64 * Q + 16 * j, v[j]);
    });
  }
}

// One row of x in the order that several rows have: one chain a panel, so four panels at a time hide its latency.
template <class E, int Panels> __attribute__((noinline)) void exact_row_chain(const Problem& p, const E& e, int64_t panel) {
  const uint8_t* tile[Panels];
  F acc[Panels];
#pragma GCC unroll 16
  for (int i = 0; i < Panels; ++i) {
    tile[i] = p.codes + (panel + i) * p.panel_bytes + p.begin / 32 * E::kTileBytes, acc[i] = zero_f();
  }
  F waiting[kTreeLevels][Panels];
  TreeCounter tree;
  const auto add = [&](int from, int to) {
    for (int i = 0; i < Panels; ++i) waiting[to][i] = add_f(waiting[from][i], waiting[to][i]);
  };
  int64_t group = p.begin / p.group, group_end = (group + 1) * p.group;
  for (int64_t k = p.begin; k < p.slots;) {
    const int64_t end = k + p.block < p.slots ? k + p.block : p.slots;
    if (k >= group_end) ++group, group_end += p.group;
    F zero[Panels], part[Panels];
#pragma GCC unroll 16
    for (int i = 0; i < Panels; ++i) zero[i] = load_zeros(p, panel + i, group), part[i] = zero_f();
    for (int64_t t = k; t < end; t += 32) {
      each_quad([&]<int Q>() ANYBIT_UNROLLED {
        F v[Panels][4];
#pragma GCC unroll 16
        for (int i = 0; i < Panels; ++i) e.template quad<Q>(tile[i], zero[i], v[i]);
#pragma GCC unroll 16
        for (int j = 0; j < 4; ++j) {
          const F x = splat_f(p.x[t + 4 * Q + j]);
#pragma GCC unroll 16
          for (int i = 0; i < Panels; ++i) part[i] = fma_f(v[i][j], x, part[i]);
        }
      });
#pragma GCC unroll 16
      for (int i = 0; i < Panels; ++i) tile[i] += E::kTileBytes;
    }
#pragma GCC unroll 16
    for (int i = 0; i < Panels; ++i) acc[i] = fma_f(part[i], load_scales(p, panel + i, group), acc[i]);
    k = end;
    if (p.tree && (k % kTreeLeaf == 0 || k == p.slots)) {
      for (int i = 0; i < Panels; ++i) waiting[tree.place()][i] = acc[i], acc[i] = zero_f();
      tree.join(add);
    }
  }
  if (p.tree) {
    const int all = tree.finish(add);
    for (int i = 0; i < Panels; ++i) acc[i] = waiting[all][i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < Panels; ++i) write_row(p, panel + i, 0, acc[i], E::factor(p));
}

// Rows of x in a tree over k, as many at a time as fit; a leaf is one chunk.
template <class E> __attribute__((noinline)) void exact_tree_rows(const Problem& p, const E& e, int64_t panel, int64_t row, int64_t rows) {
  static_assert(kExactChunk == kTreeLeaf);
  alignas(64) float chunk[kExactChunk * 16];
  alignas(64) float waiting[kTreeLevels][kExactMostRows * 16];
  TreeCounter tree;
  const auto add = [&](int from, int to) {
    for (int64_t i = 0; i < 16 * rows; i += 16) store_f(waiting[to] + i, add_f(load_f(waiting[from] + i), load_f(waiting[to] + i)));
  };
  for (int64_t k = p.begin; k < p.slots; k += kTreeLeaf) {
    const int64_t end = k + kTreeLeaf < p.slots ? k + kTreeLeaf : p.slots;
    float* leaf = waiting[tree.place()];
    for (int64_t i = 0; i < rows; ++i) store_f(leaf + 16 * i, zero_f());
    exact_unpack(p, e, panel, k, end, chunk);
    exact_micro_rows<1, kExactRows>(p, chunk, panel, k, end, row, rows, leaf);
    tree.join(add);
  }
  const float* sum = waiting[tree.finish(add)];
  for (int64_t i = 0; i < rows; ++i) write_row(p, panel, row + i, load_f(sum + 16 * i), E::factor(p));
}

static_assert(kExactPanels == 1 || kExactPanels == kExactTogether);
static_assert(kExactFused == 1 || kExactFused == 3 || kExactFused == 4 || (kExactFused == 8 && kExactRows == 8), "as exact_strip dispatches");

// How many of so many rows are multiplied with numbers on their way to the chunk; 0 for one, and where that takes too many registers.
constexpr int64_t fused_rows(int64_t rows) {
  if (kSixRows && exact_tile(rows) == rows && rows > 4) return 0;
  const int64_t most = rows >= kExactRows && !kSixRows ? kExactRows : rows >= 4 ? 4 : rows;
  return most > 1 && most <= kExactFused ? most : 0;
}

// Rows of x up to which such numbers are asked for.
template <class E> constexpr int64_t most_rows() {
  if constexpr (requires { E::kMostRows; }) return E::kMostRows;
  else return INT64_MAX;
}

// Rows [row, row + rows) times NP panels from `panel` on.
template <class E, int NP>
__attribute__((noinline)) void exact_strip(const Problem& p, const E& e, int64_t panel, int64_t row, int64_t rows, float* acc) {
  alignas(64) float chunk[NP * kExactChunk * 16];
  const int64_t step = chunk_step(p, kStripSlots), done = fused_rows(rows);
  for (int64_t i = 0; i < rows * NP; ++i) store_f(acc + 16 * i, zero_f());
  for (int64_t k = 0; k < p.slots; k += step) {
    const int64_t end = k + step < p.slots ? k + step : p.slots;
    if constexpr (kExactFused >= 3) {
      if (done == 2) exact_fused<E, NP, 2, false>(p, e, panel, k, end, row, chunk, acc);
      if (done == 3) exact_fused<E, NP, 3, false>(p, e, panel, k, end, row, chunk, acc);
    }
    if constexpr (kExactFused >= 4 && most_rows<E>() >= 4) {
      if (done == 4) exact_fused<E, NP, 4, true>(p, e, panel, k, end, row, chunk, acc);
    }
    if constexpr (kExactFused >= 8 && most_rows<E>() >= 8) {
      if (done == 8) exact_fused<E, NP, 8, true>(p, e, panel, k, end, row, chunk, acc);
    }
    if (!done) {
      for (int i = 0; i < NP; ++i) exact_unpack(p, e, panel + i, k, end, chunk + 16 * kExactChunk * i);
    }
    exact_micro_rows<NP, kExactRows>(p, chunk, panel, k, end, row + done, rows - done, acc + 16 * NP * done);
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int j = 0; j < NP; ++j) write_row(p, panel + j, row + i, load_f(acc + 16 * (i * NP + j)), E::factor(p));
  }
}

// What reads integers without zero points faster, where there is such.
template <class E> struct WithoutZeros { using Type = void; };
template <int Bits>
  requires(kRawLookup && Bits <= 4)
struct WithoutZeros<IntegerNumbers<Bits>> {
  using Type = IntegerTable<Bits>;
};
template <int Bits>
  requires(kRawFields && Bits > 4)
struct WithoutZeros<IntegerNumbers<Bits>> {
  using Type = IntegerFields<Bits>;
};

#ifdef ANYBIT_BYTE_TABLES
#include "avx2/row_tables.inl"
#endif

template <class E> void exact_panels(const Problem& p, int64_t first, int64_t last) {
  using Faster = typename WithoutZeros<E>::Type;
  if constexpr (!std::is_void_v<Faster>) {
    if (!p.zeros && p.m <= most_rows<Faster>()) return exact_panels<Faster>(p, first, last);
  }
#ifdef ANYBIT_BYTE_TABLES
  if (table_rows<E>(p, first, last)) return;
#endif
  const E e(p);
  if (p.m == 1 && p.one_order) {
    for (; first + 4 <= last; first += 4) exact_row_chain<E, 4>(p, e, first);
    for (; first < last; ++first) exact_row_chain<E, 1>(p, e, first);
    return;
  }
  if (p.m == 1) {
    for (int64_t panel = first; panel < last; ++panel) exact_row(p, e, panel);
    return;
  }
  if (p.tree) {
    for (int64_t row = 0; row < p.m; row += kExactMostRows) {
      const int64_t rows = row + kExactMostRows < p.m ? kExactMostRows : p.m - row;
      for (int64_t panel = first; panel < last; ++panel) exact_tree_rows(p, e, panel, row, rows);
    }
    return;
  }
  alignas(64) float acc[kExactMostRows * kExactPanels * 16];
  for (int64_t row = 0; row < p.m; row += kExactMostRows) {
    const int64_t rows = row + kExactMostRows < p.m ? kExactMostRows : p.m - row;
    int64_t panel = first;
    for (; panel + kExactPanels <= last; panel += kExactPanels) exact_strip<E, kExactPanels>(p, e, panel, row, rows, acc);
    if constexpr (kExactPanels > 1) {
      for (; panel < last; ++panel) exact_strip<E, 1>(p, e, panel, row, rows, acc);
    }
  }
}
