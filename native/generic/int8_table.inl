// `k` with the integer kernels of every kind of weights: Run<W>::panels.
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
  k.int8_codebook_word[2] = Run<CodebookWords<2>>::panels;
  k.int8_codebook_word[3] = Run<CodebookWords<3>>::panels;
  k.int8_codebook_word[4] = Run<CodebookWords<4>>::panels;
  return k;
}
