// Ranks sit out where others wait for them because they lost their core, and come back later, and every job runs once on each that takes part.
// Exits with 1 and a sentence where not.  Built and run by test_thread_pool.py.
#include <sched.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "generic/thread_pool.hpp"

using namespace anybit;

namespace {

void require(bool holds, const char* sentence) {
  if (holds) return;
  std::printf("%s\n", sentence);
  std::exit(1);
}

// A crew by itself, on a clock of its own.
struct Told {
  Crew crew;
  Clock::time_point now{};
  explicit Told(int size) : crew(size) { crew.next(now); }
  void job(int lasted, int waited, long losses) {
    now += std::chrono::milliseconds(lasted);
    crew.note(now, std::chrono::milliseconds(lasted), std::chrono::milliseconds(waited), losses);
  }
  int after(Clock::duration rest) { return crew.next(now += rest); }
};

void check_crew() {
  Told four(4);
  four.job(9, 27, 0);
  require(!four.crew.looks_closely(), "nine milliseconds are no while");
  four.job(1, 0, 0);
  require(four.crew.looks_closely() && four.after({}) == 4, "a crew that waited 27 of 40 milliseconds does not look closely before it is made smaller");
  four.job(10, 27, 0);
  require(!four.crew.looks_closely() && four.after({}) == 4, "waiting without a lost core is work that cannot be shared out evenly");
  four.job(10, 27, 0);
  four.job(10, 27, 3);
  require(four.after({}) == 3, "a crew of four that waited 27 of 40 milliseconds and lost cores was not made smaller");
  four.job(10, 7, 3);
  require(four.after(Crew::kRest - std::chrono::milliseconds(11)) == 3, "waiting less than a quarter of the time is no reason to sit out, nor a rest over too early");
  require(four.after(std::chrono::milliseconds(1)) == 4 && four.crew.looks_closely(), "nobody came back after a rest, or was not looked at closely");
  four.job(3, 9, 1);
  require(four.after(Crew::kRest) == 3 && four.after(Crew::kRest) == 4, "the second rest is not twice as long");
  four.job(3, 0, 1);
  for (int i = 0; i < 3; ++i) four.job(10, 30, 1);
  require(four.crew.ranks() == 2, "of a crew that waits all the time two did not leave in three whiles");
  require(four.after(Crew::kRest) == 2 && four.after(Crew::kRest) == 3, "after a good trial rests begin at the shortest again");
  four.job(3, 0, 0);
  require(four.after({}) == 4, "after a good trial the next does not follow at once");
  Told two(2);
  for (int i = 0; i < 9; ++i) two.job(10, 10, 5);
  require(two.crew.ranks() == 1, "nobody is left, or none left");
}

// One job of two steps on all ranks that take part; returns how many do.
int step(ThreadPool& pool) {
  std::vector<std::atomic<int>> first(static_cast<size_t>(pool.size())), second(first.size());
  std::atomic<int> size{0};
  pool.run([&](Team& team) {
    first[static_cast<size_t>(team.rank)].fetch_add(1);
    for (const auto start = Clock::now(); Clock::now() - start < std::chrono::microseconds(200);) {}
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

// Steps until fewer than all take part, or all; false where that takes longer than twenty seconds.
bool reaches(ThreadPool& pool, bool all) {
  for (const auto start = Clock::now(); Clock::now() - start < std::chrono::seconds(20);) {
    if ((step(pool) == pool.size()) == all) return true;
  }
  return false;
}

}  // namespace

int main() {
  check_crew();
  cpu_set_t one;  // core for all: each rank loses it to the others
  CPU_ZERO(&one);
  CPU_SET(sched_getcpu(), &one);
  require(sched_setaffinity(0, sizeof one, &one) == 0, "this process may not choose its core");
  for (int size : {3, 4}) {
    ThreadPool pool(size);
    require(reaches(pool, false), "ranks of one core did not sit out");
    require(reaches(pool, true), "they did not come back for a trial");
    require(reaches(pool, false), "they did not sit out again");
  }
  ThreadPool steady(3, false);
  for (int i = 0; i < 200; ++i) require(step(steady) == 3, "a pool that does not give way did");
  std::printf("right\n");
}
