// x as three digits of eight bits, for weights that are integers: three rows of codes, of which the integer kernels make three rows of results.

// Slot k is about unit * (2^16 high + 2^8 middle + low), digits from -128 to 127, off by half a unit at most.  unit is 2^-22 times a power of two
// that is no more than the group's largest magnitude and more than half of it, so bf16 is held exactly down to 2^-14 of that, and what is
// rounded off below is no more than a sum of the group in float32 loses.  Groups that hold an infinity or NaN get scale NaN.
void split_floats(const float* x, int64_t slots, int64_t group, int8_t* codes, int64_t ldc, float* scales, int64_t groups, int32_t* sums, int64_t lds) {
  int32_t high_sum = 0, middle_sum = 0, low_sum = 0;
  for (int d = 0; d < kDigits; ++d) sums[d] = 0;
  for (int64_t k0 = 0, g = 0; k0 < slots; k0 += group, ++g) {
    const int64_t k1 = k0 + group < slots ? k0 + group : slots;
    I largest = zero_i();
    for (int64_t k = k0; k < k1; k += 16) largest = max_i(largest, abs_bits(load_f(x + k)));
    const int32_t top = reduce_max(largest);
    // the next power of two where all bits of a bf16 are set: the highest digit would be 128; and clear of subnormal units
    const int32_t exponent = (top + 0x10000) >> 23 > 22 + 16 ? (top + 0x10000) >> 23 : 22 + 16;
    const F inverse = splat_f(float_of_bits(static_cast<uint32_t>(254 + 22 - exponent) << 23));
    const float scale = top >= 0x7f800000 ? float_of_bits(0x7fc00000u) : float_of_bits(static_cast<uint32_t>(exponent - 22 + 16) << 23);
    for (int d = 0; d < kDigits; ++d) scales[d * groups + g] = scale;
    for (int64_t k = k0; k < k1; k += 32) {
      __m512i highs = _mm512_setzero_si512(), middles = highs, lows = highs;
#pragma GCC unroll 2
      for (int64_t i = k; i < k + 32; i += 16) {
        const __m512i all = round_i(mul_f(load_f(x + i), inverse)).v, half = _mm512_set1_epi32(128);
        const __m512i upper = _mm512_srai_epi32(_mm512_add_epi32(all, half), 8), high = _mm512_srai_epi32(_mm512_add_epi32(upper, half), 8);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + i), _mm512_cvtepi32_epi8(high));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + ldc + i), _mm512_cvtepi32_epi8(upper));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + 2 * ldc + i), _mm512_cvtepi32_epi8(all));
        highs = _mm512_add_epi32(highs, high);
        middles = _mm512_add_epi32(middles, _mm512_sub_epi32(upper, _mm512_slli_epi32(high, 8)));
        lows = _mm512_add_epi32(lows, _mm512_sub_epi32(all, _mm512_slli_epi32(upper, 8)));
      }
      int32_t* to = sums + (k / 32 + 1) * lds;
      to[0] = high_sum += reduce_add({highs});
      to[1] = middle_sum += reduce_add({middles});
      to[2] = low_sum += reduce_add({lows});
    }
  }
}
