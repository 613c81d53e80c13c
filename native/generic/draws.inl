// Random numbers of stochastic rounding: words of Philox made into what a position must exceed for its number to go up.
//
// stochastic, any position   the upper 24 bits of the word times 2^-24
// stochastic, k bits         draw d goes up where the position, rounded to a multiple of 2^-k with ties to even, is above d 2^-k.  That is where
//                            the position is above (2 d + 1) 2^-(k+1), or equal to it and d odd: so an odd d takes the number just
//                            below, and none has to be rounded when it is compared.
// fair                       0 or the number just below 1, by the highest bit
#pragma once

#include "generic/cast_fp64.inl"
#include "generic/philox.inl"

namespace anybit::ANYBIT_VECTOR_ISA {

template <class T> inline typename Lanes<T>::Vector draw_of(WordVec words, Draw draw) {
  using Vector = typename Lanes<T>::Vector;
  using Pattern = typename Lanes<T>::Pattern;
  const auto just_below = [](Vector v, IntVec where) {
    return reinterpret_cast<Vector>(reinterpret_cast<Pattern>(v) - __builtin_convertvector(where, Pattern));
  };
  const auto from = [](IntVec v) { return __builtin_convertvector(v, Vector); };
  if (draw.fair) {
    const IntVec high = reinterpret_cast<IntVec>(words >> 31);
    return just_below(from(high), high);
  }
  if (draw.bits == 0) return from(reinterpret_cast<IntVec>(words >> 8)) * static_cast<T>(5.9604644775390625e-8);  // 2^-24
  const IntVec d = reinterpret_cast<IntVec>(words >> (32 - draw.bits));
  // 2 d + 1 has at most 25 bits.  Where float32 rounds it, its positions have the spacing of d, and (even d) 2 d or (odd) 2 d + 2 remains.
  return just_below(from(2 * d + 1) * (static_cast<T>(0.5) / static_cast<T>(1 << draw.bits)), d & 1);
}

// Elements [start, start + n) of a stream, n <= kCastPiece.
template <class T> inline void draws(std::uint64_t seed, std::uint64_t start, Draw draw, T* out, std::size_t n) {
  alignas(64) std::uint32_t buffer[kCastPiece + 8];
  const std::uint64_t first = start / 4;
  philox(seed, first, buffer, static_cast<std::size_t>((start + n + 3) / 4 - first));
  const std::uint32_t* words = buffer + (start - 4 * first);
  for (std::size_t i = 0; i < n; i += kLanes) {
    const std::size_t part = n - i < kLanes ? n - i : kLanes;
    const IntVec w = load_lanes(reinterpret_cast<const std::int32_t*>(words) + i, part);
    store_lanes(out + i, draw_of<T>(reinterpret_cast<WordVec>(w), draw), part);
  }
}

}  // namespace anybit::ANYBIT_VECTOR_ISA
