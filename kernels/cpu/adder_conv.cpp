#include "adder_conv.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "inner_loop_rate.h"
#include "input_rows.h"

namespace adder_onnx {
namespace {

// A partial sum, and one of weights, stays far from the largest float.
constexpr float kMaxWeight = 0x1p100f;

const F32Kernel* select_kernels([[maybe_unused]] Isa isa) {
#if defined(ADDER_ONNX_X86)
  if (isa == Isa::kAvx512) return kF32Avx512;
  if (isa == Isa::kAvx2) return kF32Avx2;
#endif
  return kF32Scalar;
}

F32DepthwiseKernel select_depthwise_kernel([[maybe_unused]] Isa isa) {
#if defined(ADDER_ONNX_X86)
  if (isa == Isa::kAvx512) return f32_depthwise_avx512;
  if (isa == Isa::kAvx2) return f32_depthwise_avx2;
#endif
  return f32_depthwise_scalar;
}

Form select_form(const ConvParams& a, const float* weights, Form wanted) {
  const int64_t count = a.out_channels * a.group_in() * a.kernel_size();
  const bool all = std::all_of(weights, weights + count,
                               [](float w) { return std::fabs(w) <= kMaxWeight; });
  return all ? wanted : Form::kDirect;
}

// (M, C/group, kH, kW) to [group][block][kernel position][channel][filter of the block]; filters that
// fill up a register are zero.
AlignedVector<float> pack_weights(const ConvParams& a, const float* w, int64_t filters_per_block) {
  const int64_t half = std::max<int64_t>(filters_per_block / 2, 1);
  const int64_t channels = a.group_in(), filters = a.group_out(), size = a.kernel_size();
  AlignedVector<float> packed(a.group * ceil_div(filters, half) * half * size * channels);
  float* to = packed.data();
  for (int64_t g = 0; g < a.group; ++g)
    for (int64_t first = 0; first < filters; first += filters_per_block) {
      const int64_t lanes = filters - first > half ? filters_per_block : half;
      for (int64_t k = 0; k < size; ++k)
        for (int64_t c = 0; c < channels; ++c)
          for (int64_t f = first; f < first + lanes; ++f)
            *to++ = f < filters ? w[((g * filters + f) * channels + c) * size + k] : 0.0f;
    }
  packed.resize(to - packed.data());
  return packed;
}

// (M, 1, kH, kW) to [kernel position][padded channels].
AlignedVector<float> pack_depthwise_weights(const ConvParams& a, const float* w) {
  const int64_t row = padded_channels(a.in_channels), size = a.kernel_size();
  AlignedVector<float> packed(size * row);
  for (int64_t m = 0; m < a.out_channels; ++m)
    for (int64_t k = 0; k < size; ++k) packed[k * row + m] = w[m * size + k];
  return packed;
}

// Values of filters to [group][block][filter of the block].
template <typename F>
std::vector<double> pack_per_filter(const ConvParams& a, int64_t filters_per_block, const F& value) {
  const int64_t row = ceil_div(a.group_out(), filters_per_block) * filters_per_block;
  std::vector<double> packed(a.group * row);
  for (int64_t m = 0; m < a.out_channels; ++m)
    packed[m / a.group_out() * row + m % a.group_out()] = value(m);
  return packed;
}

F32Pixels from_pixel(const F32Pixels& all, int64_t first, int64_t count) {
  F32Pixels some = all;
  some.x += first;
  some.count = count;
  if (some.sums != nullptr) some.sums += first;
  if (some.z != nullptr) some.z += first * all.row;
  some.y += first * all.row;
  return some;
}

// The taps of a pixel, cut into runs.
void find_runs(const InputRows<float>& source, std::vector<F32Run>& runs) {
  runs.clear();
  for (int64_t at : source.segments())
    for (int64_t i = 0; i < source.steps(); i += kPartialTaps)
      runs.push_back({at + i, at + std::min(i + kPartialTaps, source.steps())});
}

// The sums of taps of the pixels of whole output rows. Neighbours share input pixels, whose channels
// are summed once.
void sum_taps(const ConvParams& a, const InputRows<float>& source, int64_t out_w,
              const F32Kernel& kernel, const F32Pixels& pixels, double* sums) {
  const int64_t pitch = source.pitch(), channels = a.group_in();
  if (a.kernel_size() == 1) {
    for (int64_t row = 0; row < pixels.count; row += out_w)
      kernel.sum_channels(pixels.x[row] + pixels.offset, a.stride_w * pitch, out_w, channels,
                          sums + row);
    return;
  }
  constexpr int64_t kStep = 8;  // pixels
  static thread_local std::vector<double> input_sums;
  const float* first = pixels.x[0];
  const int64_t last_tap = (a.kernel_h - 1) * a.dilation_h * source.width() +
                           (a.kernel_w - 1) * a.dilation_w;
  const int64_t inputs = (pixels.x[pixels.count - 1] - first) / pitch + last_tap + 1;
  input_sums.resize(inputs + kStep * a.stride_w);
  kernel.sum_channels(first + pixels.offset, pitch, inputs, channels, input_sums.data());
  const auto add_up = [&](auto stride) {
    for (int64_t row = 0; row < pixels.count; row += out_w) {
      const double* from = input_sums.data() + (pixels.x[row] - first) / pitch;
      for (int64_t q = 0; q < out_w; q += kStep, from += kStep * stride) {
        double some[kStep] = {};
        for (int64_t i = 0; i < a.kernel_h; ++i)
          for (int64_t j = 0; j < a.kernel_w; ++j) {
            const double* tap = from + i * a.dilation_h * source.width() + j * a.dilation_w;
            for (int64_t p = 0; p < kStep; ++p) some[p] += tap[p * stride];
          }
        std::copy_n(some, std::min(kStep, out_w - q), sums + row + q);
      }
    }
  };
  if (a.stride_w == 1)
    add_up(std::integral_constant<int64_t, 1>{});
  else
    add_up(a.stride_w);
}

}  // namespace

AdderConv::AdderConv(const ConvParams& params, const float* weights, const float* scale,
                     const float* bias, Clip clip, Form form, Isa isa)
    : params_(params),
      clip_(clip),
      form_(select_form(params, weights, form)),
      kernels_(select_kernels(isa)),
      depthwise_kernel_(select_depthwise_kernel(isa)) {
  if (is_depthwise()) {
    form_ = Form::kDirect;
    weights_ = pack_depthwise_weights(params, weights);
    padding_.assign(padded_channels(params.in_channels), 0.0f);
    scale_[0].assign(scale, scale + params.out_channels);
    bias_[0].assign(bias, bias + params.out_channels);
    scale_[0].resize(padding_.size());
    bias_[0].resize(padding_.size());
    return;
  }
  weights_ = pack_weights(params, weights, kernels_->filters_per_block);
  const int64_t filters = kernels_->filters_per_block;
  const int64_t taps = params.group_in() * params.kernel_size();
  const auto wide = [&](const float* values) {
    return pack_per_filter(params, filters, [&](int64_t m) { return double{values[m]}; });
  };
  scale_[0] = wide(scale);
  bias_[0] = wide(bias);
  scale_[1] = pack_per_filter(params, filters, [&](int64_t m) { return 2.0 * double{scale[m]}; });
  bias_[1] = pack_per_filter(params, filters, [&](int64_t m) {
    double sum = 0;
    for (int64_t i = 0; i < taps; ++i) sum += double{weights[m * taps + i]};
    return double{bias[m]} + double{scale[m]} * sum;
  });
}

int64_t AdderConv::blocks_per_group() const {
  return ceil_div(params_.group_out(), kernels_->filters_per_block);
}

Work AdderConv::share_out(const ConvShape& shape, int threads) const {
  const int64_t floats = InputRows<float>::elements_per_row(params_, shape) +
                         shape.out_w * padded_channels(params_.out_channels);
  return share_out_rows(shape, is_depthwise() ? 1 : params_.group * blocks_per_group(),
                        floats * static_cast<int64_t>(sizeof(float)), threads);
}

void AdderConv::run(const Work& work, int64_t task, const ConvShape& shape, const float* x,
                    const float* z, float* y) const {
  static thread_local std::vector<double> sums;
  static thread_local std::vector<F32Run> runs;
  const int64_t first = task / work.shares * work.rows, share = task % work.shares;
  const int64_t last = std::min(first + work.rows, shape.batch * shape.out_h);
  if (is_depthwise()) return run_depthwise(shape, x, z, y, first, last);
  const int64_t per_block = kernels_->filters_per_block;
  const int64_t taps = params_.kernel_size() * params_.group_in();
  const int64_t group_size = static_cast<int64_t>(weights_.size()) / params_.group;
  InputRows<float> source(params_, shape, x, 0.0f);
  F32Pixels pixels{};
  pixels.count = (last - first) * shape.out_w;
  find_runs(source, runs);
  pixels.runs = runs.data();
  pixels.run_count = static_cast<int64_t>(runs.size());
  pixels.row = padded_channels(params_.out_channels);
  int64_t summed_group = -1;
  for (int64_t b = share * work.blocks / work.shares; b < (share + 1) * work.blocks / work.shares;
       ++b) {
    const int64_t group = b / blocks_per_group(), block = b % blocks_per_group();
    source.select(group, first, last);
    pixels.x = source.pixels();
    pixels.offset = source.offset();
    if (form_ == Form::kMax && group != summed_group) {
      sums.resize(pixels.count);
      sum_taps(params_, source, shape.out_w, kernel(Form::kMax), pixels, sums.data());
      summed_group = group;
    }
    pixels.sums = form_ == Form::kMax ? sums.data() : nullptr;
    const int64_t at = first * shape.out_w * pixels.row + group * params_.group_out() +
                       block * per_block;
    pixels.z = z == nullptr ? nullptr : z + at;
    pixels.y = y + at;
    const auto run_form = [&](Form form, int64_t begin, int64_t end) {
      const int i = static_cast<int>(form);
      kernel(form).run(from_pixel(pixels, begin, end - begin),
                       {weights_.data() + group * group_size + block * per_block * taps,
                        scale_[i].data() + b * per_block, bias_[i].data() + b * per_block,
                        std::min(per_block, params_.group_out() - block * per_block), clip_});
    };
    if (form_ == Form::kDirect) {
      run_form(Form::kDirect, 0, pixels.count);
      continue;
    }
    for (int64_t begin = 0, end; begin < pixels.count; begin = end) {
      const bool is_finite = std::isfinite(sums[begin]);
      for (end = begin + 1; end < pixels.count && std::isfinite(sums[end]) == is_finite;) ++end;
      run_form(is_finite ? Form::kMax : Form::kDirect, begin, end);
    }
  }
}

void AdderConv::run_depthwise(const ConvShape& shape, const float* x, const float* z, float* y,
                              int64_t first, int64_t last) const {
  static thread_local std::vector<const float*> taps;
  taps.resize(params_.kernel_size());
  const F32DepthwiseArgs args = {&params_,          &shape,           x,     padding_.data(), z, y,
                                 weights_.data(), scale_[0].data(), bias_[0].data(), clip_};
  depthwise_kernel_(args, first, last, taps.data());
}

double f32_inner_loop_rate(Form form, Isa isa, int threads, double seconds) {
  constexpr int64_t kSteps = 64;  // 8 KiB of weights and less of pixels
  const F32Kernel& kernel = select_kernels(isa)[static_cast<int>(form)];
  const AlignedVector<float> x(kernel.pixels_per_tile * kSteps, 1.0f);
  const AlignedVector<float> weights(kernel.filters_per_block * kSteps, 0.5f);
  const int64_t taps = kernel.pixels_per_tile * kernel.filters_per_block * kSteps;
  return inner_loop_rate(threads, seconds, static_cast<double>(taps), [&](int64_t times) {
    return static_cast<double>(kernel.inner_loop(x.data(), weights.data(), kSteps, times));
  });
}

}  // namespace adder_onnx
