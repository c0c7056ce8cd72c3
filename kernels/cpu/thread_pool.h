// The process's one pool of worker threads.
#pragma once

#include <cstdint>

namespace adder_onnx {

// A reference to a callable, valid during the call it is passed to.
class TaskRef {
 public:
  template <typename F>
  TaskRef(const F& f)  // NOLINT: implicit on purpose
      : object_(&f), call_([](const void* o, int64_t i) { (*static_cast<const F*>(o))(i); }) {}
  void operator()(int64_t i) const { call_(object_, i); }

 private:
  const void* object_;
  void (*call_)(const void*, int64_t);
};

// Calls task(i) for every i in [0, count), on at most `threads` threads, the caller's among them,
// and returns when all have ended. Calls from several threads at once share the workers. The pool
// grows to what is asked for and survives a fork. `task` must not throw.
void parallel_for(int64_t count, int threads, TaskRef task);

}  // namespace adder_onnx
