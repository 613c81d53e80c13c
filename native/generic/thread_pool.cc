#include "generic/thread_pool.hpp"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace anybit {
namespace {

int allowed_cores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  const unsigned cores = std::thread::hardware_concurrency();
  return cores ? static_cast<int>(cores) : 1;
}

int usable_cores() {
  if (const char* text = std::getenv("ANYBIT_THREADS"); text && *text) {
    const int threads = std::atoi(text);
    if (threads >= 1 && threads <= ThreadPool::kMost) return threads;
  }
  return allowed_cores();
}

// How often this thread had to leave its core to another, what it yielded to included.
long losses_of_thread() {
  rusage usage{};
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nivcsw;
}

std::mutex pool_lock;
std::shared_ptr<ThreadPool>* pool = nullptr;  // never destroyed: threads may outlive static destructors

// A forked child has no workers.  The parent's pool is abandoned (its threads do not exist here) and made anew on first use.
void forget_pool_in_child() {
  new (&pool_lock) std::mutex();
  pool = nullptr;
}

}  // namespace

ThreadPool::ThreadPool(int size, bool gives_way)
    : size_(size), gives_way_(gives_way), crew_(size), taking_part_(size), roomy_(size <= allowed_cores()) {
  if (size < 1 || size > kMost) throw std::invalid_argument("a thread pool has 1 to 1024 threads; got " + std::to_string(size));
  core_.reset(new std::atomic<int>[static_cast<size_t>(size)]);
  for (int rank = 0; rank < size; ++rank) core_[static_cast<size_t>(rank)].store(-1, std::memory_order_relaxed);
  for (int rank = 1; rank < size; ++rank) threads_.emplace_back([this, rank] { work(rank); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(turn_);
    stop_ = true;
    taking_part_.store(size_, std::memory_order_release);
    taking_part_.notify_all();
    epoch_.fetch_add(kMost, std::memory_order_release);
    epoch_.notify_all();
  }
  for (auto& thread : threads_) thread.join();
}

void ThreadPool::settle(int rank) {
  const int here = sched_getcpu();
  core_[static_cast<size_t>(rank)].store(here, std::memory_order_relaxed);
  cpu_set_t lower;
  CPU_ZERO(&lower);
  for (int other = 0; other < rank; ++other) {
    const int core = core_[static_cast<size_t>(other)].load(std::memory_order_relaxed);
    if (core >= 0 && core < CPU_SETSIZE) CPU_SET(core, &lower);
  }
  if (!roomy_ || here < 0 || here >= CPU_SETSIZE || !CPU_ISSET(here, &lower)) return;
  cpu_set_t allowed, free;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  CPU_AND(&free, &allowed, &lower);
  CPU_XOR(&free, &free, &allowed);
  if (CPU_COUNT(&free) == 0 || sched_setaffinity(0, sizeof free, &free) != 0) return;
  sched_setaffinity(0, sizeof allowed, &allowed);  // it stays where it is now, unless the scheduler knows better
  core_[static_cast<size_t>(rank)].store(sched_getcpu(), std::memory_order_relaxed);
}

// Asleep, for a core that another program wants is no place to spin.
void ThreadPool::sit_out(int rank) {
  for (int ranks; (ranks = taking_part_.load(std::memory_order_acquire)) <= rank;) taking_part_.wait(ranks, std::memory_order_acquire);
}

void ThreadPool::work(int rank) {
  uint32_t seen = 0;
  for (;;) {
    wait_while(epoch_, seen);
    seen = epoch_.load(std::memory_order_acquire);  // the next job, or any later one while this rank took no part
    if (stop_) return;
    const int last = static_cast<int>(seen % kMost);
    if (rank > last) {
      sit_out(rank);
      if (stop_) return;
      continue;
    }
    settle(rank);
    Team team{rank, last + 1, &barrier_};
    const bool closely = crew_.looks_closely();
    const long before = closely ? losses_of_thread() : 0;
    job_(context_, team);
    if (closely) losses_.fetch_add(losses_of_thread() - before, std::memory_order_relaxed);
    done_.fetch_add(1, std::memory_order_acq_rel);
    done_.notify_one();
  }
}

void ThreadPool::run_raw(Job job, void* context) {
  std::lock_guard lock(turn_);
  const auto start = size_ > 1 ? Clock::now() : Clock::time_point();
  const int ranks = crew_.next(start);
  Team team{0, ranks, &barrier_};
  if (ranks == 1) return job(context, team);
  settle(0);
  job_ = job;
  context_ = context;
  const bool closely = crew_.looks_closely();
  const long before = closely ? losses_of_thread() : 0;
  if (taking_part_.exchange(ranks, std::memory_order_release) < ranks) taking_part_.notify_all();
  const uint32_t target = done_.load(std::memory_order_relaxed) + static_cast<uint32_t>(ranks - 1);
  const uint32_t number = epoch_.load(std::memory_order_relaxed) / kMost + 1;
  epoch_.store(number * kMost + static_cast<uint32_t>(ranks - 1), std::memory_order_release);
  epoch_.notify_all();
  job(context, team);
  for (uint32_t done; (done = done_.load(std::memory_order_acquire)) != target;) barrier_.add(wait_while(done_, done));
  if (!gives_way_) return;
  const long losses = closely ? losses_of_thread() - before + losses_.exchange(0, std::memory_order_relaxed) : 0;
  const auto end = Clock::now();
  crew_.note(end, end - start, barrier_.take_waited(), losses);
}

std::shared_ptr<ThreadPool> default_pool() {
  std::lock_guard lock(pool_lock);
  if (!pool) {
    static const int registered = pthread_atfork(nullptr, nullptr, forget_pool_in_child);
    (void)registered;
    pool = new std::shared_ptr<ThreadPool>(std::make_shared<ThreadPool>(usable_cores()));
  }
  return *pool;
}

void set_threads(int threads) {
  if (threads < 1 || threads > ThreadPool::kMost) {
    throw std::invalid_argument("the number of threads must be between 1 and 1024; got " + std::to_string(threads));
  }
  if (default_pool()->size() == threads) return;
  auto fresh = std::make_shared<ThreadPool>(threads);
  std::lock_guard lock(pool_lock);
  *pool = std::move(fresh);
}

}  // namespace anybit
