// Peaks of the arithmetic units, on any number of threads.
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/module.hpp"
#include "generic/dispatch.hpp"
#include "generic/peaks.hpp"
#include "generic/thread_pool.hpp"

namespace nb = nanobind;
using namespace anybit;

namespace {

// Operations a second, the best of five runs; 0 where the machine lacks the instructions.
double probe_peak(const std::string& kind, int threads, int64_t rounds) {
  if (threads < 1 || rounds < 1) throw std::invalid_argument("the probe needs at least one thread and one round");
  peak_rounds(kind, 1);  // refuses an unknown kind here, on the caller's thread
  nb::gil_scoped_release release;
  ThreadPool pool(threads, false);
  std::vector<double> operations(static_cast<size_t>(threads) * 8);
  double best = 0.0;
  for (int run = 0; run < 5; ++run) {
    const auto start = std::chrono::steady_clock::now();
    pool.run([&](Team& team) { operations[static_cast<size_t>(team.rank) * 8] = peak_rounds(kind, rounds); });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    double total = 0.0;
    for (int i = 0; i < threads; ++i) total += operations[static_cast<size_t>(i) * 8];
    best = std::max(best, total / seconds);
  }
  return best;
}

// Reads an array once with the shared pool: afterwards the caches hold it and nothing else.  The value depends on all of it.
uint64_t read_through(nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu> bytes) {
  const uint8_t* data = bytes.data();
  const auto size = static_cast<int64_t>(bytes.size());
  nb::gil_scoped_release release;
  const auto pool = default_pool();
  const Kernels& k = kernels();
  std::atomic<uint64_t> total{0};
  pool->run([&](Team& team) {
    const Share mine = share(team, size, 4096);
    total += k.read_all(data + mine.begin, static_cast<size_t>(mine.end - mine.begin));
  });
  return total;
}

}  // namespace

void bind_peaks(nb::module_& m) {
  m.def("probe_peak", probe_peak, nb::arg("kind"), nb::arg("threads"), nb::arg("rounds") = 1000000,
        "operations a second of fp32, bf16, int8_tiles or bf16_tiles; 0 where the machine lacks them");
  m.def("read_through", read_through, nb::arg("bytes"), "read an array of bytes once, which clears the caches of all else");
}
