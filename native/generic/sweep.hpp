// The best scale of blocks of numbers for an alphabet, exactly; what it means is said in anybit/formats/sweep.py, whose sums are taken in
// the same order here, so that both give the same bits.
#pragma once

#include <cstdint>

namespace anybit {

// Two sides of an alphabet, [0] for positive numbers: `steps` midpoints (infinity where a side has fewer values), and what crossing
// each adds to <x, q> and <q, q> a unit of x and of weight.  first: the values nearest to 0.
struct Alphabet {
  std::int64_t steps = 0;
  const double *middle = nullptr, *gain = nullptr, *growth = nullptr;  // [2, steps]
  double first[2] = {0, 0};
};

// x [blocks, n]; w [blocks, n], or [n] with stride 0, or null; out [4, blocks]: scale, projection, norm, energy.  The result does not
// depend on the number of threads.
void sweep_scales(const Alphabet& alphabet, const double* x, const double* w, std::int64_t w_stride, std::int64_t blocks,
                  std::int64_t n, double* out);

}  // namespace anybit
