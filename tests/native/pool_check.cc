// The thread pool: every rank of a run takes part once and meets the others, whatever the size of the crew; and the policy of that size.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "generic/thread_pool.hpp"

using namespace anybit;

static void expect(bool condition, const char* what) {
  if (condition) return;
  std::printf("FAILED: %s\n", what);
  std::exit(1);
}

static void policy() {
  Crew crew(4);
  expect(crew.size() == 4 && crew.observe(0.1, 1.0) == 4, "a little waiting changes nothing");
  expect(crew.observe(0.5, 1.0) == 3 && crew.observe(0.5, 1.1) == 2 && crew.observe(0.9, 1.2) == 1, "much waiting takes a thread each time");
  expect(crew.observe(0.9, 1.3) == 1, "one thread stays");
  expect(crew.observe(0.0, 1.3) == 1 && crew.observe(0.0, 1.2 + Crew::kHold) == 2, "after a while one more is tried");
  expect(crew.observe(0.5, 2.0) == 1, "in vain");
  expect(crew.observe(0.0, 2.0 + Crew::kHold) == 1 && crew.observe(0.0, 2.0 + 2 * Crew::kHold) == 2, "then after twice the time");
  expect(crew.observe(0.0, 4.0) == 3 && crew.observe(0.0, 4.1) == 4 && crew.observe(0.0, 4.2) == 4, "and with success at once the next");
  for (double now = 5; now < 200; now += 0.1) crew.observe(crew.size() > 3 ? 0.5 : 0.0, now);
  int vain = 0;
  for (double now = 200; now < 300; now += 0.1) vain += crew.observe(crew.size() > 3 ? 0.5 : 0.0, now) > 3;
  expect(vain >= 100 / Crew::kLongest - 1 && vain <= 100 / Crew::kLongest + 1, "vain tries become rare");
}

static void runs(int threads, int count) {
  ThreadPool pool(threads);
  std::atomic<int> least{threads};
  const auto caller = [&] {
    for (int i = 0; i < count; ++i) {
      std::vector<std::atomic<int>> seen(static_cast<size_t>(threads));
      std::atomic<int> met{0};
      pool.run([&](Team& team) {
        ++seen[static_cast<size_t>(team.rank)];
        volatile int work = 0;
        for (int j = 0; j < 2000; ++j) work = work + j;
        team.barrier();
        int all = 0;
        for (int rank = 0; rank < team.size; ++rank) all += seen[static_cast<size_t>(rank)].load();
        met += all == team.size;
        team.barrier();
        if (team.rank == 0) {
          expect(met.load() == team.size, "every rank meets every other");
          least = std::min(least.load(), team.size);
        }
      });
    }
  };
  std::thread other(caller);
  caller();
  other.join();
  std::printf("%d threads: %d runs, the smallest crew %d\n", threads, 2 * count, least.load());
}

int main() {
  policy();
  for (int threads : {1, 2, 3, 8}) runs(threads, 4000 / threads);
  std::printf("pool: fine\n");
}
