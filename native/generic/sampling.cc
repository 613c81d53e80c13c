#include "generic/sampling.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

namespace anybit {

double counter_uniform(std::uint64_t seed, std::uint64_t counter) {
  // Two rounds of the splitmix64 finaliser (Steele, Lea and Flood, 2014): one to spread the seed, one for the counter.
  const auto mix = [](std::uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  };
  const std::uint64_t golden = 0x9e3779b97f4a7c15ull;
  return static_cast<double>(mix(mix(seed + golden) + golden * (counter + 1)) >> 11) * 0x1.0p-53;
}

std::span<const float> Sampler::penalised(std::span<const float> logits, float penalty,
                                          std::span<const std::int32_t> history) {
  if (penalty == 1.0f || history.empty()) return logits;
  logits_.assign(logits.begin(), logits.end());
  for (const std::int32_t id : history) {
    if (id < 0 || static_cast<std::size_t>(id) >= logits.size()) continue;
    // From the original logit, so that a token seen twice is penalised once.
    const float x = logits[static_cast<std::size_t>(id)];
    logits_[static_cast<std::size_t>(id)] = x > 0.0f ? x / penalty : x * penalty;
  }
  return logits_;
}

int Sampler::greedy(std::span<const float> logits) const {
  const std::size_t best = ops_.argmax(logits.data(), logits.size());
  if (!(std::isfinite(logits[best]))) {
    throw std::domain_error("the logits hold no finite number; check the weights and the activation format");
  }
  return static_cast<int>(best);
}

double Sampler::distribution(std::span<const float> logits, const SamplingOptions& options) {
  const std::size_t n = logits.size();
  const float max = logits[static_cast<std::size_t>(greedy(logits))];
  weights_.resize(n);
  double total = ops_.exp_sum(logits.data(), max, 1.0f / options.temperature, weights_.data(), n);
  if (!std::isfinite(total)) throw std::domain_error("the logits hold a NaN; check the weights and the activation format");

  const bool by_k = options.top_k > 0 && static_cast<std::size_t>(options.top_k) < n;
  const bool by_p = options.top_p < 1.0f;
  const bool by_min = options.min_p > 0.0f;
  filtered_ = by_k || by_p || by_min;
  if (!filtered_) return total;

  const auto likelier = [this](std::int32_t a, std::int32_t b) {
    const float wa = weights_[static_cast<std::size_t>(a)], wb = weights_[static_cast<std::size_t>(b)];
    return wa != wb ? wa > wb : a < b;
  };
  const auto weight = [this](std::int32_t id) { return static_cast<double>(weights_[static_cast<std::size_t>(id)]); };

  // min-p compares with the most likely token, which every earlier filter keeps, so it may cut first without changing
  // what the others would keep of the rest -- except that top-p counts the probability of what min-p removes; the total
  // below therefore stays the one from before the cut.
  kept_.resize(n);
  std::iota(kept_.begin(), kept_.end(), 0);
  if (by_k) {
    std::nth_element(kept_.begin(), kept_.begin() + options.top_k, kept_.end(), likelier);
    kept_.resize(static_cast<std::size_t>(options.top_k));
    total = std::accumulate(kept_.begin(), kept_.end(), 0.0,
                            [&](double s, std::int32_t id) { return s + weight(id); });
  }
  if (by_min) {
    std::erase_if(kept_, [&](std::int32_t id) { return weights_[static_cast<std::size_t>(id)] < options.min_p; });
  }
  if (by_p) {
    // Sort only as long a head as the nucleus needs.
    const double wanted = static_cast<double>(options.top_p) * total;
    std::size_t sorted = 0, keep = 0;
    double sum = 0;
    while (keep < kept_.size() && (keep == 0 || sum < wanted)) {
      if (keep == sorted) {
        const std::size_t end = std::min(kept_.size(), std::max<std::size_t>(256, sorted * 4));
        std::partial_sort(kept_.begin() + static_cast<std::ptrdiff_t>(sorted),
                          kept_.begin() + static_cast<std::ptrdiff_t>(end), kept_.end(), likelier);
        sorted = end;
      }
      sum += weight(kept_[keep++]);
    }
    kept_.resize(keep);
  } else {
    std::sort(kept_.begin(), kept_.end(), likelier);
  }
  return std::accumulate(kept_.begin(), kept_.end(), 0.0, [&](double s, std::int32_t id) { return s + weight(id); });
}

int Sampler::sample(std::span<const float> logits, const SamplingOptions& options,
                    std::span<const std::int32_t> history, std::uint64_t counter) {
  logits = penalised(logits, options.repetition_penalty, history);
  if (options.temperature == 0.0f) return greedy(logits);
  const double target = counter_uniform(options.seed, counter) * distribution(logits, options);
  double sum = 0;
  int last = 0;
  const std::size_t n = filtered_ ? kept_.size() : weights_.size();
  for (std::size_t i = 0; i < n; ++i) {
    const int id = filtered_ ? kept_[i] : static_cast<int>(i);
    const double w = weights_[static_cast<std::size_t>(id)];
    if (w <= 0) continue;
    sum += w;
    last = id;
    if (target < sum) break;
  }
  return last;
}

std::vector<double> Sampler::probabilities(std::span<const float> logits, const SamplingOptions& options,
                                           std::span<const std::int32_t> history) {
  logits = penalised(logits, options.repetition_penalty, history);
  std::vector<double> out(logits.size(), 0.0);
  if (options.temperature == 0.0f) {
    out[static_cast<std::size_t>(greedy(logits))] = 1.0;
    return out;
  }
  const double total = distribution(logits, options);
  if (filtered_) {
    for (const std::int32_t id : kept_) {
      out[static_cast<std::size_t>(id)] = weights_[static_cast<std::size_t>(id)] / total;
    }
  } else {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = weights_[i] / total;
  }
  return out;
}

}  // namespace anybit
