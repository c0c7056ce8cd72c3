#include "adder_conv.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "thread_pool.h"

namespace adder_onnx {
namespace {

// A task is small enough that threads end together, and large enough that a block's weights, read
// once per task, are used often.
constexpr int64_t kTasksPerThread = 4;
constexpr int64_t kMaxTilesPerTask = 64;

const F32DirectKernel* select_kernel([[maybe_unused]] Isa isa) {
#if defined(ADDER_ONNX_X86)
  if (isa == Isa::kAvx512) return &kF32DirectAvx512;
  if (isa == Isa::kAvx2) return &kF32DirectAvx2;
#endif
  return &kF32DirectScalar;
}

// (M, C/group, kH, kW) to [group][block][kernel position][channel][filter of the block]; the
// filters that fill up a group's last block are zero.
std::vector<float> pack_weights(const ConvParams& a, int64_t filters_per_block, const float* w) {
  const int64_t blocks = ceil_div(a.group_out(), filters_per_block);
  const int64_t taps = a.kernel_size() * a.group_in();
  std::vector<float> packed(a.group * blocks * taps * filters_per_block);
  for (int64_t m = 0; m < a.out_channels; ++m) {
    const int64_t g = m / a.group_out(), filter = m % a.group_out();
    const int64_t block = g * blocks + filter / filters_per_block;
    float* to = packed.data() + block * taps * filters_per_block + filter % filters_per_block;
    for (int64_t c = 0; c < a.group_in(); ++c)
      for (int64_t k = 0; k < a.kernel_size(); ++k)
        to[(k * a.group_in() + c) * filters_per_block] =
            w[(m * a.group_in() + c) * a.kernel_size() + k];
  }
  return packed;
}

// M values to [group][block][filter of the block].
std::vector<float> pack_per_filter(const ConvParams& a, int64_t filters_per_block,
                                   const float* values) {
  const int64_t blocks = ceil_div(a.group_out(), filters_per_block);
  std::vector<float> packed(a.group * blocks * filters_per_block);
  for (int64_t m = 0; m < a.out_channels; ++m)
    packed[m / a.group_out() * blocks * filters_per_block + m % a.group_out()] = values[m];
  return packed;
}

}  // namespace

AdderConv::AdderConv(const ConvParams& params, const float* weights, const float* scale,
                     const float* bias, Clip clip, Isa isa)
    : params_(params),
      clip_(clip),
      kernel_(select_kernel(isa)),
      weights_(pack_weights(params, kernel_->filters_per_block, weights)),
      scale_(pack_per_filter(params, kernel_->filters_per_block, scale)),
      bias_(pack_per_filter(params, kernel_->filters_per_block, bias)),
      zeros_(padded_channels(params.in_channels)) {}

void AdderConv::run(const ConvShape& shape, const float* x, const float* z, float* y,
                    int threads) const {
  const F32DirectArgs args = {&params_,        &shape,        x,            zeros_.data(), z, y,
                              weights_.data(), scale_.data(), bias_.data(), clip_};
  const int64_t tiles =
      ceil_div(shape.batch * shape.out_h * shape.out_w, kernel_->pixels_per_tile);
  const int64_t tiles_per_task =
      std::clamp<int64_t>(ceil_div(tiles, kTasksPerThread * threads), 1, kMaxTilesPerTask);
  parallel_for(ceil_div(tiles, tiles_per_task), threads, [&](int64_t task) {
    static thread_local std::vector<const float*> table;
    const int64_t first = task * tiles_per_task;
    const int64_t last = std::min(first + tiles_per_task, tiles);
    table.resize((last - first) * params_.kernel_size() * kernel_->pixels_per_tile);
    kernel_->run(args, first, last, table.data());
  });
}

double inner_loop_rate(Isa isa, int threads, double seconds) {
  using Clock = std::chrono::steady_clock;
  constexpr int kParts = 10;
  constexpr int64_t kChannels = 64;  // 16 KiB of weights and less of pixels
  constexpr int64_t kTimes = 100;
  const F32DirectKernel& kernel = *select_kernel(isa);
  const std::vector<float> x(kernel.pixels_per_tile * kChannels, 1.0f);
  const std::vector<float> weights(kernel.filters_per_block * kChannels, 0.5f);
  const double taps = static_cast<double>(kernel.pixels_per_tile * kernel.filters_per_block *
                                          kChannels);
  double best = 0;
  for (int part = 0; part < kParts; ++part) {
    std::vector<double> rates(threads);
    parallel_for(threads, threads, [&](int64_t thread) {
      const Clock::time_point start = Clock::now();
      volatile float sink = 0;
      double elapsed = 0;
      int64_t tiles = 0;
      while (elapsed < seconds / kParts) {
        sink = sink + kernel.inner_loop(x.data(), weights.data(), kChannels, kTimes);
        tiles += kTimes;
        elapsed = std::chrono::duration<double>(Clock::now() - start).count();
      }
      rates[thread] = static_cast<double>(tiles) * taps / elapsed;
    });
    best = std::max(best, std::accumulate(rates.begin(), rates.end(), 0.0));
  }
  return best;
}

}  // namespace adder_onnx
