#include "qadder_conv.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "inner_loop_rate.h"
#include "input_rows.h"

namespace adder_onnx {
namespace {

const Q8SadKernel* select_kernel([[maybe_unused]] Isa isa) {
#if defined(ADDER_ONNX_X86)
  if (isa == Isa::kAvx512) return &kQ8SadAvx512;
  if (isa == Isa::kAvx2) return &kQ8SadAvx2;
#endif
  return &kQ8SadScalar;
}

Q8DepthwiseKernel select_depthwise_kernel([[maybe_unused]] Isa isa) {
#if defined(ADDER_ONNX_X86)
  if (isa == Isa::kAvx512) return q8_depthwise_avx512;
  if (isa == Isa::kAvx2) return q8_depthwise_avx2;
#endif
  return q8_depthwise_scalar;
}

// (M, 1, kH, kW) to [kernel position][padded channels].
AlignedVector<uint8_t> pack_depthwise_weights(const ConvParams& a, const uint8_t* w) {
  const int64_t row = padded_channels(a.in_channels), size = a.kernel_size();
  AlignedVector<uint8_t> packed(size * row);
  for (int64_t m = 0; m < a.out_channels; ++m)
    for (int64_t k = 0; k < size; ++k) packed[k * row + m] = w[m * size + k];
  return packed;
}

// (M, C/group, kH, kW) to [group][block][kernel position][eight of channels][lane][8 bytes]. What
// fills up eights has no distance from what fills them up in the input; filters that fill up
// a register are zero.
AlignedVector<uint8_t> pack_weights(const ConvParams& a, const uint8_t* w, uint8_t zero_point,
                                  int64_t filters_per_block) {
  const int64_t half = std::max<int64_t>(filters_per_block / 2, 1);
  const int64_t channels = a.group_in(), filters = a.group_out(), size = a.kernel_size();
  AlignedVector<uint8_t> packed(a.group * ceil_div(filters, half) * half * size *
                              eights(channels) * 8);
  uint8_t* to = packed.data();
  for (int64_t g = 0; g < a.group; ++g)
    for (int64_t first = 0; first < filters; first += filters_per_block) {
      const int64_t lanes = filters - first > half ? filters_per_block : half;
      for (int64_t k = 0; k < size; ++k)
        for (int64_t c = 0; c < eights(channels) * 8; c += 8)
          for (int64_t lane = 0; lane < lanes; ++lane) {
            // One register has all filters, or two of them have every second one.
            const int64_t f = first + (lanes > half ? lane % half * 2 + lane / half : lane);
            for (int64_t i = c; i < c + 8; ++i)
              *to++ = f >= filters    ? 0
                      : i >= channels ? zero_point
                                      : w[((g * filters + f) * channels + i) * size + k];
          }
    }
  packed.resize(to - packed.data());
  return packed;
}

// M values, times a sign, to [group][block][filter of the block].
std::vector<float> pack_per_filter(const ConvParams& a, const float* values, float sign,
                                   int64_t filters_per_block) {
  const int64_t row = ceil_div(a.group_out(), filters_per_block) * filters_per_block;
  std::vector<float> packed(a.group * row);
  for (int64_t m = 0; m < a.out_channels; ++m)
    packed[m / a.group_out() * row + m % a.group_out()] = sign * values[m];
  return packed;
}

// M values, times a sign, to [padded filter].
std::vector<float> pack_per_channel(const ConvParams& a, const float* values, float sign) {
  std::vector<float> packed(padded_channels(a.out_channels));
  for (int64_t m = 0; m < a.out_channels; ++m) packed[m] = sign * values[m];
  return packed;
}

Q8Epilogue make_epilogue(const Q8Activation& a) {
  Q8Epilogue e{};
  e.z_scale = a.z_scale;
  e.z_zero_point = a.z_zero_point;
  e.y_scale = a.y_scale;
  e.y_reciprocal = is_reciprocal_exact(a.y_scale, 255) ? 1.0f / a.y_scale : 0.0f;
  e.y_zero_point = a.y_zero_point;
  const float low = static_cast<float>(-a.y_zero_point) * a.y_scale;
  e.low = std::max(a.clip_min, low);
  e.high = static_cast<float>(a.top - a.y_zero_point) * a.y_scale;
  e.top = a.top;
  return e;
}

}  // namespace

bool is_reciprocal_exact(float y_scale, int32_t top) {
  // Beyond these, products could leave the range of normal numbers.
  if (!(y_scale > 0x1p-60f && y_scale < 0x1p60f)) return false;
  const float r = 1.0f / y_scale;
  for (int32_t k = 0; k <= top; ++k) {
    float v = (static_cast<float>(k) + 0.5f) * y_scale;
    for (int i = 0; i < 4; ++i) v = std::nextafter(v, 0.0f);
    for (int i = 0; i < 9; ++i, v = std::nextafter(v, std::numeric_limits<float>::infinity())) {
      const float q = v * r;
      const float quotient = std::fma(std::fma(-q, y_scale, v), r, q);
      if (std::rint(quotient) != std::rint(v / y_scale)) return false;
    }
  }
  return true;
}

QAdderConv::QAdderConv(const ConvParams& params, const uint8_t* weights, uint8_t zero_point,
                       const float* factor, const float* bias, const Q8Activation& activation,
                       Isa isa)
    : params_(params),
      zero_point_(zero_point),
      epilogue_(make_epilogue(activation)),
      kernel_(select_kernel(isa)),
      depthwise_kernel_(select_depthwise_kernel(isa)),
      block_bytes_(kernel_->filters_per_block * params.kernel_size() * eights(params.group_in()) *
                   8) {
  if (is_depthwise()) {
    weights_ = pack_depthwise_weights(params, weights);
    factor_ = pack_per_channel(params, factor, -1.0f);
    bias_ = pack_per_channel(params, bias, 1.0f);
    padding_.assign(padded_channels(params.in_channels), zero_point);
  } else {
    weights_ = pack_weights(params, weights, zero_point, kernel_->filters_per_block);
    factor_ = pack_per_filter(params, factor, -1.0f, kernel_->filters_per_block);
    bias_ = pack_per_filter(params, bias, 1.0f, kernel_->filters_per_block);
  }
}

int64_t QAdderConv::blocks_per_group() const {
  return ceil_div(params_.group_out(), kernel_->filters_per_block);
}

Work QAdderConv::share_out(const ConvShape& shape, int threads) const {
  const int64_t blocks = is_depthwise() ? 1 : params_.group * blocks_per_group();
  return share_out_rows(shape, blocks,
                        InputRows<uint8_t>::elements_per_row(params_, shape) +
                            shape.out_w * padded_channels(params_.out_channels),
                        threads);
}

void QAdderConv::run(const Work& work, int64_t task, const ConvShape& shape, const uint8_t* x,
                     const uint8_t* z, uint8_t* y) const {
  const int64_t first = task / work.shares * work.rows, share = task % work.shares;
  const int64_t last = std::min(first + work.rows, shape.batch * shape.out_h);
  if (is_depthwise()) return run_depthwise(shape, x, z, y, first, last);
  const int64_t per_block = kernel_->filters_per_block;
  const int64_t group_bytes = weights_.size() / params_.group;
  InputRows<uint8_t> source(params_, shape, x, zero_point_);
  Q8Pixels pixels{};
  pixels.count = (last - first) * shape.out_w;
  pixels.segments = source.segments().data();
  pixels.segment_count = static_cast<int64_t>(source.segments().size());
  pixels.steps = source.steps();
  pixels.row = padded_channels(params_.out_channels);
  for (int64_t b = share * work.blocks / work.shares; b < (share + 1) * work.blocks / work.shares;
       ++b) {
    const int64_t group = b / blocks_per_group(), block = b % blocks_per_group();
    source.select(group, first, last);
    pixels.x = source.pixels();
    pixels.offset = source.offset();
    const int64_t at = first * shape.out_w * pixels.row + group * params_.group_out() +
                       block * per_block;
    pixels.z = z == nullptr ? nullptr : z + at;
    pixels.y = y + at;
    const Q8Filters filters = {weights_.data() + group * group_bytes + block * block_bytes_,
                               factor_.data() + b * per_block, bias_.data() + b * per_block,
                               std::min(per_block, params_.group_out() - block * per_block)};
    kernel_->run(pixels, filters, epilogue_);
  }
}

void QAdderConv::run_depthwise(const ConvShape& shape, const uint8_t* x, const uint8_t* z,
                               uint8_t* y, int64_t first, int64_t last) const {
  static thread_local std::vector<const uint8_t*> table;
  table.resize(params_.kernel_size());
  const Q8DepthwiseArgs args = {&params_,        &shape,         x,           padding_.data(), z, y,
                                weights_.data(), factor_.data(), bias_.data()};
  depthwise_kernel_(args, epilogue_, first, last, table.data());
}

double q8_inner_loop_rate(Isa isa, int threads, double seconds) {
  constexpr int64_t kSteps = 32;
  const Q8SadKernel& kernel = *select_kernel(isa);
  const AlignedVector<uint8_t> x(kernel.pixels_per_tile * kSteps * 8, 1);
  const AlignedVector<uint8_t> weights(kernel.filters_per_block * kSteps * 8, 2);
  const int64_t filters = kernel.filters_per_block;
  return inner_loop_rate(threads, seconds,
                         static_cast<double>(kernel.pixels_per_tile * filters * kSteps * 8),
                         [&](int64_t times) {
                           return static_cast<double>(
                               kernel.inner_loop(x.data(), weights.data(), kSteps, times));
                         });
}

}  // namespace adder_onnx
