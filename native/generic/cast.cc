#include "generic/cast.hpp"

#include <algorithm>
#include <atomic>

#include "generic/arena.hpp"
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

// Results of so many bytes are written past the caches.  That spares the reading of their lines, a third of all traffic, and costs who reads
// them next from a cache that would have held them.  Fresh pages are in the caches anyway, from being zeroed.
constexpr std::int64_t kStreamed = std::int64_t{64} << 20;

// f(begin, end) for pieces of [0, n), on all threads where that pays; whether any call returned true.  Each thread ends with last().
template <class F, class Last> bool any_piece(std::int64_t n, F f, Last last) {
  std::atomic<bool> any{false};
  const auto pieces = [&](std::int64_t begin, std::int64_t end) {
    bool mine = false;
    for (; begin < end; begin += kPiece) mine |= f(begin, std::min(begin + kPiece, end));
    if (mine) any.store(true, std::memory_order_relaxed);
    last();
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
template <class F> bool any_piece(std::int64_t n, F f) {
  return any_piece(n, f, [] {});
}

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

namespace {

// Results of a piece: values as patterns of float32, or codes.
struct Values {
  static constexpr bool kCodes = false;
  static std::int32_t high(const Beyond& b) { return b.high_value; }
  static std::int32_t low(const Beyond& b) { return b.low_value; }
};
struct Codes {
  static constexpr bool kCodes = true;
  static std::int32_t high(const Beyond& b) { return b.high_code; }
  static std::int32_t low(const Beyond& b) { return b.low_code; }
};

void replace(const CastOps& ops, const Beyond& b, const float* drawn, const float* x, std::int32_t high, std::int32_t low, std::int32_t* y,
             std::size_t n) {
  ops.replace(b, b.drawn ? drawn : nullptr, x, high, low, y, n);
}
void replace(const CastOps& ops, const Beyond& b, const double* drawn, const double* x, std::int32_t high, std::int32_t low,
             std::int32_t* y, std::size_t n) {
  ops.replace_fp64(b, b.drawn ? drawn : nullptr, x, high, low, y, n);
}

// What the kernels round: float32 itself, and float64 as the nearest float32 in the mode of fp32, else in the odd one.
const float* narrowed(const CastOps&, const Cast&, const float*, const float* x, float*, std::size_t) { return x; }
const float* narrowed(const CastOps& ops, const Cast& cast, const double* drawn, const double* x, float* buffer, std::size_t n) {
  ops.narrow_fp64(is_fp32(*cast.grid) ? cast.mode : CastMode::odd, drawn, x, buffer, n);
  return buffer;
}
const float* float_draws(const float* drawn) { return drawn; }
const float* float_draws(const double*) { return nullptr; }  // spent by narrowed

template <class R, class T> bool one_piece(const CastOps& ops, const Cast& cast, const T* x, std::uint64_t at, std::int32_t* y, std::size_t n) {
  Drawn<T> draws;
  alignas(64) float buffer[kCastPiece];
  const T* drawn = draws.of(ops, cast, at, n);
  const float* from = narrowed(ops, cast, drawn, x, buffer, n);
  const bool after = cast.beyond && (cast.beyond->drawn || sizeof(T) == 8);  // else on the way
  const Beyond* beyond = after ? nullptr : cast.beyond;
  bool nan;
  if constexpr (R::kCodes) nan = ops.encode(*cast.grid, cast.mode, beyond, float_draws(drawn), from, y, n);
  else nan = ops.round(*cast.grid, cast.mode, beyond, float_draws(drawn), from, reinterpret_cast<float*>(y), n);
  if (after) replace(ops, *cast.beyond, drawn, x, R::high(*cast.beyond), R::low(*cast.beyond), y, n);
  return nan;
}

template <class T> bool encode_all(const Cast& cast, const T* x, CodeType type, void* codes, std::int64_t n) {
  const CastOps& ops = cast_ops();
  return any_piece(n, [&](std::int64_t begin, std::int64_t end) {
    const auto size = static_cast<std::size_t>(end - begin);
    alignas(64) std::int32_t piece[kCastPiece];
    std::int32_t* to = type == CodeType::i32 ? static_cast<std::int32_t*>(codes) + begin : piece;
    const bool nan = one_piece<Codes>(ops, cast, x + begin, static_cast<std::uint64_t>(begin), to, size);
    if (type == CodeType::u8) ops.narrow8(to, static_cast<std::uint8_t*>(codes) + begin, size);
    if (type == CodeType::u16) ops.narrow16(to, static_cast<std::uint16_t*>(codes) + begin, size);
    return nan;
  });
}

}  // namespace

bool cast_round(const Cast& cast, const float* x, float* y, std::int64_t n) {
  const CastOps& ops = cast_ops();
  if (4 * n >= kStreamed && arena_result_is_reused(y)) {
    const auto streamed = [&](std::int64_t begin, std::int64_t end) {
      alignas(64) std::int32_t piece[kCastPiece];
      const auto size = static_cast<std::size_t>(end - begin);
      const bool nan = one_piece<Values>(ops, cast, x + begin, static_cast<std::uint64_t>(begin), piece, size);
      ops.stream(reinterpret_cast<const float*>(piece), y + begin, size);
      return nan;
    };
    return any_piece(n, streamed, [&] { ops.fence(); });
  }
  return any_piece(n, [&](std::int64_t begin, std::int64_t end) {
    return one_piece<Values>(ops, cast, x + begin, static_cast<std::uint64_t>(begin), reinterpret_cast<std::int32_t*>(y + begin),
                             static_cast<std::size_t>(end - begin));
  });
}

bool cast_round(const Cast& cast, const double* x, double* y, std::int64_t n) {
  const CastOps& ops = cast_ops();
  return any_piece(n, [&](std::int64_t begin, std::int64_t end) {
    const auto size = static_cast<std::size_t>(end - begin);
    alignas(64) float narrow[kCastPiece];
    const bool nan = one_piece<Values>(ops, cast, x + begin, static_cast<std::uint64_t>(begin), reinterpret_cast<std::int32_t*>(narrow), size);
    ops.widen_fp32(narrow, y + begin, size);
    return nan;
  });
}

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
