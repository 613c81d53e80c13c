// The table of one instruction set's vector kernels; included once by each <isa>/vector.cc.
#pragma once

#include "generic/vector_attention.inl"
#include "generic/vector_math.inl"
#include "generic/vector_ops.hpp"

namespace anybit::ANYBIT_VECTOR_ISA {

template <class F>
inline void map(const float* x, float* y, std::size_t n, F f) {
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, f(load(x + i)));
  if (i < n) store_part(y + i, f(load_part(x + i, n - i, 0.0f)), n - i);
}

template <class F>
inline void map2(const float* a, const float* b, float* y, std::size_t n, F f) {
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, f(load(a + i), load(b + i)));
  if (i < n) store_part(y + i, f(load_part(a + i, n - i, 0.0f), load_part(b + i, n - i, 0.0f)), n - i);
}

inline void rms_norm(const float* x, const float* gain, float offset, float eps, float* y, std::size_t n) {
  Vec part[4] = {};
  std::size_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const Vec v = load(x + i + j * kLanes);
      part[j] = fma_of(v, v, part[j]);
    }
  }
  for (; i + kLanes <= n; i += kLanes) {
    const Vec v = load(x + i);
    part[0] = fma_of(v, v, part[0]);
  }
  if (i < n) {
    const Vec v = load_part(x + i, n - i, 0.0f);
    part[1] = fma_of(v, v, part[1]);
  }
  const float mean = sum((part[0] + part[1]) + (part[2] + part[3])) / static_cast<float>(n);
  const float factor = 1.0f / __builtin_sqrtf(mean + eps);
  map2(x, gain, y, n, [=](Vec v, Vec g) { return v * factor * (g + offset); });
}

inline void glu(Glu kind, const float* gate, const float* up, float* y, std::size_t n) {
  switch (kind) {
    case Glu::silu: return map2(gate, up, y, n, [](Vec g, Vec u) { return silu_of(g) * u; });
    case Glu::gelu_tanh: return map2(gate, up, y, n, [](Vec g, Vec u) { return gelu_tanh_of(g) * u; });
    case Glu::gelu: return map2(gate, up, y, n, [](Vec g, Vec u) { return gelu_of(g) * u; });
  }
}

inline void add(const float* a, const float* b, float* y, std::size_t n) {
  map2(a, b, y, n, [](Vec p, Vec q) { return p + q; });
}

inline void scale(const float* x, float factor, float* y, std::size_t n) {
  map(x, y, n, [=](Vec v) { return v * factor; });
}

inline void softcap(const float* x, float cap, float* y, std::size_t n) {
  map(x, y, n, [=](Vec v) { return cap * tanh_of(v / cap); });
}

inline void rope(float* x, int heads, int head_dim, int half, const float* cos, const float* sin) {
  for (int h = 0; h < heads; ++h) {
    float* low = x + static_cast<std::size_t>(h) * head_dim;
    float* high = low + half;
    int i = 0;
    for (; i + kLanes <= half; i += kLanes) {
      const Vec a = load(low + i), b = load(high + i), c = load(cos + i), s = load(sin + i);
      store(low + i, a * c - b * s);
      store(high + i, b * c + a * s);
    }
    for (; i < half; ++i) {
      const float a = low[i], b = high[i];
      low[i] = a * cos[i] - b * sin[i];
      high[i] = b * cos[i] + a * sin[i];
    }
  }
}

inline std::size_t argmax(const float* x, std::size_t n) {
  Vec best = splat(-__builtin_inff());
  std::size_t i = 0;
  // best first: a NaN compares false and never replaces it.
  for (; i + kLanes <= n; i += kLanes) best = max_of(best, load(x + i));
  if (i < n) best = max_of(best, load_part(x + i, n - i, -__builtin_inff()));
  const float top = largest(best);
  for (std::size_t j = 0; j < n; ++j) {
    if (x[j] == top) return j;
  }
  return 0;
}

inline double exp_sum(const float* x, float max, float factor, float* y, std::size_t n) {
  double total = 0;
  constexpr std::size_t chunk = 64 * kLanes;  // float32 within a chunk, double between chunks
  for (std::size_t begin = 0; begin < n; begin += chunk) {
    const std::size_t end = begin + chunk < n ? begin + chunk : n;
    Vec part{};
    std::size_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
      const Vec e = exp_of((load(x + i) - max) * factor);
      store(y + i, e);
      part += e;
    }
    if (i < end) {
      const Vec e = exp_of((load_part(x + i, end - i, -__builtin_inff()) - max) * factor);
      store_part(y + i, e, end - i);
      part += e;
    }
    total += sum(part);
  }
  return total;
}

inline void exp_table(const float* x, float* y, std::size_t n) {
  map(x, y, n, [](Vec v) { return exp_of(v); });
}
inline void tanh_table(const float* x, float* y, std::size_t n) {
  map(x, y, n, [](Vec v) { return tanh_of(v); });
}

}  // namespace anybit::ANYBIT_VECTOR_ISA

#include "generic/vector_hadamard.inl"

namespace anybit::ANYBIT_VECTOR_ISA {

inline VectorOps make_table(const char* isa) {
  return {isa,  rms_norm,    glu,       add,    scale,   hadamard, softcap,   rope,      cache_store,
          attention, attention_partial, argmax, exp_sum, exp_table, tanh_table};
}

}  // namespace anybit::ANYBIT_VECTOR_ISA
