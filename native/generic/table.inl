// Activation quantization, probes, and the table of everything.  Compiled once per instruction set, inside its namespace.

// Codes = nearest-even of x / scale with scale = max|x| / levels a group (the first `wide` groups: 127 levels): true divisions, so that
// the codes are the reference's.
// A group that holds an infinity or NaN gets scale NaN, so that the result is NaN and not silently wrong.
void quantize_row(const float* x, int64_t slots, int64_t group, float levels, int64_t wide, int8_t* codes, float* scales, int32_t* sums,
                  int64_t lds) {
  int32_t running = 0;
  sums[0] = 0;
  for (int64_t k0 = 0, g = 0; k0 < slots; k0 += group, ++g) {
    const int64_t k1 = k0 + group < slots ? k0 + group : slots;
    I top = zero_i();
    for (int64_t k = k0; k < k1; k += 16) top = max_i(top, abs_bits(load_f(x + k)));
    const int32_t bits = reduce_max(top);  // magnitudes order like their bit patterns
    const float scale = bits >= 0x7f800000 ? float_of_bits(0x7fc00000u) : float_of_bits(static_cast<uint32_t>(bits)) / (g < wide ? 127.0f : levels);
    scales[g] = scale;
    if (!(scale > 0.0f)) {
      for (int64_t k = k0; k < k1; k += 16) store_s8(codes + k, zero_i());
      for (int64_t k = k0; k < k1; k += 32) sums[(k / 32 + 1) * lds] = running;
      continue;
    }
    const F divisor = splat_f(scale);
    for (int64_t k = k0; k < k1; k += 32) {
      const I a = round_i(div_f(load_f(x + k), divisor)), b = round_i(div_f(load_f(x + k + 16), divisor));
      store_s8(codes + k, a);
      store_s8(codes + k + 16, b);
      running += reduce_add(add_i(a, b));
      sums[(k / 32 + 1) * lds] = running;
    }
  }
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

double int8_rounds(int64_t rounds) {
  constexpr int kSums = 12;  // operands in registers, and enough sums to hide the latency of one: nothing limits but the multipliers
  alignas(64) uint8_t weights[64];
  alignas(64) int8_t x[4] = {1, -2, 3, -4};
  for (int i = 0; i < 64; ++i) weights[i] = static_cast<uint8_t>(i & 15);
  const B w = load(weights), four = broadcast4(x);
  Acc<15> dot[kSums];
#pragma GCC unroll 16
  for (int m = 0; m < kSums; ++m) dot[m].start(zero_i());
  for (int64_t round = 0; round < rounds; ++round) {
    each_quad([&]<int Q>() ANYBIT_UNROLLED {
#pragma GCC unroll 16
      for (int m = 0; m < kSums; ++m) {
        dot[m].add(opaque(w), four);  // else equal products would be made once
        if constexpr ((Q + 1) % Acc<15>::kRun == 0) dot[m].flush();
      }
    });
  }
  volatile int32_t sink = 0;
#pragma GCC unroll 16
  for (int m = 0; m < kSums; ++m) sink = reduce_add(dot[m].result());
  (void)sink;
  return static_cast<double>(rounds) * 8 * kSums * 64 * 2;
}

constexpr Kernels kTable = {
    kName,
    {nullptr, int8_panels<IntegerCodes<1>>, int8_panels<IntegerCodes<2>>, int8_panels<IntegerCodes<3>>, int8_panels<IntegerCodes<4>>,
     int8_panels<IntegerCodes<5>>, int8_panels<IntegerCodes<6>>, int8_panels<IntegerCodes<7>>, int8_panels<IntegerCodes<8>>},
    {nullptr, nullptr, int8_panels<CodebookBytes<2>>, int8_panels<CodebookBytes<3>>, int8_panels<CodebookBytes<4>>},
    {nullptr, nullptr, int8_panels<CodebookWords<2>>, int8_panels<CodebookWords<3>>, int8_panels<CodebookWords<4>>},
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
    quantize_row,
    read_all,
    int8_rounds,
};
