// Instructions on tiles: the compiler's intrinsics, and functions with tile registers as template arguments, which those take as literals only.
#pragma once

#include <cstdint>

#ifdef ANYBIT_SIMDE  // tests: the same code on any machine, every instruction emulated
#include "emulated_amx.hpp"
#else
#include <immintrin.h>
#endif

namespace anybit::amx {

#ifdef ANYBIT_SIMDE
template <int To> void tile_load(const void* from, int64_t stride) { _tile_loadd(To, from, stride); }
template <int From> void tile_store(void* to, int64_t stride) { _tile_stored(From, to, stride); }
template <int Sum, int X, int Weights> void tile_dot_bytes() { _tile_dpbsud(Sum, X, Weights); }
template <int Sum, int X, int Weights> void tile_dot_halves() { _tile_dpbf16ps(Sum, X, Weights); }
#else
template <int To> inline __attribute__((always_inline)) void tile_load(const void* from, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(To) : "memory");
}
template <int From> inline __attribute__((always_inline)) void tile_store(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(From) : "memory");
}
// x signed, weights not
template <int Sum, int X, int Weights> inline __attribute__((always_inline)) void tile_dot_bytes() {
  asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sum), "i"(X), "i"(Weights));
}
template <int Sum, int X, int Weights> inline __attribute__((always_inline)) void tile_dot_halves() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sum), "i"(X), "i"(Weights));
}
#endif

}  // namespace anybit::amx
