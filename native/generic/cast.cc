#include "generic/cast.hpp"

#include <algorithm>
#include <atomic>

#include "generic/dispatch.hpp"
#include "generic/thread_pool.hpp"

namespace anybit {

const CastOps& cast_ops() {
  const std::string_view isa = active_isa().vectors;
#ifdef ANYBIT_HAVE_AVX512
  if (isa == "avx512" && cast_ops_avx512()) return *cast_ops_avx512();
#endif
#ifdef ANYBIT_HAVE_AVX2
  if ((isa == "avx512" || isa == "avx2") && cast_ops_avx2()) return *cast_ops_avx2();
#endif
#ifdef ANYBIT_HAVE_NEON
  if (isa == "neon" && cast_ops_neon()) return *cast_ops_neon();
#endif
  return *cast_ops_scalar();
}

namespace {

constexpr std::int64_t kPiece = static_cast<std::int64_t>(kCastPiece);
constexpr std::int64_t kAlone = 32 * kPiece;  // up to here one thread is faster than waking others

// f(begin, end) for pieces of [0, n), on all threads where that pays; whether any call returned true.
template <class F> bool any_piece(std::int64_t n, F f) {
  std::atomic<bool> any{false};
  const auto pieces = [&](std::int64_t begin, std::int64_t end) {
    bool mine = false;
    for (; begin < end; begin += kPiece) mine |= f(begin, std::min(begin + kPiece, end));
    if (mine) any.store(true, std::memory_order_relaxed);
  };
  if (n <= kAlone) {
    pieces(0, n);
  } else {
    default_pool()->run([&](Team& team) {
      const Share mine = share(team, n, kPiece);
      pieces(mine.begin, mine.end);
    });
  }
  return any.load();
}

// The random words of elements [begin, begin + n) of a stream; null for modes that draw none.
struct Words {
  alignas(64) std::uint32_t buffer[kCastPiece + 8];
  const std::uint32_t* of(const CastOps& ops, const Cast& cast, std::uint64_t begin, std::size_t n) {
    if (!is_random(cast.mode)) return nullptr;
    const std::uint64_t at = cast.stream.start + begin, first = at / 4;
    ops.philox(cast.stream.seed, first, buffer, static_cast<std::size_t>((at + n + 3) / 4 - first));
    return buffer + (at - 4 * first);
  }
};

template <class T> bool decode_all(const float* values, std::int64_t count, const T* codes, float* y, std::int64_t n) {
  return !any_piece(n, [&](std::int64_t begin, std::int64_t end) {
    std::uint32_t most = 0;
    for (std::int64_t i = begin; i < end; ++i) most = std::max(most, static_cast<std::uint32_t>(codes[i]));
    if (most >= static_cast<std::uint64_t>(count)) return true;
    for (std::int64_t i = begin; i < end; ++i) y[i] = values[codes[i]];
    return false;
  });
}

}  // namespace

bool cast_round(const Cast& cast, const float* x, float* y, std::int64_t n) {
  const CastOps& ops = cast_ops();
  return any_piece(n, [&](std::int64_t begin, std::int64_t end) {
    const auto size = static_cast<std::size_t>(end - begin);
    Words words;
    return ops.round(*cast.grid, cast.mode, words.of(ops, cast, static_cast<std::uint64_t>(begin), size), x + begin, y + begin, size);
  });
}

bool cast_round(const Cast& cast, const double* x, double* y, std::int64_t n) {
  const CastOps& ops = cast_ops();
  return any_piece(n, [&](std::int64_t begin, std::int64_t end) {
    const auto size = static_cast<std::size_t>(end - begin);
    alignas(64) float narrow[kCastPiece];
    ops.narrow_fp64(x + begin, narrow, size);
    const bool nan = ops.round(*cast.grid, cast.mode, nullptr, narrow, narrow, size);
    ops.widen_fp32(narrow, y + begin, size);
    return nan;
  });
}

namespace {

// float64 in pieces rounded to odd
const float* narrowed(const CastOps& ops, const double* x, float* buffer, std::size_t n) {
  ops.narrow_fp64(x, buffer, n);
  return buffer;
}
const float* narrowed(const CastOps&, const float* x, float*, std::size_t) { return x; }

template <class T> bool encode_all(const Cast& cast, const T* x, CodeType type, void* codes, std::int64_t n) {
  const CastOps& ops = cast_ops();
  return any_piece(n, [&](std::int64_t begin, std::int64_t end) {
    const auto size = static_cast<std::size_t>(end - begin);
    Words words;
    alignas(64) std::int32_t piece[kCastPiece];
    alignas(64) float buffer[kCastPiece];
    const float* from = narrowed(ops, x + begin, buffer, size);
    std::int32_t* to = type == CodeType::i32 ? static_cast<std::int32_t*>(codes) + begin : piece;
    const bool nan = ops.encode(*cast.grid, cast.mode, words.of(ops, cast, static_cast<std::uint64_t>(begin), size), from, to, size);
    if (type == CodeType::u8) ops.narrow8(to, static_cast<std::uint8_t*>(codes) + begin, size);
    if (type == CodeType::u16) ops.narrow16(to, static_cast<std::uint16_t*>(codes) + begin, size);
    return nan;
  });
}

}  // namespace

bool cast_encode(const Cast& cast, const float* x, CodeType type, void* codes, std::int64_t n) {
  return encode_all(cast, x, type, codes, n);
}
bool cast_encode(const Cast& cast, const double* x, CodeType type, void* codes, std::int64_t n) {
  return encode_all(cast, x, type, codes, n);
}

bool cast_decode(const float* values, std::int64_t count, CodeType type, const void* codes, float* y, std::int64_t n) {
  switch (type) {
    case CodeType::u8: return decode_all(values, count, static_cast<const std::uint8_t*>(codes), y, n);
    case CodeType::u16: return decode_all(values, count, static_cast<const std::uint16_t*>(codes), y, n);
    default: return decode_all(values, count, static_cast<const std::int32_t*>(codes), y, n);
  }
}

}  // namespace anybit
