#include "generic/thread_pool.hpp"

#include <pthread.h>
#include <sched.h>

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace anybit {
namespace {

constexpr int kIdleSpins = 20000;  // about half a millisecond between jobs before a worker sleeps

int usable_cores() {
  if (const char* text = std::getenv("ANYBIT_THREADS"); text && *text) {
    const int threads = std::atoi(text);
    if (threads >= 1 && threads <= 1024) return threads;
  }
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  const unsigned cores = std::thread::hardware_concurrency();
  return cores ? static_cast<int>(cores) : 1;
}

std::mutex pool_lock;
std::shared_ptr<ThreadPool>* pool = nullptr;  // never destroyed: threads may outlive static destructors

// A forked child has no workers.  The parent's pool is abandoned (its threads do not exist here) and made anew on first use.
void forget_pool_in_child() {
  new (&pool_lock) std::mutex();
  pool = nullptr;
}

}  // namespace

ThreadPool::ThreadPool(int size) : size_(size), barrier_(size) {
  if (size < 1) throw std::invalid_argument("a thread pool needs at least 1 thread; got " + std::to_string(size));
  for (int rank = 1; rank < size; ++rank) threads_.emplace_back([this, rank] { work(rank); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(turn_);
    stop_ = true;
    epoch_.fetch_add(1, std::memory_order_release);
    epoch_.notify_all();
  }
  for (auto& thread : threads_) thread.join();
}

void ThreadPool::work(int rank) {
  uint32_t seen = 0;
  for (;;) {
    wait_while(epoch_, seen, kIdleSpins);
    ++seen;
    if (stop_) return;
    Team team{rank, size_, &barrier_};
    job_(context_, team);
    done_.fetch_add(1, std::memory_order_acq_rel);
    done_.notify_one();
  }
}

void ThreadPool::run_raw(Job job, void* context) {
  std::lock_guard lock(turn_);
  Team team{0, size_, &barrier_};
  if (size_ == 1) return job(context, team);
  job_ = job;
  context_ = context;
  const uint32_t target = done_.load(std::memory_order_relaxed) + static_cast<uint32_t>(size_ - 1);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  job(context, team);
  for (uint32_t done; (done = done_.load(std::memory_order_acquire)) != target;) wait_while(done_, done, kIdleSpins);
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
  if (threads < 1 || threads > 1024) {
    throw std::invalid_argument("the number of threads must be between 1 and 1024; got " + std::to_string(threads));
  }
  if (default_pool()->size() == threads) return;
  auto fresh = std::make_shared<ThreadPool>(threads);
  std::lock_guard lock(pool_lock);
  *pool = std::move(fresh);
}

}  // namespace anybit
