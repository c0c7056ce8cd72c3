#include "float32/adder_conv.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "layers/checks.h"
#include "layers/input_rows.h"
#include "threads/inner_loop_rate.h"

namespace adder_onnx {
namespace {

// A partial sum, and one of weights, stays far from the largest float.
constexpr float kMaxWeight = 0x1p100f;

constexpr int64_t kSumPixels = 8;  // whose taps are summed side by side

Form select_form(const ConvParams& a, const float* weights, Form wanted) {
  const int64_t count = a.out_channels * a.group_in() * a.kernel_size();
  const bool all = std::all_of(weights, weights + count,
                               [](float w) { return std::fabs(w) <= kMaxWeight; });
  return all ? wanted : Form::kDirect;
}

// (M, C/group, kH, kW) to [block][kernel position][channel][filter of the block]; filters that fill up
// a register are zero.
AlignedVector<float> pack_weights(const ConvParams& a, const FilterBlocks& blocks, const float* w) {
  const int64_t channels = a.group_in(), filters = a.group_out(), size = a.kernel_size();
  AlignedVector<float> packed;
  packed.reserve(blocks.all_lanes() * size * channels);
  for (int64_t b = 0; b < blocks.count(); ++b) {
    const FilterBlock block = blocks.at(b);
    const int64_t lanes = blocks.lanes(block);
    const float* from = w + (block.group * filters + block.first) * channels * size;
    for (int64_t k = 0; k < size; ++k)
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t f = 0; f < lanes; ++f)
          packed.push_back(f < block.count ? from[(f * channels + c) * size + k] : 0.0f);
  }
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
  const int64_t stride_w = out_w == 1 ? 1 : a.stride_w;
  if (a.kernel_size() == 1) {
    for (int64_t row = 0; row < pixels.count; row += out_w)
      kernel.sum_channels(pixels.x[row] + pixels.offset, stride_w * pitch, out_w, channels,
                          sums + row);
    return;
  }
  static thread_local std::vector<double> input_sums;
  const float* first = pixels.x[0];
  const int64_t last_tap = (a.kernel_h - 1) * a.dilation_h * source.width() +
                           (a.kernel_w - 1) * a.dilation_w;
  const int64_t inputs = (pixels.x[pixels.count - 1] - first) / pitch + last_tap + 1;
  input_sums.resize(inputs + kSumPixels * stride_w);
  kernel.sum_channels(first + pixels.offset, pitch, inputs, channels, input_sums.data());
  const auto add_up = [&](auto stride) {
    for (int64_t row = 0; row < pixels.count; row += out_w) {
      const double* from = input_sums.data() + (pixels.x[row] - first) / pitch;
      for (int64_t q = 0; q < out_w; q += kSumPixels, from += kSumPixels * stride) {
        double some[kSumPixels] = {};
        for (int64_t i = 0; i < a.kernel_h; ++i)
          for (int64_t j = 0; j < a.kernel_w; ++j) {
            const double* tap = from + i * a.dilation_h * source.width() + j * a.dilation_w;
            for (int64_t p = 0; p < kSumPixels; ++p) some[p] += tap[p * stride];
          }
        std::copy_n(some, std::min(kSumPixels, out_w - q), sums + row + q);
      }
    }
  };
  if (stride_w == 1)
    add_up(std::integral_constant<int64_t, 1>{});
  else
    add_up(stride_w);
}

}  // namespace

AdderConv::AdderConv(const ConvParams& params, const float* weights, const float* scale,
                     const float* bias, Clip clip, Form form, Isa isa)
    : params_(checked_conv(params)),
      clip_(clip),
      form_(select_form(params, weights, form)),
      kernels_(float32_kernels(isa)),
      blocks_(params, kernels_.sums[0].filters_per_block) {
  const auto scale_of = [&](int64_t m) { return double{scale[m]}; };
  const auto bias_of = [&](int64_t m) { return double{bias[m]}; };
  if (is_depthwise(params)) {
    form_ = Form::kDirect;
    weights_ = pack_depthwise_weights(params, weights);
    scale_[0] = pack_depthwise<double>(params, scale_of);
    bias_[0] = pack_depthwise<double>(params, bias_of);
    padding_.assign(padded_channels(params.in_channels), 0.0f);
    return;
  }
  weights_ = pack_weights(params, blocks_, weights);
  scale_[0] = blocks_.pack<double>(scale_of);
  bias_[0] = blocks_.pack<double>(bias_of);
  scale_[1] = blocks_.pack<double>([&](int64_t m) { return 2.0 * scale_of(m); });
  const int64_t taps = params.group_in() * params.kernel_size();
  bias_[1] = blocks_.pack<double>([&](int64_t m) {
    double sum = 0;
    for (int64_t i = 0; i < taps; ++i) sum += double{weights[m * taps + i]};
    return bias_of(m) + scale_of(m) * sum;
  });
}

Work AdderConv::share_out(const ConvShape& shape, int threads) const {
  const int64_t floats = InputRows<float>::elements_per_row(params_, shape) +
                         shape.out_w * padded_channels(params_.out_channels);
  return share_out_rows(shape, is_depthwise(params_) ? 1 : blocks_.count(),
                        floats * static_cast<int64_t>(sizeof(float)), threads);
}

int64_t AdderConv::scratch_bytes(const ConvShape& shape, const Work& work) const {
  if (is_depthwise(params_)) return params_.kernel_size() * static_cast<int64_t>(sizeof(void*));
  const int64_t runs = params_.kernel_size() * (params_.group_in() / kPartialTaps + 1);
  const int64_t sums = InputRows<float>::pixels_of(params_, shape, work.rows) +
                       work.rows * shape.out_w +
                       kSumPixels * (shape.out_w == 1 ? 1 : params_.stride_w);
  return InputRows<float>::bytes_of(params_, shape, work.rows) +
         runs * static_cast<int64_t>(sizeof(F32Run)) + sums * static_cast<int64_t>(sizeof(double));
}

void AdderConv::run(const Work& work, int64_t task, const ConvShape& shape, const float* x,
                    const float* z, float* y) const {
  static thread_local std::vector<double> sums;
  static thread_local std::vector<F32Run> runs;
  const Range rows = work.rows_of(task, shape), blocks = work.blocks_of(task);
  if (is_depthwise(params_)) return run_depthwise(shape, x, z, y, rows);
  const int64_t taps = params_.kernel_size() * params_.group_in();
  InputRows<float> source(params_, shape, x, 0.0f);
  F32Pixels pixels{};
  pixels.count = (rows.last - rows.first) * shape.out_w;
  find_runs(source, runs);
  pixels.runs = runs.data();
  pixels.run_count = static_cast<int64_t>(runs.size());
  pixels.row = padded_channels(params_.out_channels);
  int64_t summed_group = -1;
  for (int64_t b = blocks.first; b < blocks.last; ++b) {
    const FilterBlock block = blocks_.at(b);
    source.select(block.group, rows.first, rows.last);
    pixels.x = source.pixels();
    pixels.offset = source.offset();
    if (form_ == Form::kMax && block.group != summed_group) {
      sums.resize(pixels.count);
      sum_taps(params_, source, shape.out_w, kernel(Form::kMax), pixels, sums.data());
      summed_group = block.group;
    }
    pixels.sums = form_ == Form::kMax ? sums.data() : nullptr;
    const int64_t at = rows.first * shape.out_w * pixels.row +
                       block.group * params_.group_out() + block.first;
    pixels.z = z == nullptr ? nullptr : z + at;
    pixels.y = y + at;
    const auto run_form = [&](Form form, int64_t begin, int64_t end) {
      const int i = static_cast<int>(form);
      const int64_t filters = b * kernels_.sums[0].filters_per_block;
      kernel(form).run(from_pixel(pixels, begin, end - begin),
                       {weights_.data() + blocks_.lanes_before(block) * taps,
                        scale_[i].data() + filters, bias_[i].data() + filters, block.count, clip_});
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
                              Range rows) const {
  static thread_local std::vector<const float*> taps;
  taps.resize(params_.kernel_size());
  const F32DepthwiseArgs args = {&params_,          &shape,           x,     padding_.data(), z, y,
                                 weights_.data(), scale_[0].data(), bias_[0].data(), clip_};
  kernels_.depthwise(args, rows.first, rows.last, taps.data());
}

double f32_inner_loop_rate(Form form, Isa isa, int threads, double seconds) {
  constexpr int64_t kSteps = 64;  // 8 KiB of weights and less of pixels
  const F32Kernel& kernel = float32_kernels(isa).sums[static_cast<int>(form)];
  const AlignedVector<float> x(kernel.pixels_per_tile * kSteps, 1.0f);
  const AlignedVector<float> weights(kernel.filters_per_block * kSteps, 0.5f);
  const int64_t taps = kernel.pixels_per_tile * kernel.filters_per_block * kSteps;
  return inner_loop_rate(threads, seconds, static_cast<double>(taps), [&](int64_t times) {
    return static_cast<double>(kernel.inner_loop(x.data(), weights.data(), kSteps, times));
  });
}

}  // namespace adder_onnx
