// Activation quantization, probes, and the table of everything.  Compiled once per instruction set, inside its namespace.

int32_t top_of(const float* x, int64_t count) {
  I top = zero_i();
  int64_t k = 0;
  for (; k + 16 <= count; k += 16) top = max_i(top, abs_bits(load_f(x + k)));
  int32_t bits = reduce_max(top);  // magnitudes order like their bit patterns
  for (; k < count; ++k) {
    int32_t one;
    __builtin_memcpy(&one, x + k, 4);
    one &= 0x7fffffff;
    bits = one > bits ? one : bits;
  }
  return bits;
}

constexpr int32_t kClear = 0x3efff800;  // 0.5 - 2^-14
constexpr int64_t kScalesAtOnce = 8;

// Codes = nearest-even of x / scale with scale = max|x| / levels a group (the first `wide` groups: 127 levels), as true divisions round:
// the codes are the reference's.  store(k, codes of 16 slots, of the next 16).
// A group that holds an infinity or NaN gets scale NaN, so that the result is NaN and not silently wrong.
//
// Division is slow.  Where no code is above 128 (`Small`), a product with the reciprocal is off the quotient by less than 2^-15 and rounds
// like it, unless it is that near to the middle between two codes: a group in which one is, or whose reciprocal is out of range, is divided.
// A scale that is subnormal may be so much too small that the largest quotient is no code: codes of such groups saturate.
//
// The scales of a few groups come first: a largest magnitude and a division wait long for each other, but not for another group's.
template <bool Small, class Store>
ANYBIT_INLINE void round_row(const float* x, int64_t slots, const RowRounding& how, float* scales, Store&& store) {
  const auto end_of = [&](int64_t k0) { return k0 + how.group < slots ? k0 + how.group : slots; };
  for (int64_t k0 = 0, g = 0; k0 < slots; k0 += how.group, ++g) {
    if (g % kScalesAtOnce == 0) {
      for (int64_t k = k0, i = g; i < g + kScalesAtOnce && k < slots; k += how.group, ++i) {
        scales[i] = how.given;
        if (how.given != 0.0f) continue;
        const int32_t bits = top_of(x + k, end_of(k) - k);
        scales[i] = bits >= 0x7f800000 ? float_of_bits(0x7fc00000u) : float_of_bits(static_cast<uint32_t>(bits)) / (i < how.wide ? 127.0f : how.levels);
      }
    }
    const int64_t k1 = end_of(k0);
    const float scale = scales[g];
    if (!(scale > 0.0f)) {
      for (int64_t k = k0; k < k1; k += 32) store(k, zero_i(), zero_i());
      continue;
    }
    if (Small && scale >= 0x1p-126f && scale < 0x1p126f) {
      const F inverse = splat_f(1.0f / scale);
      I farthest = zero_i();  // from a code
      const auto rounded = [&](const float* from) ANYBIT_UNROLLED {
        const F product = mul_f(load_f(from), inverse);
        const I code = round_i(product);
        farthest = max_i(farthest, abs_bits(sub_f(product, to_f(code))));
        return code;
      };
      for (int64_t k = k0; k < k1; k += 32) {
        const I first = rounded(x + k), second = rounded(x + k + 16);
        store(k, first, second);
      }
      if (reduce_max(farthest) < kClear) continue;
    }
    const F divisor = splat_f(scale);
    const I lowest = splat_i(g < how.wide ? -127 : -static_cast<int32_t>(how.levels));
    const auto divided = [&](const float* from) ANYBIT_UNROLLED {
      const I least = max_i(round_i(div_f(load_f(from), divisor)), lowest);
      return sub_i(zero_i(), max_i(sub_i(zero_i(), least), lowest));
    };
    for (int64_t k = k0; k < k1; k += 32) {
      const I first = divided(x + k), second = divided(x + k + 16);
      store(k, first, second);
    }
  }
}

void quantize_row(const float* x, int64_t slots, const RowRounding& how, int8_t* codes, float* scales, int32_t* sums, int64_t lds) {
  round_row<true>(x, slots, how, scales, [&](int64_t k, const I& a, const I& b) ANYBIT_UNROLLED {
    store_s8(codes + k, a);
    store_s8(codes + k + 16, b);
    sums[(k / 32 + 1) * lds] = reduce_add(add_i(a, b));
  });
  int32_t running = 0;
  sums[0] = 0;
  for (int64_t tile = 1; tile <= slots / 32; ++tile) sums[tile * lds] = running += sums[tile * lds];
}

void quantize_words(const float* x, int64_t slots, const RowRounding& how, int16_t* codes, float* scales, float* squares) {
  float sums[kSpans] = {};
  round_row<false>(x, slots, how, scales, [&](int64_t k, const I& a, const I& b) ANYBIT_UNROLLED {
    store_s16(codes + k, a);
    store_s16(codes + k + 16, b);
    alignas(64) float square[32];
    store_f(square, mul_f(to_f(a), to_f(a)));
    store_f(square + 16, mul_f(to_f(b), to_f(b)));
    float eight[4], *largest = squares + k / kWordChunk * kSpans;
#pragma GCC unroll 4
    for (int part = 0; part < 4; ++part) {
      const float* s = square + 8 * part;
      eight[part] = ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
    }
    const auto more = [](float one, float other) { return one > other ? one : other; };
    const float first = eight[0] + eight[1], second = eight[2] + eight[3];
    largest[0] = more(largest[0], more(more(eight[0], eight[1]), more(eight[2], eight[3])));
    largest[1] = more(largest[1], more(first, second));
    largest[2] = more(largest[2], first + second);
    for (int i = 3; i < kSpans; ++i) {
      sums[i] += first + second;
      if (((k + 32) & ((8 << i) - 1)) != 0 && k + 32 < slots) continue;
      largest[i] = more(largest[i], sums[i]);
      sums[i] = 0.0f;
    }
  });
}

uint64_t read_all(const uint8_t* data, size_t bytes) {
  I sum[4] = {zero_i(), zero_i(), zero_i(), zero_i()};
  for (size_t i = 0; i + 256 <= bytes; i += 256) {
#pragma GCC unroll 16
    for (int j = 0; j < 4; ++j) {
      prefetch(data + i + 4096 + 64 * j);
      sum[j] = add_i(sum[j], as_ints(load(data + i + 64 * j)));
    }
  }
  return static_cast<uint64_t>(reduce_add(add_i(add_i(sum[0], sum[1]), add_i(sum[2], sum[3]))));
}

constexpr Kernels kTable = with_words<Int8>(with_int8<Int8>({
    kName,
    {},
    {},
    {},
    {},
    {nullptr, exact_panels<IntegerNumbers<1>>, exact_panels<IntegerNumbers<2>>, exact_panels<IntegerNumbers<3>>,
     exact_panels<IntegerNumbers<4>>, exact_panels<IntegerNumbers<5>>, exact_panels<IntegerNumbers<6>>, exact_panels<IntegerNumbers<7>>,
     exact_panels<IntegerNumbers<8>>},
    {nullptr, nullptr, exact_panels<CodebookNumbers<2>>, exact_panels<CodebookNumbers<3>>, exact_panels<CodebookNumbers<4>>},
    exact_panels<Bf16Numbers>,
    exact_panels<Fp16Numbers>,
    exact_panels<Fp32Numbers>,
    {},
    {},
    nullptr,
    nullptr,
    bit_serial,
    look_up,
    count_pairs,
    exact_panels<Int16Numbers>,
    int16_panels,
    quantize_row,
    quantize_words,
    nullptr,
    nullptr,
    widen_codes,
    top_of,
    read_all,
    nullptr,
}));
