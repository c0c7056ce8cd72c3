// How many threads the system gives.
#pragma once

namespace adder_onnx {

// Starts so many threads at the same time, or as many as can be had, and ends them; their number.
int startable_threads(int wanted);

}  // namespace adder_onnx
