// A product as Python asks for it, for the bindings that compute one.
#pragma once

#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "generic/matmul.hpp"
#include "generic/planes.hpp"
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
Activations& activations_for(const ThreadPool& pool, int64_t m, int64_t k, double stretch = 1.0, int64_t kept = 0);

// How x is prepared for a weight.  act_group -1: exact; -2: rounded to bf16; 0: integers of at most `levels` with a scale a
// row; else a scale a group, of which the first `wide` have 127 levels.  whole, "any" or "power": one scale for all rows, found in x;
// scale: one that is known beforehand, 0 for none.
ActSpec spec_for(const Weight& w, int64_t act_group, int levels, int64_t wide, const std::string& whole, float scale = 0.0f);

// The rows (outputs) of one matrix in several weights with an integer form and without padding: row r of weight i is members[i][r].
struct Parts {
  int64_t n = 0, k = 0;
  std::vector<WeightPtr> weights;
  std::vector<std::vector<int32_t>> members;
};

// x [m, k], contiguous, times the transposed weight -> y [m, n], the interpreter's lock released meanwhile; x is prepared once.
void product(const Weight& w, const float* x, int64_t m, const ActSpec& spec, float* y, const Epilogue& epilogue);
void product(const Parts& parts, const float* x, int64_t m, const ActSpec& spec, float* y, const float* bias);
void product(const std::vector<PlaneWeightPtr>& weights, const float* x, int64_t m, const PlaneSpec& spec, const std::vector<float*>& outs,
             const float* bias);

// How x is prepared for weights in planes: integers of `act_bits` bits with a scale a row (act_group 0) or group.
PlaneSpec plane_spec(const PlaneWeight& w, int64_t act_group, int act_bits);

}  // namespace anybit
