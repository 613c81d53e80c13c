// Casts of whole arrays, split among the threads of the shared pool.  Results depend neither on their number nor on the instruction set.
#pragma once

#include <cstdint>

#include "generic/cast_ops.hpp"

namespace anybit {

// Element i of an array draws the (start + i)-th 32-bit word of the Philox stream of `seed`.
struct Stream {
  std::uint64_t seed = 0, start = 0;
};

struct Cast {
  const Grid* grid;
  CastMode mode;
  Stream stream;  // random modes only
  int draw_bits = 0;
  const Beyond* beyond = nullptr;  // null: saturate
};

// The draws of elements [at, at + n) of an array, n <= kCastPiece; null for modes that draw none.
template <class T> struct Drawn {
  alignas(64) T buffer[kCastPiece];
  const T* of(const CastOps& ops, const Cast& cast, std::uint64_t at, std::size_t n) {
    if (!is_random(cast.mode)) return nullptr;
    const Draw draw{cast.mode == CastMode::stochastic_50, cast.draw_bits};
    if constexpr (sizeof(T) == 4) ops.draws(cast.stream.seed, cast.stream.start + at, draw, buffer, n);
    else ops.draws_fp64(cast.stream.seed, cast.stream.start + at, draw, buffer, n);
    return buffer;
  }
};

enum class CodeType : int { u8, u16, i32 };

// Both return whether x holds NaN; y may be x where numbers saturate.
bool cast_round(const Cast& cast, const float* x, float* y, std::int64_t n);
bool cast_encode(const Cast& cast, const float* x, CodeType type, void* codes, std::int64_t n);
// The same from float64: to fp32, and, in modes that draw nothing, to grids whose values and midpoints have at most 22 significant bits.
bool cast_round(const Cast& cast, const double* x, double* y, std::int64_t n);
bool cast_encode(const Cast& cast, const double* x, CodeType type, void* codes, std::int64_t n);

// y = values[code]; false, with nothing to be relied on in y, where a code is not below `count`.
bool cast_decode(const float* values, std::int64_t count, CodeType type, const void* codes, float* y, std::int64_t n);

enum class SourceType : int { fp32, fp16, bf16 };
enum class BlockScale : int { fp32, fp16, bf16, e8m0, float8 };

// Rows of a matrix in blocks of `width` columns with one scale each, absmax / span rounded to the format of scales; what it means is
// said in anybit/tensors/scales.py.  Codes are packed as anybit/tensors/packing.py says.
struct BlockCast {
  Cast cast;            // of the elements, 1 to 8 bits; row r draws from stream.start + r * (columns rounded up to whole blocks)
  std::int64_t width = 0;
  float span = 0;       // the element value that absmax maps to
  int top = 0;          // e8m0: floor(log2(span))
  BlockScale scale_type = BlockScale::fp32;
  const Grid* scale = nullptr;      // fp16, bf16, float8
  float smallest_scale = 0;         // positive
  float tensor_divisor = 0;         // with a tensor scale: span * the largest block scale; 0: without
};

enum class BlockStatus : int { done, nan, infinity };

constexpr std::int64_t packed_row_bytes(std::int64_t cols, int bits) { return (cols * bits + 7) / 8; }
constexpr int block_scale_bytes(BlockScale type) {
  return type == BlockScale::fp32 ? 4 : type == BlockScale::fp16 || type == BlockScale::bf16 ? 2 : 1;
}

// codes [rows, packed_row_bytes], scales [rows, blocks] of block_scale_bytes each, tensor_scale one float or null.
BlockStatus quantize_blocks(const BlockCast& cast, const void* x, SourceType type, std::int64_t rows, std::int64_t cols,
                            std::uint8_t* codes, void* scales, float* tensor_scale);

// Blocks of `width` columns of the rows of a matrix, in units of steps that are tried for them: round(x / step + zero) - zero to the nearest
// on the grid, with a step of 1 where it is 0.
struct BlockTrials {
  const Grid* grid = nullptr;  // in the nearest even mode
  std::int64_t rows = 0, cols = 0, width = 0, trials = 0;
  const float* x = nullptr;                      // [rows, cols]
  const float* weights = nullptr;                // of squared errors: of row r at weights + r * weight_stride; null: all 1
  std::int64_t weight_stride = 0;
  const float *steps = nullptr, *zeros = nullptr;  // [trials, rows, blocks]; zeros may be null
};

// All results [trials, rows, blocks]: sums of weight * (unit * step - x)^2; or of weight * unit * x and of weight * unit^2.  They depend
// neither on the number of threads nor on the instruction set.
void block_errors(const BlockTrials& of, float* sums);
void block_projections(const BlockTrials& of, float* on_x, float* norms);

// What packed codes of 1 to 8 bits mean: (values[code] - zero) * scale, of blocks of height x width, or values[code] * scale.
struct BlockDecode {
  const float* values = nullptr;
  int count = 0, bits = 0;  // of values, at most 2^bits
  std::int64_t height = 1, width = 1;
  const float *scales = nullptr, *zeros = nullptr;  // [row blocks, column blocks]; zeros may be null
};

// y [rows, cols] of codes [rows, packed_row_bytes]; false, with nothing to be relied on in y, where a code is not below `count`.
bool dequantize_blocks(const BlockDecode& decode, const std::uint8_t* codes, std::int64_t rows, std::int64_t cols, float* y);

}  // namespace anybit
