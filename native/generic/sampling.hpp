// Choosing the next token from logits: greedy, or a draw from a filtered softmax.
//
// The order is that of transformers' logits processors: repetition penalty, temperature, top-k, top-p, min-p.  The random
// number is a hash of (seed, counter): the same seed and the same logits give the same tokens, however the work was split.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "generic/vector_ops.hpp"

namespace anybit {

struct SamplingOptions {
  float temperature = 0.0f;         // 0: greedy
  int top_k = 0;                    // 0: all
  float top_p = 1.0f;               // keep the smallest set of most likely tokens with at least this probability
  float min_p = 0.0f;               // drop tokens less likely than min_p times the most likely one
  float repetition_penalty = 1.0f;  // positive logits of tokens seen before are divided by it, negative ones multiplied
  std::uint64_t seed = 0;
};

// Uniform in [0, 1), 53 bits.
double counter_uniform(std::uint64_t seed, std::uint64_t counter);

class Sampler {
 public:
  explicit Sampler(const VectorOps& ops) : ops_(ops) {}

  // Throws std::domain_error where no logit is a finite number.
  int sample(std::span<const float> logits, const SamplingOptions& options, std::span<const std::int32_t> history,
             std::uint64_t counter);

  // The distribution that `sample` draws from, one probability a token (all on one token where greedy).
  std::vector<double> probabilities(std::span<const float> logits, const SamplingOptions& options,
                                    std::span<const std::int32_t> history);

 private:
  // Fills weights_ (unnormalised, by token) and, where a filter is on, kept_ (token ids, most likely first).
  // Returns the sum of the weights that remain.
  double distribution(std::span<const float> logits, const SamplingOptions& options);
  std::span<const float> penalised(std::span<const float> logits, float penalty, std::span<const std::int32_t> history);
  int greedy(std::span<const float> logits) const;

  const VectorOps& ops_;
  std::vector<float> logits_, weights_;
  std::vector<std::int32_t> kept_;
  bool filtered_ = false;
};

}  // namespace anybit
