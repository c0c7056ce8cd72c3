// What ends a run early.
#pragma once

#include <atomic>

namespace adder_onnx {

// Set once, by any thread; whoever works looks at it between tasks.
class StopFlag {
 public:
  void set() { set_.store(true, std::memory_order_relaxed); }
  bool is_set() const { return set_.load(std::memory_order_relaxed); }

  // One that nobody sets.
  static const StopFlag& never() {
    static const StopFlag flag;
    return flag;
  }

 private:
  std::atomic<bool> set_{false};
};

}  // namespace adder_onnx
