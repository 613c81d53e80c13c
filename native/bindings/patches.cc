// What a convolution multiplies, for Python; anybit/nn/conv.py calls it.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>

#include <array>
#include <stdexcept>

#include "bindings/module.hpp"
#include "generic/patches.hpp"

namespace nb = nanobind;
using namespace anybit;

namespace {

using Images = nb::ndarray<const float, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Rows = nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Pair = std::array<int64_t, 2>;

void unfold(Images x, Pair kernel, Pair dilation, Pair padding, Pair stride, Rows out) {
  Convolution c;
  c.batch = static_cast<int64_t>(x.shape(0)), c.channels = static_cast<int64_t>(x.shape(1));
  for (size_t axis = 0; axis < 2; ++axis) {
    if (kernel[axis] < 1 || dilation[axis] < 1 || stride[axis] < 1 || padding[axis] < 0)
      throw std::invalid_argument("kernels, dilations and strides are 1 or more, paddings 0 or more");
    c.size[axis] = static_cast<int64_t>(x.shape(2 + axis));
    c.kernel[axis] = kernel[axis], c.dilation[axis] = dilation[axis], c.padding[axis] = padding[axis], c.stride[axis] = stride[axis];
  }
  for (int axis = 0; axis < 2; ++axis)
    if (c.size[axis] + 2 * c.padding[axis] <= c.dilation[axis] * (c.kernel[axis] - 1))
      throw std::invalid_argument("the kernel is larger than the padded image");
  const int64_t positions = c.positions(0) * c.positions(1), columns = c.channels * c.kernel[0] * c.kernel[1];
  if (static_cast<int64_t>(out.shape(0)) != c.batch || static_cast<int64_t>(out.shape(1)) != positions ||
      static_cast<int64_t>(out.shape(2)) != columns)
    throw std::invalid_argument("the rows are [batch, positions, channels of a kernel]");
  nb::gil_scoped_release release;
  patches(c, x.data(), out.data());
}

}  // namespace

void bind_patches(nb::module_& m) {
  m.def("patches", unfold, nb::arg("x"), nb::arg("kernel"), nb::arg("dilation"), nb::arg("padding"), nb::arg("stride"), nb::arg("out"),
        "x [b, c, h, w] float32 -> out [b, positions, c·kh·kw]; pairs are (down, across).");
}
