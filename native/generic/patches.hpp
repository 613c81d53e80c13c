// What a convolution multiplies, as rows of a matrix: of every position the numbers below the kernel.
#pragma once

#include <cstdint>

namespace anybit {

// x [batch, channels, height, width]; along [0] height and [1] width.
struct Convolution {
  std::int64_t batch = 0, channels = 0, size[2]{};
  std::int64_t kernel[2]{}, dilation[2]{}, padding[2]{}, stride[2]{};

  // Positions along an axis; 0 or less where the kernel does not fit.
  std::int64_t positions(int axis) const {
    return (size[axis] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1) / stride[axis] + 1;
  }
};

// out [batch, positions down · positions across, channels · kernel height · kernel width], zeros beyond the edges.
void patches(const Convolution& c, const float* x, float* out);

}  // namespace anybit
