// A persistent pool that runs one function on all its threads ("single program, multiple data").
//
//   pool.run([&](Team& team) { stage_one(team); team.barrier(); stage_two(team); });
//
// The caller is rank 0.  A whole decode step is one run() with many barriers: a barrier among running threads costs two cache line
// transfers, waking sleeping threads costs a system call and, where the core of a virtual machine has halted, 0.3 to 0.6 ms.  Waiting
// threads spin longer than that before they sleep on a futex.  Linux wakes a thread beside the one that woke it rather than on a halted
// core whose virtual processor the host has put aside; there it would wait until the other stops spinning, call after call.  So who
// spins long yields now and then, and a rank that finds itself on the core of a lower one moves away.
//
// Where another program wants a core, the rank on it is away for milliseconds at a time, and all others wait for it at the next barrier: a
// step of a hundred barriers takes ten times as long as with one rank less.  So the highest rank sits out for a while then (Crew), and the
// scheduler divides the cores among the others.
//
// Results must not depend on how many take part: where bits depend on how work is cut, it is cut by ThreadPool::size(), not by Team::size.
// The function must not throw: the other ranks would wait at a barrier for ever.
#pragma once

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace anybit {

inline void cpu_relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

class Barrier;

// What one thread of a run knows: its rank, how many they are, and how to meet.
struct Team {
  int rank;
  int size;
  Barrier* meeting;
  void barrier();  // no-op for a team of one
};

// The half-open share [begin, end) of `items` things for one rank; shares differ by at most one `grain`.
struct Share {
  int64_t begin, end;
};
inline Share share(const Team& team, int64_t items, int64_t grain = 1) {
  const int64_t units = (items + grain - 1) / grain;
  const int64_t begin = units * team.rank / team.size * grain, end = units * (team.rank + 1) / team.size * grain;
  return {begin < items ? begin : items, end < items ? end : items};
}

constexpr int kSpins = 20000;      // about a millisecond, for a pause takes 140 cycles (44 or 10 on older processors)
constexpr int kSpinsToYield = 400;  // the first time; then after twice as many each

using Clock = std::chrono::steady_clock;

// Waits until `word` differs from `old`.  Returns the time that it took from the first yield on.
inline Clock::duration wait_while(const std::atomic<uint32_t>& word, uint32_t old) {
  Clock::time_point since;
  const auto waited = [&] { return since == Clock::time_point() ? Clock::duration::zero() : Clock::now() - since; };
  for (int i = 0, yield = kSpinsToYield; i < kSpins; ++i) {
    if (word.load(std::memory_order_acquire) != old) return waited();
    if (i == yield) {
      if (yield == kSpinsToYield) since = Clock::now();
      sched_yield();
      yield *= 2;
    }
    cpu_relax();
  }
  while (word.load(std::memory_order_acquire) == old) word.wait(old, std::memory_order_acquire);
  return waited();
}

class Barrier {
 public:
  void arrive_and_wait(int size) {
    const uint32_t generation = generation_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
      arrived_.store(0, std::memory_order_relaxed);
      generation_.store(generation + 1, std::memory_order_release);
      generation_.notify_all();
    } else {
      add(wait_while(generation_, generation));
    }
  }
  void add(Clock::duration waited) {
    if (waited.count() > 0) waited_.fetch_add(waited.count(), std::memory_order_relaxed);
  }
  Clock::duration take_waited() { return Clock::duration(waited_.exchange(0, std::memory_order_relaxed)); }  // of all, since the last call

 private:
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> generation_{0};
  alignas(64) std::atomic<Clock::rep> waited_{0};
};

inline void Team::barrier() {
  if (size > 1) meeting->arrive_and_wait(size);
}

// How many of a pool's ranks take part.  One less after a while in which ranks waited for others for half of the time (of two; a quarter of all
// their time) if, looked at more closely for another while, any of them lost its core: work that cannot be shared out evenly is waited for, too.
// One more after a rest, which is longer each time until a trial succeeds.
class Crew {
 public:
  static constexpr Clock::duration kWhile = std::chrono::milliseconds(10), kTrial = std::chrono::milliseconds(2);
  static constexpr Clock::duration kRest = std::chrono::milliseconds(50), kLongestRest = std::chrono::milliseconds(1600);
  explicit Crew(int size) : size_(size), ranks_(size) {}
  int ranks() const { return ranks_; }
  // How many take part in the job that begins now.
  int next(Clock::time_point now) {
    if (ranks() < size_ && now >= until_) {
      set(ranks() + 1);
      tried_ = closely_ = true;
    }
    return ranks();
  }
  bool looks_closely() const { return closely_; }  // whether it wants to know of `losses`; changes between jobs only
  // How long the ranks of a job that ended now waited in all, and how often one lost its core.
  void note(Clock::time_point now, Clock::duration lasted, Clock::duration waited, long losses) {
    worked_ += lasted, waited_ += waited, losses_ += losses;
    if (worked_ < (tried_ ? kTrial : kWhile)) return;
    const bool idle = ranks() > 1 && 4 * waited_ > worked_ * ranks(), lost = losses_ > 0;
    if (idle && closely_ && lost) {
      until_ = now + rest_;
      rest_ = std::min(2 * rest_, kLongestRest);
      set(ranks() - 1);
    } else {
      if (tried_) until_ = now, rest_ = kRest;
      closely_ = idle && !closely_;
      set(ranks());
    }
    tried_ = false;
  }

 private:
  void set(int ranks) {
    ranks_ = ranks;
    worked_ = waited_ = Clock::duration::zero(), losses_ = 0;
  }

  const int size_;
  int ranks_;
  bool tried_ = false;    // whether one more takes part than before the rest
  bool closely_ = false;
  Clock::duration worked_{}, waited_{}, rest_ = kRest;
  long losses_ = 0;
  Clock::time_point until_;
};

class ThreadPool {
 public:
  static constexpr int kMost = 1024;  // ranks
  explicit ThreadPool(int size, bool gives_way = true);  // to other programs; probes do not
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }  // the most ranks that take part

  // Runs f(Team&) on every rank and returns when all are done.  Calls from several threads take turns; a call from inside a run
  // would wait for itself and must not be made.
  template <class F>
  void run(F&& f) {
    using Fn = std::remove_reference_t<F>;
    run_raw([](void* context, Team& team) { (*static_cast<Fn*>(context))(team); }, const_cast<void*>(static_cast<const void*>(&f)));
  }

  // The same, on the caller alone where so few numbers are handled that waking others would take longer.
  template <class F> void run_if_many(int64_t numbers, F&& f) {
    if (constexpr int64_t kAlone = 1 << 16; numbers > kAlone) return run(f);
    Team alone{0, 1, nullptr};
    f(alone);
  }

 private:
  using Job = void (*)(void*, Team&);
  void run_raw(Job job, void* context);
  void work(int rank);
  void sit_out(int rank);
  void settle(int rank);  // notes the core this rank runs on: another one than those of lower ranks, if there are enough

  const int size_;
  const bool gives_way_;
  Crew crew_;
  Barrier barrier_;
  alignas(64) std::atomic<uint32_t> epoch_{0};  // the number of the job, times kMost, and the highest rank that takes part
  alignas(64) std::atomic<int> taking_part_;    // ranks
  alignas(64) std::atomic<uint32_t> done_{0};   // one more for every worker that finished a job
  alignas(64) std::atomic<long> losses_{0};     // of cores, of the workers in a job
  Job job_ = nullptr;
  void* context_ = nullptr;
  std::atomic<bool> stop_{false};
  const bool roomy_;                          // whether there is a core for every rank
  std::unique_ptr<std::atomic<int>[]> core_;  // of each rank when it last began a job
  std::mutex turn_;
  std::vector<std::thread> threads_;
};

// The pool all of anybit shares.  Its size is $ANYBIT_THREADS, else the number of cores this process may use.
std::shared_ptr<ThreadPool> default_pool();
void set_threads(int threads);  // >= 1; runs under way finish on the old pool

}  // namespace anybit
