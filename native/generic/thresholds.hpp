// The thresholds of a table of levels in one rounding mode, and the index that finds a number among them; see generic/cast_ops.hpp.
#pragma once

#include <cstdint>
#include <vector>

namespace anybit {

struct Thresholds {
  std::vector<float> values;         // ascending; after index() with infinities behind
  std::vector<std::uint16_t> first;  // empty for few levels
  int stride = 0;
  bool indexed = false;

  void index();
};

}  // namespace anybit
