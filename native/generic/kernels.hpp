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
  const uint16_t* xhalves;  // bf16
  int64_t ldh;
  const float* xscales;
  int64_t xgroup, xgroups;  // xgroup in slots
  const int32_t* sums;  // of row i up to slot 32 * t at sums[t * lds + i]
  int64_t lds;
  // x for weights in planes: bits of row i * xbits + b at xplanes + that * ldp, a word for 32 slots; or tables of row i at tables + i * ldt
  int bits, xbits;  // of weight and x
  const uint32_t* xplanes;
  int64_t ldp;
  const uint8_t* tables;
  int64_t ldt;
  // k-block: slots between two scalings, a multiple of 32 that divides group and xgroup
  int64_t block;
  // result
  float* y;
  int64_t ldy;
  const float* bias;
  bool accumulate;
  bool one_order;  // exact: a row has the same bits alone and among others
  // exact, in one order: slots [begin, slots), the sums of kTreeLeaf slots each added in a binary tree.  `block` divides kTreeLeaf.
  bool tree;
  int64_t begin;
};

constexpr int64_t kTreeLeaf = 256;

constexpr int64_t kFewestBf16 = 2;

// Computes panels [first, last).
using PanelFn = void (*)(const Problem&, int64_t first, int64_t last);

struct Kernels {
  const char* name;
  PanelFn int8_integer[9];        // [bits], 1..8
  PanelFn int8_codebook_byte[5];  // [bits], 2..4: levels are bytes
  PanelFn int8_codebook_word[5];  // [bits], 2..4: levels are 16-bit
  PanelFn exact_integer[9];
  PanelFn exact_codebook[5];
  PanelFn exact_bf16, exact_fp16, exact_fp32;
  // x of bf16 and weights that bf16 holds exactly, for kFewestBf16 rows or more; null where the exact kernels are to be used
  PanelFn bf16_integer[9];
  PanelFn bf16_codebook[5];
  PanelFn bf16_bf16;
  void (*to_bf16)(const float* x, int64_t slots, uint16_t* halves);  // of numbers that are bf16
  PanelFn bit_serial, look_up;  // weights in planes (planes.hpp)
  // one row of x: codes of at most `levels`, in the first `wide` groups 127 (zeros beyond k up to slots), one scale a group, running sums
  void (*quantize_row)(const float* x, int64_t slots, int64_t group, float levels, int64_t wide, int8_t* codes, float* scales,
                       int32_t* sums, int64_t lds);
  // probes for `doctor`: reads `bytes` once and returns a value that depends on all of it; `rounds` of the int8 multiply-add loop,
  // returning the number of operations (2 a multiply-add)
  uint64_t (*read_all)(const uint8_t* data, size_t bytes);
  double (*int8_rounds)(int64_t rounds);
};

}  // namespace anybit
