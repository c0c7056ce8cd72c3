// Who works on the tasks of a call.
#pragma once

#include <algorithm>

namespace adder_onnx {

// Gives a call threads: those of the process's pool, or others that a caller has.
class Workers {
 public:
  using Work = void (*)(void* call);

  virtual ~Workers() = default;

  // The most threads that are worth asking for, the caller's among them; at least 1.
  virtual int count() const = 0;

  // Calls work(call) on the caller's thread and on up to `helpers` others, at the same time as far as
  // there are threads, and returns when all that have begun have ended. `work` does not throw, and does
  // all that is left to do: one that comes late finds nothing.
  virtual void run(int helpers, Work work, void* call) const = 0;
};

// The pool of the process, of which it takes so many threads at most.
class PoolWorkers final : public Workers {
 public:
  explicit PoolWorkers(int threads) : threads_(threads) {}
  int count() const override { return threads_; }
  void run(int helpers, Work work, void* call) const override;

 private:
  int threads_;
};

// Fewer of others.
class FewerWorkers final : public Workers {
 public:
  FewerWorkers(const Workers& workers, int most)
      : workers_(workers), count_(std::min(workers.count(), most)) {}
  int count() const override { return count_; }
  void run(int helpers, Work work, void* call) const override {
    workers_.run(helpers, work, call);
  }

 private:
  const Workers& workers_;
  int count_;
};

}  // namespace adder_onnx
