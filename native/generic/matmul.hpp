// y[M, N] = x[M, K] W[N, K]^T for packed weights of 1 to 8 and 16 bits, codebooks of up to 16 values, and plain bf16/fp16/fp32.
//
// Packed layout, the same for every instruction set.  Rows (outputs) are taken 16 at a time, a panel; k is taken 32 at a time, a tile.
// A panel is one sequential stream of tiles, so a thread that owns panels reads one stream.
//
//   tile of a b-bit weight = 16 rows x 32 k = 64*b bytes = the planes of b, one after the other:
//     b      1    2    3     4    5     6     7       8
//     planes 1    2    2,1   4    4,1   4,2   4,2,1   8        (highest bits first)
//   a plane of p bits = p vectors of 64 bytes; vector v of a plane:
//
//     byte   0 1 2 3 | 4 5 6 7 | ...... | 60 61 62 63
//     row      r0    |   r1    |        |    r15           one dword a row
//     within a dword, byte j, field f (p bits wide, lowest first)  holds  k = 4*(v*8/p + f) + j
//
//   So `(vector >> p*f) & mask` is one "quad": 16 rows x 4 consecutive k as bytes, what one vpdpbusd (or vpmaddubsw, vdot) eats
//   against 4 bytes of x broadcast to all rows.
//
// Stored values are unsigned, u = (v - lowest) / step, so value = (u*step + lowest) * scale, and over a block of k with one scale
//   sum w x = scale_w * scale_x * (step * sum u x + lowest * sum x)           without zero points
//           = scale_w * scale_x *  step * (sum u x - u_zero * sum x)          with them
// with the integer sums exact.  Scales and zero points lie apart from the codes: 16 rows of a group contiguous, groups in order.
// A group whose length is not a multiple of 32 is padded to one (`Geometry`), in the codes with any value and in x with zeros.
//
// bf16 and signed integers of up to 16 bits lie in vectors of 16 rows x 2 k, a dword a row: of four k bf16 has 0 and 2, then 1 and 3, as the
// 16-bit words of codes do, integers 0 and 1, then 2 and 3.  With integer x of up to 16 bits the latter
// are multiplied exactly (int16.inl), a block of k with one scale giving the float32 nearest to its sum.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "generic/thread_pool.hpp"

namespace anybit {

enum class Act : uint8_t {
  exact,  // x as it is, fp32 accumulation
  bf16,   // x rounded to bf16, the same: weights that bf16 holds exactly may be multiplied in it, summed in fp32
  int8,   // x rounded to `levels` steps of its group's largest magnitude, integer dot products
  int16   // the same with codes of up to 16 bits, for weights of int16
};

// How logical k lies in slots of a packed row: `group` k's fill the first places of every `padded` slots.  {0, 0}: k is the slot.
struct Geometry {
  int64_t group = 0, padded = 0;
  bool operator==(const Geometry&) const = default;
  // Whether x may share a scale over so many k's: what a padded group holds, else a multiple of 32.
  bool takes(int64_t act_group) const { return group ? act_group == group : act_group % 32 == 0; }
  int64_t slots(int64_t k) const {  // a multiple of 32
    if (group == 0) return (k + 31) / 32 * 32;
    return (k + group - 1) / group * padded;
  }
};

enum class ElementKind : uint8_t { integer, codebook, bf16, fp16, fp32, int16 };
enum class ScaleKind : uint8_t { none, fp32, fp16, bf16, e8m0 };

// Columns that multiply x as it is, in 16 or 32 bits, whatever x is rounded to elsewhere: those of the largest x (LLM.int8(), NeurIPS 2022).
struct Kept {
  std::vector<int32_t> columns;
  ElementKind kind = ElementKind::bf16;  // of the values: bf16, fp16 or fp32
  std::shared_ptr<std::byte> values;     // [panels][columns][16]
  int64_t count() const { return static_cast<int64_t>(columns.size()); }
  size_t value_bytes() const { return kind == ElementKind::fp32 ? 4 : 2; }
};
inline int64_t count_of(const std::shared_ptr<const Kept>& kept) { return kept ? kept->count() : 0; }

// A packed matrix.  Made by pack(); read-only from then on.
struct Weight {
  int64_t n = 0, k = 0;  // outputs, inputs
  ElementKind kind = ElementKind::integer;
  int bits = 0;              // of a stored element: 1-8 for integer, 2-4 for codebook, 16 or 32
  Geometry geometry;         // how k lies in slots
  int64_t slots = 0;         // geometry.slots(k)
  int64_t group = 0;         // slots that share a scale, a multiple of 32; 0: the whole row
  int64_t groups = 1;        // scales a row
  ScaleKind scale_kind = ScaleKind::none;
  int step_shift = 0;        // integer: step = 1 << step_shift
  int lowest = 0;            // integer: the value of u = 0
  float factor = 1.0f;       // multiplies everything (tensor scale, codebook unit)
  alignas(64) float table[16] = {};  // codebook: value of a code, without factor
  bool table_is_bf16 = false;        // codebook: bf16 holds every value
  bool table_is_bytes = false;       // codebook: table[c] == (level_bytes[c] - level_zero) * byte_unit exactly
  bool bytes_are_wide = false;       // of those some are above 31
  uint8_t level_bytes[16] = {};
  int level_zero = 0;
  float byte_unit = 1.0f;
  int16_t level_words[16] = {};  // else: table[c] ~ level_words[c] * level_unit, error <= level_unit / 2 = max|table| / 32512
  float level_unit = 0.0f;

  int64_t panels = 0, panel_bytes = 0;
  std::shared_ptr<std::byte> codes, scales, zeros;  // zeros: u_zero, a byte each, or null
  std::shared_ptr<std::byte> squares;               // int16: float [panels][chunks][kSpans]
  std::shared_ptr<const Kept> kept;                 // beside what the codes stand for, which meets zeros in these columns; or null
  size_t nbytes() const;                            // of codes, scales, zeros and kept columns as packed
};
using WeightPtr = std::shared_ptr<const Weight>;

// The same weight, whose columns `columns` (ascending, less than k) are values [n][columns] of `kind` instead; no copy of its codes.
WeightPtr with_kept(const Weight&, std::vector<int32_t> columns, ElementKind kind, const void* values);

bool has_integer_form(const Weight&);  // whether int8 activations are multiplied as integers
bool has_tree(const Weight&);          // whether a leaf of kTreeLeaf columns consists of whole blocks
int64_t tree_leaves(const Weight&);
size_t scale_bytes(ScaleKind);
int packed_code(const uint8_t* panel, int bits, int64_t lane, int64_t slot);  // the stored u of row `lane`, for readers of single rows
int64_t half_place(ElementKind, int64_t lane, int64_t slot);                  // byte of a panel at which a number of 16 bits lies

// Canonical (checkpoint) arrays to pack: see tensors/ for their layout.
struct Source {
  int64_t n = 0, k = 0;
  int bits = 0;                        // 1-8
  const uint8_t* codes = nullptr;      // [n][ceil(k * bits / 8)] little-endian bit stream a row
  const float* table = nullptr;        // [1 << bits] value of every code, NaN where a code has none
  int64_t block_rows = 1, block_cols = 0;  // of the scale grid, 0 = all
  ScaleKind scale_kind = ScaleKind::none;
  const void* scale = nullptr;         // [ceil(n / block_rows)][ceil(k / block_cols)] in its storage type
  const uint8_t* zero = nullptr;       // codes, same grid, or null
  float factor = 1.0f;                 // tensor scale
  bool int8_levels = false;            // codebooks: values rounded to 127 steps of the largest, so that one digit of eight bits holds them
};
// Throws std::invalid_argument where the element type has no packed form (wider codebooks: use pack_dense with scales).  Not to be
// called from inside a run of the pool.
WeightPtr pack(ThreadPool&, const Source&);

// Rows of plain numbers [n][k], contiguous; kind bf16, fp16, fp32 or int16; scales as above or none.
struct DenseSource {
  int64_t n = 0, k = 0;
  ElementKind kind = ElementKind::fp32;
  const void* values = nullptr;
  int64_t block_rows = 1, block_cols = 0;
  ScaleKind scale_kind = ScaleKind::none;
  const void* scale = nullptr;
  float factor = 1.0f;
};
WeightPtr pack_dense(ThreadPool&, const DenseSource&);

// How x is to be prepared.  `group`: k's that share an activation scale, 0 = the whole row, else a multiple of 32.
struct ActSpec {
  Act act = Act::exact;
  int64_t group = 0;
  Geometry geometry = {};  // of the weights that will read it
  int levels = 127;        // integers: the largest code; 2^(b-1) - 1 for activations of b bits
  bool whole = false;      // integers: one scale for all rows
  bool power = false;      // which is a power of two: the smallest that clips nothing
  float given = 0.0f;      // integers: the scale of all rows where it is known beforehand, else 0; what lies beyond saturates
  int64_t wide = 0;        // int8: in so many first groups the largest code is 127 all the same
  bool values = false;     // int8: make Activations::x what the codes stand for (for weights without an integer form), else leave x
  const Kept* kept = nullptr;  // its columns of x are zero to codes and Activations::x, and Activations::kept has them
  bool operator==(const ActSpec&) const = default;
};

// One input, prepared once and read by any number of matmuls.  Its memory is made by reserve() and kept.
struct Activations {
  int64_t m = 0, k = 0, slots = 0;
  ActSpec spec;
  // [m][ldx] fp32 over slots, zeros in the padding; of integers without ActSpec::values only where it is the caller's own, else undefined
  const float* x = nullptr;
  int64_t ldx = 0;
  int64_t digits = 1;             // rows of codes, scales and sums for each row: kDigits of few rows of bf16 where kernels want them
  const int8_t* codes = nullptr;  // [m * digits][ldc]; of int16 the lower digits where kernels split them
  int64_t ldc = 0;
  const uint16_t* halves = nullptr;  // bf16: [m][ldh], where this machine multiplies them; codes of int16; or of int8 widened
  int64_t ldh = 0;
  const float* squares = nullptr;  // int16: [ceil(m / kSquaredRows)][chunks][kSpans]
  const float* scales = nullptr;  // [m * digits][groups]
  int64_t groups = 0, group = 0;  // group in slots
  const int32_t* sums = nullptr;  // [slots / 32 + 1][lds] running sums: sums[t * lds + row] = sum of the row's codes below slot 32 * t
  int64_t lds = 0;
  const float* kept = nullptr;  // [m][ldkept] of columns apart, zeros behind them
  int64_t ldkept = 0;
  const uint16_t* kept_pairs = nullptr;  // [m][2][ldkept], see Problem

  // Room for m rows of k columns under any spec whose padding is at most `stretch` times k and which keeps at most `kept` columns; and
  // for `threads` private copies of one row.  Grows only.  Not thread-safe: call outside run().
  void reserve(int64_t max_m, int64_t max_k, int threads, double stretch = 1.0, int64_t kept = 0);

  // private copies, one a thread, that prepare() makes for m = 1 so that no barrier is needed
  std::vector<Activations> own;
  std::vector<int32_t> tops;  // ActSpec::whole: the largest magnitude of each rank's rows
  std::shared_ptr<std::byte> memory;
  size_t capacity = 0;
};

// Called by every rank with the same arguments, after x is visible to all (barrier).  When it returns, the activations can be read by
// the calling rank: for m = 1 each rank makes its own copy (no barrier inside), otherwise ranks share the rows and meet at a barrier.
// The returned reference is what this rank passes to matmul().  x must stay valid and unchanged while the result is in use.
const Activations& prepare(Team&, Activations&, const float* x, int64_t m, int64_t k, int64_t ldx, const ActSpec&);

struct Epilogue {
  const float* bias = nullptr;  // [n]
  const float* addend = nullptr;  // [m][ldy], added to the results; may be y itself
  const int32_t* places = nullptr;  // [n]: where in a row of y, bias and addend each column lies; null: in order
  bool one_order = false;   // exact activations: a row has the same bits alone and among others, a little slower alone
  // Exact activations, weights with has_tree(): the leaves [first_leaf, last_leaf) of kTreeLeaf columns each, added in a binary tree
  // whose shape depends on their number only: neighbours first, one without a partner goes up unchanged.
  bool tree = false;
  int64_t first_leaf = 0, last_leaf = 0;
};

using Ticket = std::atomic<int>;

// This rank's share of output columns (whole panels of 16): y[m][ldy].  No barrier inside, no memory allocated; other ranks' columns
// are complete only after a barrier.  With a ticket, 0 before all ranks, the last columns go to whoever is done first, so that a rank which
// the machine holds up does not hold up the others.  The split is along N only, so the result does not depend on the number of threads.
// The activations must have been prepared for w.k columns and w.geometry.  A weight without integer form (bf16, fp16, fp32) multiplies
// Activations::x: x itself where the spec is exact, or with ActSpec::values the numbers its codes stand for.
void matmul(Team&, const Weight&, const Activations&, float* y, int64_t ldy, const Epilogue& = {}, Ticket* = nullptr);

// The product as an instruction set is told of it.
struct Problem;
Problem problem_of(const Weight&, const Activations&, Act, float* y, int64_t ldy, const Epilogue&);

// out[k] = row `row` of the matrix, times factor.  0 <= row < n is the caller's to ensure.
void embedding_row(const Weight&, int64_t row, float factor, float* out);

}  // namespace anybit
