// The elementwise, normalisation and attention kernels of a decoder, one table of plain functions an instruction set.
//
// All activations are float32.  Every function is single-threaded; the engine splits the work.
#pragma once

#include <cstddef>
#include <cstdint>

namespace anybit {

enum class Glu : int { silu, gelu_tanh, gelu };
enum class CacheType : int { fp32, fp16, int8 };

// The KV cache is cut into tiles of 64 positions.  A tile of one layer and one kv head, D = head_dim, DP = D rounded up to 16:
//
//   | K, transposed: [D][64] elements | V: [64][DP] elements | int8 only: K scales [64] float | V scales [64] float |
//
// K is kept transposed so that scores of neighbouring positions are neighbouring lanes: no horizontal sums anywhere.
inline constexpr int kTilePositions = 64;
inline constexpr int kLanePad = 16;

constexpr int padded_dim(int head_dim) { return (head_dim + kLanePad - 1) / kLanePad * kLanePad; }
constexpr std::size_t element_size(CacheType t) { return t == CacheType::fp32 ? 4 : t == CacheType::fp16 ? 2 : 1; }
constexpr std::size_t tile_bytes(CacheType t, int head_dim) {
  const std::size_t elements = static_cast<std::size_t>(kTilePositions) * (head_dim + padded_dim(head_dim));
  const std::size_t raw = elements * element_size(t) + (t == CacheType::int8 ? 2 * kTilePositions * sizeof(float) : 0);
  return (raw + 63) / 64 * 64;
}

// Causal attention of `tokens` consecutive queries of one kv head against the cache.
struct Attention {
  const float* q;             // query row t of head h of the group: q + t * q_stride + h * head_dim
  std::size_t q_stride;       // floats
  float* out;                 // laid out as q; may be null where a partial result is wanted
  std::size_t out_stride;     // floats
  int tokens, group;          // queries; query heads a kv head
  int head_dim;
  int position;               // of the first query; query t sees positions <= position + t
  int window;                 // 0, or the last `window` positions, the query's own included
  float scale, softcap;       // score = cap * tanh(scale * q.k / cap); softcap 0: none
  CacheType type;
  const std::byte* const* tiles;  // tile i holds positions [64 i, 64 i + 64) of all layers
  std::size_t tile_offset;        // of this layer and kv head inside each
  int tile_begin, tile_end;       // the tiles to visit
  float* scratch;                 // attention_scratch() floats
};

// Rows (queries times group) a call of `attention` may hold at once, and the scratch it needs.
inline constexpr int kAttentionRows = 192;
constexpr std::size_t attention_scratch(int head_dim, int rows) {
  const std::size_t dp = static_cast<std::size_t>(padded_dim(head_dim)), depth = (dp + 31) / 32 * 32;  // of bf16 tiles
  const std::size_t room = static_cast<std::size_t>(padded_dim(rows));
  return room * (dp + depth + 2) + kTilePositions * (dp + depth);
}

// A rotation of rows: blocks of an order `block`, in which a dense matrix of an order `order` (at most 128) is doubled;
// where the block is a power of two, one number is.
struct HadamardShape {
  int order, block;
  bool inverse;
};

// A partial result of one query row: `max`, `sum` of exp(score - max), and the unnormalised output [DP].
struct VectorOps {
  const char* isa;
  // y = x / sqrt(mean(x^2) + eps) * (gain + offset);  y may be x.
  void (*rms_norm)(const float* x, const float* gain, float offset, float eps, float* y, std::size_t n);
  void (*glu)(Glu kind, const float* gate, const float* up, float* y, std::size_t n);
  void (*add)(const float* a, const float* b, float* y, std::size_t n);
  void (*scale)(const float* x, float factor, float* y, std::size_t n);
  // y = x D H, or the inverse: small [order][order] of 1 and -1 (of the inverse, where that is wanted), signs [n] or null, n a multiple of
  // the block.  y may be x.
  void (*hadamard)(const HadamardShape& shape, const float* small, const float* signs, const float* x, float* y, std::size_t n);
  void (*softcap)(const float* x, float cap, float* y, std::size_t n);
  // Rotates the first 2*half columns of each of `heads` rows of `head_dim` floats (pairs i, i + half).
  void (*rope)(float* x, int heads, int head_dim, int half, const float* cos, const float* sin);
  // Writes one position of one kv head into its tile.
  void (*cache_store)(std::byte* tile, CacheType type, int head_dim, int slot, const float* k, const float* v);
  void (*attention)(const Attention& problem);
  // Rows = tokens * group partial results: max [rows], sum [rows], acc [rows][DP].
  void (*attention_partial)(const Attention& problem, float* max, float* sum, float* acc);
  // out[n] = x, the largest first of equals: index of the maximum.  NaN is never chosen.
  std::size_t (*argmax)(const float* x, std::size_t n);
  // y = exp((x - max) * factor); returns the sum.
  double (*exp_sum)(const float* x, float max, float factor, float* y, std::size_t n);
  void (*exp)(const float* x, float* y, std::size_t n);
  void (*tanh)(const float* x, float* y, std::size_t n);
};

// The tables; null where the build has no such instruction set.
const VectorOps* vector_ops_amx();
const VectorOps* vector_ops_avx512();
const VectorOps* vector_ops_avx2();
const VectorOps* vector_ops_neon();
const VectorOps* vector_ops_scalar();

}  // namespace anybit
