// AVX-512 with AMX: integer products of more than a few rows on tiles; everything else is the table of AVX-512.
#include <immintrin.h>

#include "avx512/simd.hpp"
#include "generic/kernels.hpp"

namespace anybit::avx512 {
extern const Kernels kMatmulKernels;
}

namespace anybit::amx {
namespace {
using namespace anybit::avx512;
#include "generic/unpack.inl"

#include "generic/int8.inl"

#include "amx/tiles.inl"

Kernels make_table() {
  Kernels k = avx512::kMatmulKernels;
  k.name = "amx";
  k.int8_integer[1] = tile_panels<IntegerCodes<1>>;
  k.int8_integer[2] = tile_panels<IntegerCodes<2>>;
  k.int8_integer[3] = tile_panels<IntegerCodes<3>>;
  k.int8_integer[4] = tile_panels<IntegerCodes<4>>;
  k.int8_integer[5] = tile_panels<IntegerCodes<5>>;
  k.int8_integer[6] = tile_panels<IntegerCodes<6>>;
  k.int8_integer[7] = tile_panels<IntegerCodes<7>>;
  k.int8_integer[8] = tile_panels<IntegerCodes<8>>;
  k.int8_codebook_byte[2] = tile_panels<CodebookBytes<2>>;
  k.int8_codebook_byte[3] = tile_panels<CodebookBytes<3>>;
  k.int8_codebook_byte[4] = tile_panels<CodebookBytes<4>>;
  k.int8_codebook_word[2] = tile_panels<CodebookWords<2>>;
  k.int8_codebook_word[3] = tile_panels<CodebookWords<3>>;
  k.int8_codebook_word[4] = tile_panels<CodebookWords<4>>;
  return k;
}
}  // namespace

const Kernels& matmul_kernels() {
  static const Kernels table = make_table();
  return table;
}
}  // namespace anybit::amx
