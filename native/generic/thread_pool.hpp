// A persistent pool that runs one function on all its threads ("single program, multiple data").
//
//   pool.run([&](Team& team) { stage_one(team); team.barrier(); stage_two(team); });
//
// The caller is rank 0.  A whole decode step is one run() with many barriers: a barrier among running threads costs two cache line
// transfers, waking sleeping threads costs a system call and, where the core of a virtual machine has halted, 0.3 to 0.6 ms.  Waiting
// threads spin longer than that before they sleep on a futex.  Linux wakes a thread beside the one that woke it rather than on a halted
// core whose virtual processor the host has put aside; there it would wait until the other stops spinning, call after call.  So who
// spins long yields now and then, and a rank that finds itself on the core of a lower one moves away.
// The function must not throw: the other ranks would wait at a barrier for ever.
#pragma once

#include <sched.h>

#include <atomic>
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

// Waits until `word` differs from `old`.
inline void wait_while(const std::atomic<uint32_t>& word, uint32_t old) {
  for (int i = 0, yield = kSpinsToYield; i < kSpins; ++i) {
    if (word.load(std::memory_order_acquire) != old) return;
    if (i == yield) sched_yield(), yield *= 2;
    cpu_relax();
  }
  while (word.load(std::memory_order_acquire) == old) word.wait(old, std::memory_order_acquire);
}

class Barrier {
 public:
  explicit Barrier(int size) : size_(size) {}
  void arrive_and_wait() {
    const uint32_t generation = generation_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
      arrived_.store(0, std::memory_order_relaxed);
      generation_.store(generation + 1, std::memory_order_release);
      generation_.notify_all();
    } else {
      wait_while(generation_, generation);
    }
  }

 private:
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> generation_{0};
  const int size_;
};

inline void Team::barrier() {
  if (size > 1) meeting->arrive_and_wait();
}

class ThreadPool {
 public:
  explicit ThreadPool(int size);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }

  // Runs f(Team&) on every thread and returns when all are done.  Calls from several threads take turns; a call from inside a run
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
  void settle(int rank);  // notes the core this rank runs on: another one than those of lower ranks, if there are enough

  const int size_;
  Barrier barrier_;
  alignas(64) std::atomic<uint32_t> epoch_{0};  // one more for every job
  alignas(64) std::atomic<uint32_t> done_{0};   // one more for every worker that finished one
  Job job_ = nullptr;
  void* context_ = nullptr;
  bool stop_ = false;
  const bool roomy_;                          // whether there is a core for every rank
  std::unique_ptr<std::atomic<int>[]> core_;  // of each rank when it last began a job
  std::mutex turn_;
  std::vector<std::thread> threads_;
};

// The pool all of anybit shares.  Its size is $ANYBIT_THREADS, else the number of cores this process may use.
std::shared_ptr<ThreadPool> default_pool();
void set_threads(int threads);  // >= 1; runs under way finish on the old pool

}  // namespace anybit
