// Timing of bare inner loops.
#pragma once

#include <cstdint>
#include <functional>

namespace adder_onnx {

// Taps per second of `loop` on so many threads at once. It is called with a number of times to go
// round, each of so many taps, and returns something that depends on all of them. Takes about
// `seconds`; the best of ten parts. Throws std::invalid_argument where there is not one thread at
// least, or more than kMaxThreads, or the time is not positive or more than an hour.
double inner_loop_rate(int threads, double seconds, double taps,
                       const std::function<double(int64_t)>& loop);

}  // namespace adder_onnx
