// AVX-512 with AMX: products of more than a few rows with int8 and bf16 x on tiles; everything else is the table of AVX-512.
#include "amx/shapes.hpp"
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

#include "generic/int8_table.inl"

#include "generic/exact.inl"

#include "amx/tiles.inl"

#include "amx/few.inl"

#include "avx512/bf16_pairs.inl"

#include "avx512/digits.inl"

#include "amx/bf16.inl"

#include "amx/int16.inl"

constexpr int kFewestBytes = 2, kFewestWords = 5;  // rows from which on tiles are faster than vectors

template <class W> struct TileInt8 {
  static void panels(const Problem& p, int64_t first, int64_t last) {
    constexpr int kFewest = W::kWord ? kFewestWords : kFewestBytes;
    const int64_t rows = p.m * p.digits;
    if (rows > kTileX) return tile_panels<Int8Work<W>>(p, first, last);
    if (rows >= kFewest) return few_panels<Int8Few<W>>(p, first, last);
    const W w(p);
    for (int64_t panel = first; panel < last; ++panel) int8_fused_rows<W, kFewest - 1>(p, w, panel, 0);
  }
};

Kernels make_table() {
  Kernels k = with_words<TileInt8>(with_int8<TileInt8>(avx512::kMatmulKernels));
  k.name = "amx";
  k.kept_pairs = kTileX + 1, k.panels_at_once = 2;
  k.bf16_integer[1] = tile_bf16<IntegerNumbers<1>>;
  k.bf16_integer[2] = tile_bf16<IntegerNumbers<2>>;
  k.bf16_integer[3] = tile_bf16<IntegerNumbers<3>>;
  k.bf16_integer[4] = tile_bf16<IntegerNumbers<4>>;
  k.bf16_integer[5] = tile_bf16<IntegerNumbers<5>>;
  k.bf16_integer[6] = tile_bf16<IntegerNumbers<6>>;
  k.bf16_integer[7] = tile_bf16<IntegerNumbers<7>>;
  k.bf16_integer[8] = tile_bf16<IntegerNumbers<8>>;
  k.bf16_codebook[2] = tile_bf16<CodebookNumbers<2>>;
  k.bf16_codebook[3] = tile_bf16<CodebookNumbers<3>>;
  k.bf16_codebook[4] = tile_bf16<CodebookNumbers<4>>;
  k.to_bf16 = to_bf16, k.split_floats = split_floats;
  k.int16 = tile_int16, k.split_words = split_words;
  k.bf16_bf16 = tile_bf16<Bf16Numbers>;
  return k;
}
}  // namespace

const Kernels& matmul_kernels() {
  static const Kernels table = make_table();
  return table;
}
}  // namespace anybit::amx
