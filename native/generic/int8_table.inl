#ifndef ANYBIT_ROW_PAIRS  // which have a peak of their own
double int8_rounds(int64_t rounds) {
  constexpr int kSums = kPeakSums;  // operands in registers, and enough sums to hide the latency of one: little limits but the multipliers
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
#endif

// `k` with the integer kernels of all weights of bytes, Run<W>::panels, and the probe of their peak;
template <template <class> class Run> constexpr Kernels with_int8(Kernels k) {
  k.int8_integer[1] = Run<IntegerCodes<1>>::panels;
  k.int8_integer[2] = Run<IntegerCodes<2>>::panels;
  k.int8_integer[3] = Run<IntegerCodes<3>>::panels;
  k.int8_integer[4] = Run<IntegerCodes<4>>::panels;
  k.int8_integer[5] = Run<IntegerCodes<5>>::panels;
  k.int8_integer[6] = Run<IntegerCodes<6>>::panels;
  k.int8_integer[7] = Run<IntegerCodes<7>>::panels;
  k.int8_integer[8] = Run<IntegerCodes<8>>::panels;
  k.int8_codebook_byte[2] = Run<CodebookBytes<2>>::panels;
  k.int8_codebook_byte[3] = Run<CodebookBytes<3>>::panels;
  k.int8_codebook_byte[4] = Run<CodebookBytes<4>>::panels;
  k.int8_codebook_wide[2] = Run<CodebookBytes<2, 255>>::panels;
  k.int8_codebook_wide[3] = Run<CodebookBytes<3, 255>>::panels;
  k.int8_codebook_wide[4] = Run<CodebookBytes<4, 255>>::panels;
  k.int8_rounds = int8_rounds;
  return k;
}
// and of codebooks with levels of 16 bits.
template <template <class> class Run> constexpr Kernels with_words(Kernels k) {
  k.int8_codebook_word[2] = Run<CodebookWords<2>>::panels;
  k.int8_codebook_word[3] = Run<CodebookWords<3>>::panels;
  k.int8_codebook_word[4] = Run<CodebookWords<4>>::panels;
  return k;
}
