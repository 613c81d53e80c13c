// How many threads of a pool the next run should have, when other programs use the cores too.
//
// Threads that meet at every step wait for the slowest one.  Where a core has another program's work, the thread on it waits for its
// turn a few milliseconds at every barrier, and a decode step has hundreds: two threads on one free core are a hundred times
// slower than one.  So the pool asks the system how long its threads stood ready without running, and goes on with fewer when
// that is much of the time; after a while it tries one more.
#pragma once

#include <algorithm>

namespace anybit {

class Crew {
 public:
  static constexpr double kTooMuch = 0.15;            // of the time of the runs
  static constexpr double kHold = 0.5, kLongest = 8;  // seconds before one more thread is tried, doubled after each vain try

  explicit Crew(int most) : most_(most), size_(most) {}
  int size() const { return size_; }

  // waited: the largest share of the last runs' time that one of their threads stood ready; now: in seconds.  Returns the new size.
  int observe(double waited, double now) {
    if (waited > kTooMuch && size_ > 1) {
      if (trying_) hold_ = std::min(2 * hold_, kLongest);
      --size_;
      trying_ = false;
      retry_ = now + hold_;
      return size_;
    }
    if (trying_) hold_ = kHold, trying_ = false;
    if (size_ < most_ && now >= retry_) {
      ++size_;
      trying_ = true;
    }
    return size_;
  }

 private:
  int most_, size_;
  double hold_ = kHold, retry_ = 0;
  bool trying_ = false;
};

}  // namespace anybit
