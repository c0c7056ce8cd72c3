// Python's lock, let go of while kernels run.
#pragma once

#include <Python.h>

#include <chrono>
#include <thread>

namespace adder_onnx {

// Lets go of the lock for its lifetime. Once the interpreter ends, Python ends a daemon thread that
// asks for the lock by unwinding its stack, which frames of C++ that must not throw turn into an
// abort of the process. So such a thread sleeps here until the process is gone.
class ReleasedGil {
 public:
  ReleasedGil() : state_(PyEval_SaveThread()) {}
  ReleasedGil(const ReleasedGil&) = delete;
  ReleasedGil& operator=(const ReleasedGil&) = delete;
  ~ReleasedGil() {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {
      for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    }
  }

 private:
  PyThreadState* state_;
};

}  // namespace adder_onnx
