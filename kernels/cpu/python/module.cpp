// The Python module adder_onnx.kernels.cpu._native.
#include "python/bindings.h"

NB_MODULE(_native, m) {
  // Threads that sleep while the process ends hold objects, which is no defect to print.
  nanobind::set_leak_warnings(false);
  adder_onnx::bind_convolutions(m);
  adder_onnx::bind_programs(m);
  adder_onnx::bind_chains(m);
  adder_onnx::bind_machine(m);
  adder_onnx::bind_training(m);
}
