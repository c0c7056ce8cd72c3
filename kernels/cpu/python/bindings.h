// The parts of the Python module.
#pragma once

#include <nanobind/nanobind.h>

namespace adder_onnx {

void bind_convolutions(nanobind::module_& m);
void bind_programs(nanobind::module_& m);
void bind_chains(nanobind::module_& m);
void bind_machine(nanobind::module_& m);
void bind_training(nanobind::module_& m);

}  // namespace adder_onnx
