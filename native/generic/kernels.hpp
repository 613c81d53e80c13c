// The functions every instruction set provides.  Plain pointers and numbers only: these headers are compiled with many different
// flags, and an inline function with a name shared between them could be merged into the wrong one by the linker.
#pragma once

#include <cstddef>
#include <cstdint>

namespace anybit {

// ScaleKind as plain numbers
constexpr int kScaleNone = 0, kScaleFp32 = 1, kScaleFp16 = 2, kScaleBf16 = 3, kScaleE8m0 = 4;

// A matmul with everything looked up: what generic/matmul.cc hands to an instruction set.
struct Problem {
  int64_t m, n, slots;  // slots: padded k, a multiple of 32
  // weight
  const uint8_t* codes;  // panel p at codes + p * panel_bytes
  int64_t panel_bytes;
  const uint8_t* scales;  // panel p, group g at scales + (p * groups + g) * 16 * scale_bytes
  int scale_kind;         // ScaleKind
  const uint8_t* zeros;   // panel p, group g at zeros + (p * groups + g) * 16; null: `lowest`
  int64_t group, groups;  // group in slots (slots where one scale a row)
  int step_shift, lowest;
  float factor;
  const float* table;          // 16 values
  const uint8_t* level_bytes;  // 16
  const int16_t* level_words;  // 16
  // activations
  const float* x;
  int64_t ldx;
  const int8_t* xcodes;
  int64_t ldc;
  const uint16_t* xhalves;  // bf16, see to_bf16; integers of up to 16 bits; or xcodes widened, see widen_codes
  int64_t ldh;
  const float *wsquares, *xsquares;  // int16: of panel i, or rows 8i to 8i + 7, and chunk c at (i * chunks + c) * kSpans
  int64_t chunks;
  const float* xscales;
  int64_t xgroup, xgroups;  // xgroup in slots
  const int32_t* sums;  // of row i up to slot 32 * t at sums[t * lds + i]
  int64_t digits;       // rows of codes, scales and sums for each of x: 1, or kDigits
  int64_t lds;
  // x for weights in planes: bits of row i * xbits + b at xplanes + that * ldp, a word for 32 slots; or tables of row i at tables + i * ldt
  int bits, xbits;  // of weight and x
  const uint32_t* xplanes;
  int64_t ldp;
  const uint8_t* tables;
  int64_t ldt;
  // k-block: slots between two scalings, a multiple of 32 that divides group and xgroup
  int64_t block;
  // columns of x that are multiplied as they are, xkept[i * ldkept + c], with kept[(panel * count + c) * 16] of kept_kind; null for none
  const uint8_t* kept;
  int kept_kind;
  int64_t kept_count, ldkept;
  const float* xkept;
  const uint16_t* xkept_pairs;  // of row i at 2 * i * ldkept: the same in bf16, then what that leaves over; where Kernels::kept_pairs
  // result
  float* y;
  int64_t ldy;
  const float* bias;
  const float* addend;  // laid out as y, or y itself; null for none
  const int32_t* places;  // of each column in a row of y; null where they lie in order
  bool one_order;  // exact: a row has the same bits alone and among others
  // exact, in one order: slots [begin, slots), the sums of kTreeLeaf slots each added in a binary tree.  `block` divides kTreeLeaf.
  bool tree;
  int64_t begin;
};

constexpr int64_t kTreeLeaf = 256;
constexpr int64_t kExactTogether = 3;  // panels that the exact kernels for several rows take at once, where registers suffice
constexpr int kUpperDigit = 8;  // what upper digits of looked up sums are too large by: 64 * 8 is above 4 * 127

// Integers of 16 bits are cut in chunks of slots, for each of which the largest sum of squares of any span of 8, 16, ... kWordChunk
// slots that begins at a multiple of its length is known: for a panel of weights, and for kSquaredRows rows of x.
constexpr int64_t kWordChunk = 256, kSquaredRows = 8;
constexpr int kSpans = 6;
// bf16 of so few rows may be multiplied as integers in so many digits (avx512/digits.inl)
constexpr int64_t kMostDigitRows = 5, kDigits = 3;
constexpr int64_t kFewestWide = 9;   // rows from which on codes of x are widened, where there is widen_codes
constexpr int64_t kFewestSplit = 5;  // rows from which on products of digits are faster, where there are such
constexpr int64_t kWordBlock = 32768;  // largest k-block: digits of eight bits times each other, two such products a sum, stay below 2^31

// How a row of x becomes integers.
struct RowRounding {
  int64_t group;  // slots that share a scale
  float levels;   // the largest code
  int64_t wide;   // in so many first groups it is 127 all the same
  float given;    // the scale of all groups; 0: each has its own
};

// Computes panels [first, last).
using PanelFn = void (*)(const Problem&, int64_t first, int64_t last);

// Rows of bits, `apart` bytes from one to the next, aligned to 64.
struct BitRows {
  const uint8_t* data;
  int64_t rows, apart;
  const uint8_t* of(int64_t row) const { return data + row * apart; }
};

struct Kernels {
  const char* name;
  PanelFn int8_integer[9];        // [bits], 1..8
  PanelFn int8_codebook_byte[5];  // [bits], 2..4: levels are bytes of at most 31
  PanelFn int8_codebook_wide[5];  // any bytes
  PanelFn int8_codebook_word[5];  // [bits], 2..4: levels are 16-bit
  PanelFn exact_integer[9];
  PanelFn exact_codebook[5];
  PanelFn exact_bf16, exact_fp16, exact_fp32;
  // x of bf16 and weights that bf16 holds exactly; null where the exact kernels are to be used
  PanelFn bf16_integer[9];
  PanelFn bf16_codebook[5];
  PanelFn bf16_bf16;
  void (*to_bf16)(const float* x, int64_t slots, uint16_t* halves);  // of numbers that are bf16; every four as 0, 2, 1, 3
  PanelFn bit_serial, look_up;  // weights in planes (planes.hpp)
  // out[i][j] = bits set in a_i & b_j (exclusive: ^), for rows [first, last) of b; `lines` of 64 bytes of each row
  void (*count_pairs)(const BitRows& a, const BitRows& b, int64_t first, int64_t last, int64_t lines, bool exclusive, int32_t* out, int64_t ldo);
  PanelFn exact_int16, int16;
  // one row of x: codes (zeros beyond k up to slots), one scale a group, running sums
  void (*quantize_row)(const float* x, int64_t slots, const RowRounding&, int8_t* codes, float* scales, int32_t* sums, int64_t lds);
  // the same in 16 bits; squares[chunk][kSpans] become the larger of themselves and those of this row
  void (*quantize_words)(const float* x, int64_t slots, const RowRounding&, int16_t* codes, float* scales, float* squares);
  // moves the lower bytes of words to `low` and the upper ones together, for kFewestSplit rows or more; null where words stay words
  void (*split_words)(int16_t* words, int64_t slots, int8_t* low);
  // a row of x as kDigits rows of codes, scales (each `groups`) and sums; null where bf16 is not multiplied as integers
  void (*split_floats)(const float* x, int64_t slots, int64_t group, int8_t* codes, int64_t ldc, float* scales, int64_t groups, int32_t* sums,
                       int64_t lds);
  // codes in 16 bits, every four as 0, 2, 1, 3, for levels of 16 bits; null where those are multiplied in digits
  void (*widen_codes)(const int8_t* codes, int64_t slots, uint16_t* halves);
  int32_t (*top_of)(const float* x, int64_t count);  // the bit pattern of the largest magnitude
  // probes for `doctor`: reads `bytes` once and returns a value that depends on all of it; `rounds` of the int8 multiply-add loop,
  // returning the number of operations (2 a multiply-add)
  uint64_t (*read_all)(const uint8_t* data, size_t bytes);
  double (*int8_rounds)(int64_t rounds);
  int64_t digit_rows = kMostDigitRows;  // rows of bf16 up to which digits are faster, where there is split_floats
  int64_t panels_at_once = 3;  // of many rows
  int64_t kept_pairs = 0;  // rows from which on kept columns of bf16 are read as bf16 and what it leaves over; 0: never
};

}  // namespace anybit
