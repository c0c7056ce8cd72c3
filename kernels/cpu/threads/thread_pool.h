// Tasks in phases, shared out among threads: those of the process's one pool, or a caller's own.
#pragma once

#include <cstdint>

#include "threads/workers.h"

namespace adder_onnx {

// A reference to a callable f(phase, i), valid during the call it is passed to.
class TaskRef {
 public:
  template <typename F>
  TaskRef(const F& f)  // NOLINT: implicit on purpose
      : object_(&f), call_([](const void* o, int64_t phase, int64_t i) {
          (*static_cast<const F*>(o))(phase, i);
        }) {}
  void operator()(int64_t phase, int64_t i) const { call_(object_, phase, i); }

 private:
  const void* object_;
  void (*call_)(const void*, int64_t, int64_t);
};

// The most threads of a call; who asks for more gets these. Tasks of a phase are at most kMaxTasks.
constexpr int kMaxThreads = 1024;
constexpr int64_t kMaxTasks = int64_t{1} << 31;

// Calls task(phase, i) for every i in [0, counts[phase]), one phase after the other, on the threads of
// `workers`, and returns when all have ended. What a phase writes the next one may read. Calls from
// several threads at once share the workers. The process's pool grows to what is asked for, as far as
// the system gives it threads, and survives a fork.
//
// Where a task throws, those not yet begun are left out, and the call throws what the first one did
// when no other is under way any more. Throws std::invalid_argument where a phase has too many tasks.
void run_phases(const int64_t* counts, int64_t phases, const Workers& workers, TaskRef task);

// One phase: calls task(i) for every i in [0, count).
template <typename F>
void parallel_for(int64_t count, const Workers& workers, const F& task) {
  run_phases(&count, 1, workers, [&](int64_t, int64_t i) { task(i); });
}

// The same on at most `threads` threads of the process's pool.
template <typename F>
void parallel_for(int64_t count, int threads, const F& task) {
  parallel_for(count, PoolWorkers(threads), task);
}

}  // namespace adder_onnx
