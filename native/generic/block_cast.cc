// Group-scaled codes of a matrix in one pass over each row (two where the whole tensor has a scale too), and what such codes mean.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "generic/cast.hpp"
#include "generic/thread_pool.hpp"

namespace anybit {
namespace {

constexpr std::uint32_t kInfinityBits = 0x7f800000u;
constexpr float kSmallestNormal = 1.17549435e-38f;

float float_of(std::uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

// floor(log2 x) of x > 0
int exponent_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if (bits >> 23) return static_cast<int>(bits >> 23) - 127;
  int exponent;
  std::frexp(x, &exponent);
  return exponent - 1;
}

// Eight codes of `bits` bits, one a byte, side by side in the low 8 * bits bits.
std::uint64_t eight_codes(std::uint64_t word, int bits) {
  word = (word & 0x00ff00ff00ff00ffull) | (word >> 8 & 0x00ff00ff00ff00ffull) << bits;
  word = (word & 0x0000ffff0000ffffull) | (word >> 16 & 0x0000ffff0000ffffull) << 2 * bits;
  return (word & 0x00000000ffffffffull) | word >> 32 << 4 * bits;
}

// n codes, one a byte, as a little-endian bit stream
void pack_stream(const std::uint8_t* codes, std::size_t n, int bits, std::uint8_t* out) {
  if (bits == 8) {
    std::memcpy(out, codes, n);
    return;
  }
  const std::uint8_t* end = out + packed_row_bytes(static_cast<std::int64_t>(n), bits);
  std::size_t i = 0;
  std::uint64_t word;
  // Whole words are stored while what they write too much lies inside the row and is overwritten by the next.
  for (; i + 8 <= n && out + 8 <= end; i += 8, out += bits) {
    std::memcpy(&word, codes + i, 8);
    word = eight_codes(word, bits);
    std::memcpy(out, &word, 8);
  }
  for (; i < n; i += 8, out += bits) {
    word = 0;
    std::memcpy(&word, codes + i, std::min<std::size_t>(8, n - i));
    word = eight_codes(word, bits);
    std::memcpy(out, &word, std::min<std::size_t>(static_cast<std::size_t>(bits), static_cast<std::size_t>(end - out)));
  }
}

// The inverse of eight_codes.
std::uint64_t eight_bytes(std::uint64_t word, int bits) {
  const std::uint64_t four = (std::uint64_t{1} << 4 * bits) - 1, two = (std::uint64_t{1} << 2 * bits) - 1, one = (std::uint64_t{1} << bits) - 1;
  word = (word & four) | (word >> 4 * bits & four) << 32;
  word = (word & two * 0x0000000100000001ull) | (word >> 2 * bits & two * 0x0000000100000001ull) << 16;
  return (word & one * 0x0001000100010001ull) | (word >> bits & one * 0x0001000100010001ull) << 8;
}

// n codes from a little-endian bit stream, one a byte; writes up to 7 bytes beyond
void unpack_stream(const std::uint8_t* in, std::size_t n, int bits, std::uint8_t* codes) {
  if (bits == 8) {
    std::memcpy(codes, in, n);
    return;
  }
  const std::uint8_t* end = in + packed_row_bytes(static_cast<std::int64_t>(n), bits);
  for (std::size_t i = 0; i < n; i += 8, in += bits) {
    std::uint64_t word = 0;
    if (in + 8 <= end) std::memcpy(&word, in, 8);
    else std::memcpy(&word, in, std::min<std::size_t>(static_cast<std::size_t>(bits), static_cast<std::size_t>(end - in)));
    word = eight_bytes(word, bits);
    std::memcpy(codes + i, &word, 8);
  }
}

struct Row {
  std::vector<float> wide, units, scales, divisors;
  std::vector<std::uint32_t> tops;
  std::vector<std::int32_t> scale_codes;
  Row(std::int64_t cols, std::int64_t blocks, bool widen)
      : wide(widen ? static_cast<std::size_t>(cols) : 0), units(static_cast<std::size_t>(cols)), scales(static_cast<std::size_t>(blocks)),
        divisors(scales.size()), tops(scales.size()), scale_codes(scales.size()) {}
};

struct Job {
  const BlockCast& cast;
  const CastOps& ops;
  const void* x;
  SourceType type;
  std::int64_t rows, cols, blocks;

  const float* row(std::int64_t r, Row& at) const {
    const std::int64_t first = r * cols;
    if (type == SourceType::fp32) return static_cast<const float*>(x) + first;
    const auto* from = static_cast<const std::uint16_t*>(x) + first;
    (type == SourceType::fp16 ? ops.widen_fp16 : ops.widen_bf16)(from, at.wide.data(), static_cast<std::size_t>(cols));
    return at.wide.data();
  }

  std::uint32_t tops(const float* from, Row& at) const {
    ops.absmax(from, static_cast<std::size_t>(cols), static_cast<std::size_t>(cast.width), at.tops.data());
    std::uint32_t most = 0;
    for (const std::uint32_t top : at.tops) most = std::max(most, top);
    return most;
  }

  // at.scales: as stored; writes their storage
  void scales(Row& at, float factor, std::uint8_t* out) const {
    const auto n = at.scales.size();
    if (cast.scale_type == BlockScale::e8m0) {
      for (std::size_t b = 0; b < n; ++b) {
        const float reach = factor > 0 ? float_of(at.tops[b]) / factor : float_of(at.tops[b]);
        const int code = reach > 0 ? std::clamp(exponent_of(reach) - cast.top + 127, 0, 254) : 0;
        out[b] = static_cast<std::uint8_t>(code);
        at.scales[b] = float_of(code ? static_cast<std::uint32_t>(code) << 23 : 0x00400000u);
      }
      return;
    }
    for (std::size_t b = 0; b < n; ++b) {
      const float reach = factor > 0 ? float_of(at.tops[b]) / factor : float_of(at.tops[b]);
      const float scale = reach / cast.span;
      at.scales[b] = scale != 0 ? std::max(scale, cast.smallest_scale) : 0.0f;
    }
    if (cast.scale_type == BlockScale::fp32) {
      for (float& scale : at.scales) scale = std::min(scale, 3.40282347e38f);
      std::memcpy(out, at.scales.data(), 4 * n);
      return;
    }
    ops.encode(*cast.scale, CastMode::nearest_even, nullptr, nullptr, at.scales.data(), at.scale_codes.data(), n);
    ops.round(*cast.scale, CastMode::nearest_even, nullptr, nullptr, at.scales.data(), at.scales.data(), n);
    for (std::size_t b = 0; b < n; ++b) {
      if (cast.scale_type == BlockScale::float8) {
        out[b] = static_cast<std::uint8_t>(at.scale_codes[b]);
      } else {
        const auto half = static_cast<std::uint16_t>(at.scale_codes[b]);
        std::memcpy(out + 2 * b, &half, 2);
      }
    }
  }

  void encode(std::int64_t r, const float* from, Row& at, std::uint8_t* out) const {
    const auto n = static_cast<std::size_t>(cols);
    ops.divide(from, n, static_cast<std::size_t>(cast.width), at.divisors.data(), at.units.data());
    alignas(64) std::int32_t codes[kCastPiece];
    alignas(64) std::uint8_t bytes[kCastPiece];
    Drawn<float> draws;
    const int bits = cast.cast.grid->bits;
    for (std::size_t begin = 0; begin < n; begin += kCastPiece) {
      const std::size_t size = std::min(kCastPiece, n - begin);
      const float* drawn = draws.of(ops, cast.cast, static_cast<std::uint64_t>(r * blocks * cast.width) + begin, size);
      ops.encode(*cast.cast.grid, cast.cast.mode, nullptr, drawn, at.units.data() + begin, codes, size);
      ops.narrow8(codes, bytes, size);
      pack_stream(bytes, size, bits, out + begin / 8 * static_cast<std::size_t>(bits));
    }
  }
};

}  // namespace

BlockStatus quantize_blocks(const BlockCast& cast, const void* x, SourceType type, std::int64_t rows, std::int64_t cols,
                            std::uint8_t* codes, void* scales, float* tensor_scale) {
  const std::int64_t blocks = (cols + cast.width - 1) / cast.width;
  const Job job{cast, cast_ops(), x, type, rows, cols, blocks};
  const std::int64_t row_bytes = packed_row_bytes(cols, cast.cast.grid->bits), scale_bytes = blocks * block_scale_bytes(cast.scale_type);
  const bool widen = type != SourceType::fp32, two_passes = cast.tensor_divisor > 0;
  const auto pool = default_pool();
  std::vector<std::uint32_t> most(static_cast<std::size_t>(pool->size()) * 16);
  pool->run_if_many(rows * cols, [&](Team& team) {
    Row at(cols, blocks, widen);
    const Share mine = share(team, rows);
    std::uint32_t& top = most[static_cast<std::size_t>(team.rank) * 16];
    float factor = 0;
    if (two_passes) {
      for (std::int64_t r = mine.begin; r < mine.end; ++r) top = std::max(top, job.tops(job.row(r, at), at));
      team.barrier();
      std::uint32_t all = 0;
      for (int rank = 0; rank < team.size; ++rank) all = std::max(all, most[static_cast<std::size_t>(rank) * 16]);
      if (all >= kInfinityBits) return;
      factor = all ? std::max(float_of(all) / cast.tensor_divisor, kSmallestNormal) : 1.0f;
      if (team.rank == 0) *tensor_scale = factor;
    }
    for (std::int64_t r = mine.begin; r < mine.end; ++r) {
      const float* from = job.row(r, at);
      top = std::max(top, job.tops(from, at));
      if (top >= kInfinityBits) return;
      job.scales(at, factor, static_cast<std::uint8_t*>(scales) + r * scale_bytes);
      for (std::size_t b = 0; b < at.scales.size(); ++b) {
        const float divisor = two_passes ? at.scales[b] * factor : at.scales[b];
        at.divisors[b] = divisor == 0 ? 1.0f : divisor;
      }
      job.encode(r, from, at, codes + r * row_bytes);
    }
  });
  std::uint32_t all = 0;
  for (const std::uint32_t top : most) all = std::max(all, top);
  return all > kInfinityBits ? BlockStatus::nan : all == kInfinityBits ? BlockStatus::infinity : BlockStatus::done;
}

bool dequantize_blocks(const BlockDecode& decode, const std::uint8_t* codes, std::int64_t rows, std::int64_t cols, float* y) {
  const std::int64_t row_bytes = packed_row_bytes(cols, decode.bits), blocks = (cols + decode.width - 1) / decode.width;
  float values[256] = {};
  std::copy(decode.values, decode.values + decode.count, values);
  std::atomic<bool> known{true};
  default_pool()->run_if_many(rows * cols, [&](Team& team) {
    std::vector<std::uint8_t> row(static_cast<std::size_t>(cols) + 7);
    const std::uint8_t* code = row.data();
    const Share mine = share(team, rows);
    for (std::int64_t r = mine.begin; r < mine.end; ++r) {
      unpack_stream(codes + r * row_bytes, static_cast<std::size_t>(cols), decode.bits, row.data());
      if (decode.count < 1 << decode.bits) {
        const int top = cols ? *std::max_element(code, code + cols) : 0;
        if (top >= decode.count) known.store(false, std::memory_order_relaxed);
      }
      const std::int64_t first = r / decode.height * blocks;
      float* to = y + r * cols;
      for (std::int64_t b = 0, c = 0; b < blocks; ++b) {
        const float scale = decode.scales[first + b];
        const std::int64_t end = std::min(c + decode.width, cols);
        if (decode.zeros) {
          const float zero = decode.zeros[first + b];
          for (; c < end; ++c) to[c] = (values[code[c]] - zero) * scale;
        } else {
          for (; c < end; ++c) to[c] = values[code[c]] * scale;
        }
      }
    }
  });
  return known.load(std::memory_order_relaxed);
}

}  // namespace anybit
