// The bytes that pack() makes of codes, for comparison with the layouts of tensors/known_packings.py.
//   pack_bytes N K BITS GROUP  < codes, a byte each (below 2^BITS), [N][K]   > the packed panels
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "generic/matmul.hpp"

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  const int64_t n = std::atoll(argv[1]), k = std::atoll(argv[2]), group = std::atoll(argv[4]);
  const int bits = std::atoi(argv[3]);
  std::vector<uint8_t> codes(static_cast<size_t>(n * k));
  if (std::fread(codes.data(), 1, codes.size(), stdin) != codes.size()) return 3;
  const int64_t row_bytes = (k * bits + 7) / 8;
  std::vector<uint8_t> stream(static_cast<size_t>(n * row_bytes));
  for (int64_t row = 0; row < n; ++row) {
    for (int64_t at = 0; at < k * bits; ++at) {
      const int bit = codes[static_cast<size_t>(row * k + at / bits)] >> at % bits & 1;
      stream[static_cast<size_t>(row * row_bytes + at / 8)] |= static_cast<uint8_t>(bit << at % 8);
    }
  }
  std::vector<float> values(size_t{1} << bits);
  for (size_t c = 0; c < values.size(); ++c) values[c] = static_cast<float>(c);
  std::vector<float> scales(static_cast<size_t>(n * (group ? (k + group - 1) / group : 1)), 1.0f);
  anybit::Source source;
  source.n = n, source.k = k, source.bits = bits, source.codes = stream.data(), source.table = values.data();
  source.block_cols = group, source.scale_kind = anybit::ScaleKind::fp32, source.scale = scales.data();
  anybit::ThreadPool pool(1);
  const auto weight = anybit::pack(pool, source);
  const auto size = static_cast<size_t>(weight->panels * weight->panel_bytes);
  return std::fwrite(weight->codes.get(), 1, size, stdout) == size ? 0 : 4;
}
