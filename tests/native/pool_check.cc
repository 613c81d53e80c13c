// Ranks sit out where others wait for them and come back where they do not, and every job runs once on each that takes part.  Exits with 1 and a
// sentence where not.  Built and run by test_thread_pool.py.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "generic/thread_pool.hpp"

using namespace anybit;

namespace {

void require(bool holds, const char* sentence) {
  if (holds) return;
  std::printf("%s\n", sentence);
  std::exit(1);
}

// One job of two steps, in which ranks from `late` on are away for a time slice before the second.  Returns how many took part.
int step(ThreadPool& pool, int late) {
  std::vector<std::atomic<int>> first(static_cast<size_t>(pool.size())), second(first.size());
  std::atomic<int> size{0};
  pool.run([&](Team& team) {
    first[static_cast<size_t>(team.rank)].fetch_add(1);
    if (team.rank >= late) std::this_thread::sleep_for(std::chrono::milliseconds(4));
    team.barrier();
    int met = 0;
    for (const auto& one : first) met += one.load();
    require(met == team.size, "a barrier was left before all had come to it");
    second[static_cast<size_t>(team.rank)].fetch_add(1);
    size.store(team.size);
  });
  for (int rank = 0; rank < pool.size(); ++rank) {
    const int times = rank < size.load();
    const auto at = static_cast<size_t>(rank);
    require(first[at] == times && second[at] == times, "a rank ran a job another number of times than once");
  }
  return size.load();
}

// Steps until fewer than two take part, or no fewer; false where that takes longer than ten seconds.  On a busy machine those who come back may
// have to go again at once.
bool reaches(ThreadPool& pool, bool alone, int late) {
  for (const auto start = Clock::now(); Clock::now() - start < std::chrono::seconds(10);) {
    if ((step(pool, late) == 1) == alone) return true;
  }
  return false;
}

}  // namespace

int main() {
  {
    Crew crew(4);
    Clock::time_point now{};
    const auto ms = [](int n) { return std::chrono::milliseconds(n); };
    const auto job = [&](int lasted, int waited, int late = 0) {
      now += ms(lasted);
      crew.note(now, ms(lasted), ms(waited), ms(late));
    };
    require(crew.next(now += ms(1)) == 4, "all take part at first");
    job(9, 27);
    require(crew.next(now) == 4, "nine milliseconds are no while");
    job(1, 0);
    require(crew.next(now) == 3, "a crew of four that waited 27 of 30 milliseconds was not made smaller");
    job(10, 9);
    require(crew.next(now) == 3, "waiting less than half of the time is no reason to sit out");
    require(crew.next(now += Crew::kRest) == 4, "nobody came back after a rest");
    job(3, 9);
    require(crew.next(now) == 3 && crew.next(now += Crew::kRest) == 3 && crew.next(now += Crew::kRest) == 4, "the second rest is twice as long");
    job(3, 0);
    require(crew.next(now) == 4, "a trial without waiting was not the end of it");
    for (int i = 0; i < 10; ++i) job(10, 17, 1);
    require(crew.next(now) == 4, "a millisecond of waking was counted");
    for (int i = 0; i < 10; ++i) job(10, 25, 2), crew.next(now);
    require(crew.ranks() >= 1, "nobody is left");
  }
  for (int size : {2, 3}) {
    ThreadPool pool(size);
    require(reaches(pool, true, 1), "ranks that all others wait for did not sit out");
    require(reaches(pool, false, size), "nobody came back");
    require(reaches(pool, true, 1), "ranks that all others wait for again did not sit out again");
  }
  {
    ThreadPool steady(2, false);
    for (int i = 0; i < 8; ++i) step(steady, 1);
    require(steady.ranks() == 2, "a pool that does not give way did");
  }
  std::printf("right\n");
}
