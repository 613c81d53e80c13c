// One float vector type for each instruction set, over the compilers' vector extension: the arithmetic is written once with
// plain operators, and only conversions between widths need intrinsics.  Included once by each <isa>/vector.cc, which defines
// ANYBIT_VECTOR_ISA, the inner namespace that keeps the copies apart.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace anybit::ANYBIT_VECTOR_ISA {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;
inline constexpr int kAccumulators = 24;  // of 32 registers
#elif defined(__AVX2__)
inline constexpr int kLanes = 8;
inline constexpr int kAccumulators = 12;  // of 16 registers
#elif defined(__ARM_NEON)
inline constexpr int kLanes = 4;
inline constexpr int kAccumulators = 24;
#else
inline constexpr int kLanes = 4;
inline constexpr int kAccumulators = 8;
#endif

typedef float Vec __attribute__((vector_size(4 * kLanes)));
typedef std::int32_t IntVec __attribute__((vector_size(4 * kLanes)));

struct Half {
  std::uint16_t bits;
};

// x - 0 and not 0 + x: only the first is x for every x, -0 included, so only it compiles to a plain broadcast.
inline Vec splat(float x) { return x - Vec{}; }
inline IntVec splat(std::int32_t x) { return x - IntVec{}; }
inline IntVec bits_of(Vec x) { return reinterpret_cast<IntVec>(x); }
inline Vec float_of(IntVec x) { return reinterpret_cast<Vec>(x); }

inline Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }

// The first n < kLanes floats; the other lanes are `rest`.
inline Vec load_part(const float* p, std::size_t n, float rest) {
  Vec v = splat(rest);
  std::memcpy(&v, p, n * sizeof(float));
  return v;
}
inline void store_part(float* p, Vec v, std::size_t n) { std::memcpy(p, &v, n * sizeof(float)); }

// IEEE binary16 in software, round to nearest even, subnormals kept.
inline float half_to_float(std::uint16_t h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000u) << 16, rest = h & 0x7fffu;
  std::uint32_t bits;
  if (rest >= 0x7c00u) {
    bits = 0x7f800000u | (rest & 0x3ffu) << 13;
  } else if (rest >= 0x0400u) {
    bits = (rest << 13) + (112u << 23);
  } else {
    const float small = static_cast<float>(rest) * 5.9604644775390625e-8f;  // 2^-24
    std::memcpy(&bits, &small, 4);
  }
  bits |= sign;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}

inline std::uint16_t float_to_half(float f) {
  std::uint32_t x;
  std::memcpy(&x, &f, 4);
  const std::uint32_t sign = (x >> 16) & 0x8000u, a = x & 0x7fffffffu;
  if (a > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);
  if (a >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);
  if (a < 0x38800000u) {  // below 2^-14: adding 0.5 rounds to a multiple of 2^-24
    float v;
    std::memcpy(&v, &a, 4);
    v += 0.5f;
    std::uint32_t r;
    std::memcpy(&r, &v, 4);
    return static_cast<std::uint16_t>(sign | (r - 0x3f000000u));
  }
  const std::uint32_t odd = (a >> 13) & 1u;
  return static_cast<std::uint16_t>(sign | ((a - (112u << 23) + 0xfffu + odd) >> 13));
}

#if defined(__AVX512F__)
inline Vec load(const Half* p) {
  return reinterpret_cast<Vec>(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
}
inline void store(Half* p, Vec v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(reinterpret_cast<__m512>(v), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline Vec load(const std::int8_t* p) {
  return reinterpret_cast<Vec>(
      _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))));
}
#elif defined(__AVX2__)
inline Vec load(const Half* p) {
  return reinterpret_cast<Vec>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
inline void store(Half* p, Vec v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(reinterpret_cast<__m256>(v), _MM_FROUND_TO_NEAREST_INT));
}
inline Vec load(const std::int8_t* p) {
  return reinterpret_cast<Vec>(
      _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))));
}
#elif defined(__ARM_NEON)
inline Vec load(const Half* p) {
  return reinterpret_cast<Vec>(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const std::uint16_t*>(p)))));
}
inline void store(Half* p, Vec v) {
  vst1_u16(reinterpret_cast<std::uint16_t*>(p), vreinterpret_u16_f16(vcvt_f16_f32(reinterpret_cast<float32x4_t>(v))));
}
inline Vec load(const std::int8_t* p) { return Vec{float(p[0]), float(p[1]), float(p[2]), float(p[3])}; }
#else
inline Vec load(const Half* p) {
  Vec v;
  for (int i = 0; i < kLanes; ++i) v[i] = half_to_float(p[i].bits);
  return v;
}
inline void store(Half* p, Vec v) {
  for (int i = 0; i < kLanes; ++i) p[i].bits = float_to_half(v[i]);
}
inline Vec load(const std::int8_t* p) {
  Vec v;
  for (int i = 0; i < kLanes; ++i) v[i] = static_cast<float>(p[i]);
  return v;
}
#endif

// a * b + c; one rounding where the machine has it (the build turns the compiler's own contraction off).
#if defined(__AVX512F__)
inline Vec fma_of(Vec a, Vec b, Vec c) {
  return reinterpret_cast<Vec>(
      _mm512_fmadd_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
}
#elif defined(__AVX2__)
inline Vec fma_of(Vec a, Vec b, Vec c) {
  return reinterpret_cast<Vec>(
      _mm256_fmadd_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
}
#elif defined(__ARM_NEON)
inline Vec fma_of(Vec a, Vec b, Vec c) {
  return reinterpret_cast<Vec>(vfmaq_f32(reinterpret_cast<float32x4_t>(c), reinterpret_cast<float32x4_t>(a),
                                         reinterpret_cast<float32x4_t>(b)));
}
#else
inline Vec fma_of(Vec a, Vec b, Vec c) { return a * b + c; }
#endif

// x 2^n of whole n from -252 to 254, subnormal results and infinity included.
#if defined(__AVX512F__)
inline Vec times_power_of_two(Vec x, Vec n) {
  return reinterpret_cast<Vec>(_mm512_scalef_ps(reinterpret_cast<__m512>(x), reinterpret_cast<__m512>(n)));
}
#else
inline Vec times_power_of_two(Vec x, Vec n) {
  const IntVec k = bits_of(n + 12582912.0f) - bits_of(splat(12582912.0f)), low = k >> 1, high = k - low;  // adding 1.5 * 2^23 leaves n in the mantissa
  return x * float_of((low + 127) << 23) * float_of((high + 127) << 23);
}
#endif

inline Vec select(IntVec mask, Vec a, Vec b) { return mask ? a : b; }
// A NaN in the first operand stays: a comparison with it is false.
#if defined(__AVX512F__)
inline Vec max_of(Vec a, Vec b) { return reinterpret_cast<Vec>(_mm512_max_ps(reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(a))); }
inline Vec min_of(Vec a, Vec b) { return reinterpret_cast<Vec>(_mm512_min_ps(reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(a))); }
#else
inline Vec max_of(Vec a, Vec b) { return select(a < b, b, a); }
inline Vec min_of(Vec a, Vec b) { return select(a > b, b, a); }
#endif
inline Vec abs_of(Vec a) { return float_of(bits_of(a) & splat(0x7fffffff)); }

inline float sum(Vec v) {
  float lanes[kLanes];
  store(lanes, v);
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}
inline float largest(Vec v) {
  float lanes[kLanes];
  store(lanes, v);
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] = lanes[i + half] > lanes[i] ? lanes[i + half] : lanes[i];
  }
  return lanes[0];
}

// a0 b0 a1 b1 ... of the lower halves, and of the upper halves.
template <int... I>
inline Vec interleaved(Vec a, Vec b, bool upper, std::integer_sequence<int, I...>) {
  return upper ? __builtin_shufflevector(a, b, (I % 2 * kLanes + I / 2 + kLanes / 2)...)
               : __builtin_shufflevector(a, b, (I % 2 * kLanes + I / 2)...);
}
// Lane i is all lanes of v[i] together, for kLanes vectors at once; v is overwritten.
template <class F>
inline Vec reduce_each(Vec* v, F f) {
  constexpr std::make_integer_sequence<int, kLanes> lanes{};
#pragma GCC unroll 4
  for (int half = kLanes / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) v[i] = f(interleaved(v[i], v[i + half], false, lanes), interleaved(v[i], v[i + half], true, lanes));
  }
  return v[0];
}

}  // namespace anybit::ANYBIT_VECTOR_ISA
