// A product as Python asks for it, for the bindings that compute one.
#pragma once

#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>

#include "generic/matmul.hpp"
#include "generic/thread_pool.hpp"

namespace anybit {

// The sentence is put together where it is needed only: a call of a small product has microseconds.
template <class... Part> void require(bool holds, const Part&... parts) {
  if (holds) return;
  std::ostringstream sentence;
  (sentence << ... << parts);
  throw std::invalid_argument(sentence.str());
}

// Kept between calls of a thread: nothing is allocated once it is large enough.
Activations& activations_for(const ThreadPool& pool, int64_t m, int64_t k, double stretch = 1.0);

// How x is prepared for a weight.  act_group -1: exact; -2: rounded to bf16; 0: integers of at most `levels` with a scale a
// row; else a scale a group, of which the first `wide` have 127 levels.  whole, "any" or "power": one scale for all rows.
ActSpec spec_for(const Weight& w, int64_t act_group, int levels, int64_t wide, const std::string& whole);

// x [m, k] times the transposed weight -> y [m, n], the interpreter's lock released meanwhile.
void product(const Weight& w, const float* x, int64_t m, int64_t k, const ActSpec& spec, float* y, const Epilogue& epilogue);

}  // namespace anybit
