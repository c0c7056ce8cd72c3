#include "adder_conv.h"

#include <algorithm>

#include "inner_loop_rate.h"

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
AlignedVector<float> pack_weights(const ConvParams& a, int64_t filters_per_block, const float* w) {
  const int64_t blocks = ceil_div(a.group_out(), filters_per_block);
  const int64_t taps = a.kernel_size() * a.group_in();
  AlignedVector<float> packed(a.group * blocks * taps * filters_per_block);
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

int64_t AdderConv::tiles(const ConvShape& shape) const {
  return ceil_div(shape.batch * shape.out_h * shape.out_w, kernel_->pixels_per_tile);
}

AdderConv::Work AdderConv::share_out(const ConvShape& shape, int threads) const {
  const int64_t all = tiles(shape);
  const int64_t each =
      std::clamp<int64_t>(ceil_div(all, kTasksPerThread * threads), 1, kMaxTilesPerTask);
  return {ceil_div(all, each), each};
}

void AdderConv::run(const Work& work, int64_t task, const ConvShape& shape, const float* x,
                    const float* z, float* y) const {
  const F32DirectArgs args = {&params_,        &shape,        x,            zeros_.data(), z, y,
                              weights_.data(), scale_.data(), bias_.data(), clip_};
  static thread_local std::vector<const float*> table;
  const int64_t first = task * work.tiles, last = std::min(first + work.tiles, tiles(shape));
  table.resize((last - first) * params_.kernel_size() * kernel_->pixels_per_tile);
  kernel_->run(args, first, last, table.data());
}

double f32_inner_loop_rate(Isa isa, int threads, double seconds) {
  constexpr int64_t kChannels = 64;  // 16 KiB of weights and less of pixels
  const F32DirectKernel& kernel = *select_kernel(isa);
  const AlignedVector<float> x(kernel.pixels_per_tile * kChannels, 1.0f);
  const AlignedVector<float> weights(kernel.filters_per_block * kChannels, 0.5f);
  const int64_t taps = kernel.pixels_per_tile * kernel.filters_per_block * kChannels;
  return inner_loop_rate(threads, seconds, static_cast<double>(taps), [&](int64_t times) {
    return static_cast<double>(kernel.inner_loop(x.data(), weights.data(), kChannels, times));
  });
}

}  // namespace adder_onnx
