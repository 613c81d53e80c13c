#include "generic/thread_pool.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace anybit {
namespace {

constexpr int kIdleSpins = 20000;  // about half a millisecond between jobs before a worker sleeps
constexpr int kCrewBits = 10, kMost = 1 << kCrewBits;
constexpr double kWindow = 0.02;  // seconds of runs between two looks at how long threads had to wait

double seconds_now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
int crew_of(uint32_t epoch) { return static_cast<int>(epoch & (kMost - 1)) + 1; }

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

ReadyTime::ReadyTime(long thread) {
  char name[64];
  std::snprintf(name, sizeof name, "/proc/self/task/%ld/schedstat", thread);
  file_ = open(name, O_RDONLY | O_CLOEXEC);
}

ReadyTime::~ReadyTime() {
  if (file_ >= 0) close(file_);
}

double ReadyTime::seconds() const {
  char text[96];
  unsigned long long ran, waited;
  const ssize_t n = pread(file_, text, sizeof text - 1, 0);
  if (n <= 0) return 0;
  text[n] = 0;
  return std::sscanf(text, "%llu %llu", &ran, &waited) == 2 ? static_cast<double>(waited) * 1e-9 : 0;
}

ThreadPool::ThreadPool(int size) : size_(size), barrier_(size), crew_size_(size), crew_(size) {
  if (size < 1 || size > kMost) throw std::invalid_argument("a thread pool has 1 to 1024 threads; got " + std::to_string(size));
  ready_.resize(static_cast<std::size_t>(size));
  waited_.resize(static_cast<std::size_t>(size));
  for (int rank = 1; rank < size; ++rank) threads_.emplace_back([this, rank] { work(rank); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(turn_);
    stop_ = true;
    set_crew(size_);
    epoch_.fetch_add(kMost, std::memory_order_release);
    epoch_.notify_all();
  }
  for (auto& thread : threads_) thread.join();
}

void ThreadPool::work(int rank) {
  uint32_t seen = 0;
  for (;;) {
    wait_while(epoch_, seen, kIdleSpins);
    // A rank outside the crew may have missed jobs; one of the crew has not, because every job waits for it.
    seen = epoch_.load(std::memory_order_acquire);
    if (stop_) return;
    if (rank >= crew_of(seen)) {
      for (int crew; (crew = crew_size_.load(std::memory_order_acquire)) <= rank;) crew_size_.wait(crew, std::memory_order_acquire);
      continue;
    }
    auto& ready = ready_[static_cast<std::size_t>(rank)];
    if (!ready.known()) ready = ReadyTime(syscall(SYS_gettid));
    Team team{rank, crew_of(seen), &barrier_};
    job_(context_, team);
    done_.fetch_add(1, std::memory_order_acq_rel);
    done_.notify_one();
  }
}

void ThreadPool::set_crew(int threads) {
  crew_size_.store(threads, std::memory_order_release);
  crew_size_.notify_all();
}

// After runs of `seconds`: were threads kept from running?  Called with `turn_` held, between runs.
void ThreadPool::look(double seconds) {
  spent_ += seconds;
  if (spent_ < kWindow) return;
  const double now = seconds_now();
  double most = 0;
  for (std::size_t rank = 0; rank < static_cast<std::size_t>(crew()); ++rank) {
    if (!ready_[rank].known()) continue;
    const double waited = ready_[rank].seconds();
    // The caller also waits between runs; workers sleep then.  The first look at a thread says nothing about these runs.
    const double meanwhile = rank == 0 ? now - looked_ : spent_;
    if (waited_[rank] > 0) most = std::max(most, (waited - waited_[rank]) / meanwhile);
    waited_[rank] = waited;
  }
  spent_ = 0;
  looked_ = now;
  const int before = crew(), after = crew_.observe(most, now);
  for (int rank = before; rank < after; ++rank) waited_[static_cast<std::size_t>(rank)] = 0;
  if (after != before) set_crew(after);
}

void ThreadPool::run_raw(Job job, void* context) {
  std::lock_guard lock(turn_);
  if (size_ == 1) {
    Team alone{0, 1, &barrier_};
    return job(context, alone);
  }
  const double began = seconds_now();
  if (const long caller = syscall(SYS_gettid); caller != caller_) {
    caller_ = caller;
    ready_[0] = ReadyTime(caller);
    waited_[0] = 0;
  }
  const int crew = this->crew();
  Team team{0, crew, &barrier_};
  barrier_.resize(crew);
  job_ = job;
  context_ = context;
  const uint32_t target = done_.load(std::memory_order_relaxed) + static_cast<uint32_t>(crew - 1);
  if (crew > 1) {
    epoch_.store((epoch_.load(std::memory_order_relaxed) & ~uint32_t{kMost - 1}) + kMost + static_cast<uint32_t>(crew - 1),
                 std::memory_order_release);
    epoch_.notify_all();
  }
  job(context, team);
  for (uint32_t done; (done = done_.load(std::memory_order_acquire)) != target;) wait_while(done_, done, kIdleSpins);
  look(seconds_now() - began);
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
