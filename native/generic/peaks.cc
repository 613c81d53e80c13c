#include "generic/peaks.hpp"

#include <stdexcept>
#include <string>

#include "generic/dispatch.hpp"

#if defined(__x86_64__) && !defined(ANYBIT_SIMDE)
#define ANYBIT_X86_PEAKS 1
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace anybit {
namespace {

constexpr int kSums = 12;  // enough independent sums to hide the latency of one

bool usable(std::string_view isa) {
  for (const IsaInfo& one : isa_list())
    if (isa == one.name) return one.supported();
  return false;
}

#if ANYBIT_X86_PEAKS
// The empty assembly keeps each operand unknown, or equal sums would be made once.
__attribute__((target("avx2,fma"))) double fma_avx2(int64_t rounds) {
  __m256 a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(0.25f), sums[kSums] = {};
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) {
      asm("" : "+x"(a));
      sums[i] = _mm256_fmadd_ps(a, b, sums[i]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i) asm volatile("" : : "x"(sums[i]));
  return static_cast<double>(rounds) * kSums * 8 * 2;
}

__attribute__((target("avx512f"))) double fma_avx512(int64_t rounds) {
  __m512 a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(0.25f), sums[kSums] = {};
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) {
      asm("" : "+v"(a));
      sums[i] = _mm512_fmadd_ps(a, b, sums[i]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i) asm volatile("" : : "v"(sums[i]));
  return static_cast<double>(rounds) * kSums * 16 * 2;
}

__attribute__((target("avx512f,avx512bf16"))) double dot_bf16(int64_t rounds) {
  __m512i a = _mm512_set1_epi32(0x3f003e80), b = _mm512_set1_epi32(0x3e803f00);
  __m512 sums[kSums] = {};
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) {
      asm("" : "+v"(a));
      sums[i] = _mm512_dpbf16_ps(sums[i], reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i) asm volatile("" : : "v"(sums[i]));
  return static_cast<double>(rounds) * kSums * 32 * 2;
}
#endif

#if ANYBIT_HAVE_AMX && ANYBIT_X86_PEAKS
// Eight tiles of 16 rows of 64 bytes; 16 x 16 sums of 64 int8 or 32 bf16 products each instruction.
template <bool kBf16>
__attribute__((target("amx-tile,amx-int8,amx-bf16,avx512f"))) double tiles(int64_t rounds) {
  alignas(64) uint8_t config[64] = {1};
  for (int tile = 0; tile < 8; ++tile) {
    config[16 + 2 * tile] = 64;
    config[48 + tile] = 16;
  }
  asm volatile("" : : "r"(config) : "memory");  // GCC 12 takes the configuration for 8 bytes and drops the other stores
  _tile_loadconfig(config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (int64_t round = 0; round < rounds; ++round) {
    if constexpr (kBf16) {
      _tile_dpbf16ps(0, 6, 7);
      _tile_dpbf16ps(1, 6, 7);
      _tile_dpbf16ps(2, 6, 7);
      _tile_dpbf16ps(3, 6, 7);
      _tile_dpbf16ps(4, 6, 7);
      _tile_dpbf16ps(5, 6, 7);
    } else {
      _tile_dpbusd(0, 6, 7);
      _tile_dpbusd(1, 6, 7);
      _tile_dpbusd(2, 6, 7);
      _tile_dpbusd(3, 6, 7);
      _tile_dpbusd(4, 6, 7);
      _tile_dpbusd(5, 6, 7);
    }
  }
  _tile_release();
  return static_cast<double>(rounds) * 6 * 16 * 16 * (kBf16 ? 32 : 64) * 2;
}
#endif

double fma_generic(int64_t rounds) {
#if defined(__aarch64__)
  float32x4_t a = vdupq_n_f32(0.5f), b = vdupq_n_f32(0.25f), sums[kSums];
  for (auto& sum : sums) sum = vdupq_n_f32(0.0f);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) {
      asm("" : "+w"(a));
      sums[i] = vfmaq_f32(sums[i], a, b);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i) asm volatile("" : : "w"(sums[i]));
  return static_cast<double>(rounds) * kSums * 4 * 2;
#else
  volatile float sink = 0.0f;
  float a = 0.5f, sums[kSums] = {};
  for (int64_t round = 0; round < rounds; ++round)
    for (int i = 0; i < kSums; ++i) {
      sums[i] += a * 0.25f;
      a += sums[i] * 1e-30f;
    }
  for (float sum : sums) sink = sum;
  (void)sink;
  return static_cast<double>(rounds) * kSums * 2 * 2;
#endif
}

}  // namespace

double peak_rounds(std::string_view kind, int64_t rounds) {
  const bool amx = usable("amx"), avx512 = usable("avx512"), bf16 = usable("avx512bf16"), avx2 = usable("avx2");
  if (kind == "fp32") {
#if ANYBIT_X86_PEAKS
    if (avx512) return fma_avx512(rounds);
    if (avx2) return fma_avx2(rounds);
#endif
    return fma_generic(rounds);
  }
  if (kind == "bf16") {
#if ANYBIT_X86_PEAKS
    if (bf16) return dot_bf16(rounds);
#endif
    return 0.0;
  }
  if (kind == "int8_tiles" || kind == "bf16_tiles") {
#if ANYBIT_HAVE_AMX && ANYBIT_X86_PEAKS
    if (amx) return kind == "int8_tiles" ? tiles<false>(rounds) : tiles<true>(rounds);
#endif
    return 0.0;
  }
  (void)amx, (void)avx512, (void)bf16, (void)avx2;
  throw std::invalid_argument("unknown kind of peak '" + std::string(kind) + "'; there are fp32, bf16, int8_tiles, bf16_tiles");
}

}  // namespace anybit
