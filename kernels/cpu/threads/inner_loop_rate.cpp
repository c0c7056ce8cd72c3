#include "threads/inner_loop_rate.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "threads/thread_pool.h"

namespace adder_onnx {

double inner_loop_rate(int threads, double seconds, double taps,
                       const std::function<double(int64_t)>& loop) {
  using Clock = std::chrono::steady_clock;
  constexpr int kParts = 10;
  constexpr int64_t kTimes = 100;
  if (threads < 1 || threads > kMaxThreads)
    throw std::invalid_argument("threads must be at least 1, and at most " +
                                std::to_string(kMaxThreads));
  if (!(seconds > 0 && seconds <= 3600))
    throw std::invalid_argument("seconds must be more than 0, and at most 3600");
  double best = 0;
  for (int part = 0; part < kParts; ++part) {
    std::vector<double> rates(threads);
    parallel_for(threads, threads, [&](int64_t thread) {
      const Clock::time_point start = Clock::now();
      volatile double sink = 0;
      double elapsed = 0;
      int64_t times = 0;
      while (elapsed < seconds / kParts) {
        sink = sink + loop(kTimes);
        times += kTimes;
        elapsed = std::chrono::duration<double>(Clock::now() - start).count();
      }
      rates[thread] = static_cast<double>(times) * taps / elapsed;
    });
    best = std::max(best, std::accumulate(rates.begin(), rates.end(), 0.0));
  }
  return best;
}

}  // namespace adder_onnx
