#include "uint8/qadder_conv.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "layers/checks.h"
#include "layers/input_rows.h"
#include "threads/inner_loop_rate.h"
#include "uint8/lookup/use.h"
#include "uint8/few_levels.h"

namespace adder_onnx {
namespace {

constexpr int64_t kMaxTaps = std::numeric_limits<int32_t>::max() / 255;

// (M, C/group, kH, kW) to [block][kernel position][eight of channels][lane][8 bytes]. What fills up
// eights has no distance from what fills them up in the input; filters that fill up a register are zero.
AlignedVector<uint8_t> pack_weights(const ConvParams& a, const FilterBlocks& blocks,
                                    const Q8SadKernel& kernel, const uint8_t* w,
                                    uint8_t zero_point) {
  const int64_t channels = a.group_in(), filters = a.group_out(), size = a.kernel_size();
  AlignedVector<uint8_t> packed;
  packed.reserve(blocks.all_lanes() * size * eights(channels) * 8);
  for (int64_t b = 0; b < blocks.count(); ++b) {
    const FilterBlock block = blocks.at(b);
    const int64_t lanes = blocks.lanes(block);
    const uint8_t* from = w + (block.group * filters + block.first) * channels * size;
    for (int64_t k = 0; k < size; ++k)
      for (int64_t c = 0; c < eights(channels) * 8; c += 8)
        for (int64_t lane = 0; lane < lanes; ++lane) {
          const int64_t f = kernel.filter_of_lane(lane, lanes);
          for (int64_t i = c; i < c + 8; ++i)
            packed.push_back(f >= block.count ? 0
                             : i >= channels  ? zero_point
                                              : from[(f * channels + i) * size + k]);
        }
  }
  return packed;
}

void check_activation(const Q8Activation& a) {
  for (int32_t value : {a.z_zero_point, a.y_zero_point})
    if (value < 0 || value > 255) throw std::invalid_argument("a zero point must be 0 to 255");
  if (a.top < 3 || a.top > 255) throw std::invalid_argument("the largest integer must be 3 to 255");
  if (!(a.y_scale > 0) || std::isinf(a.y_scale))
    throw std::invalid_argument("the output's scale must be positive and finite");
  if (std::isnan(a.clip_min)) throw std::invalid_argument("the output's lower bound is not a number");
}

}  // namespace

Q8Epilogue make_epilogue(const Q8Activation& a) {
  check_activation(a);
  Q8Epilogue e{};
  e.z_scale = a.z_scale;
  e.z_zero_point = a.z_zero_point;
  e.y_scale = a.y_scale;
  e.y_reciprocal = is_reciprocal_exact(a.y_scale, 255) ? 1.0f / a.y_scale : 0.0f;
  e.y_zero_point = a.y_zero_point;
  const float low = static_cast<float>(-a.y_zero_point) * a.y_scale;
  e.low = std::max(a.clip_min, low);
  e.high = static_cast<float>(a.top - a.y_zero_point) * a.y_scale;
  // Then the quotient is bounded, which is exact.
  if (std::isinf(e.high)) e.high = std::numeric_limits<float>::infinity();
  e.top = a.top;
  e.levels = make_levels(a.levels, a.y_scale, a.y_zero_point, a.clip_min, a.top);
  return e;
}

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
                       Isa isa, const Q8Values& values, const Uint8Kernels* kernels)
    : params_(checked_conv(params)),
      zero_point_(zero_point),
      levels_(activation.levels),
      epilogue_(make_epilogue(activation)),
      kernels_(kernels == nullptr ? uint8_kernels(isa) : *kernels),
      blocks_(params, kernels_.sad.filters_per_block) {
  if (params.group_in() > kMaxTaps / params.kernel_size())
    throw std::invalid_argument("a filter has so many taps that their sum may not fit into int32");
  lookups_ = make_lookups(weights, factor, bias, values, isa);
  if (lookups_ != nullptr) return;
  const auto factor_of = [&](int64_t m) { return -factor[m]; };
  const auto bias_of = [&](int64_t m) { return bias[m]; };
  if (is_depthwise(params)) {
    weights_ = pack_depthwise_weights(params, weights);
    factor_ = pack_depthwise<float>(params, factor_of);
    bias_ = pack_depthwise<float>(params, bias_of);
    padding_.assign(padded_channels(params.in_channels), zero_point);
  } else {
    weights_ = pack_weights(params, blocks_, kernels_.sad, weights, zero_point);
    factor_ = blocks_.pack<float>(factor_of);
    bias_ = blocks_.pack<float>(bias_of);
  }
}

// Null where lookups cannot compute the layer, or it does not pay.
std::shared_ptr<const LookupConv> QAdderConv::make_lookups(const uint8_t* weights,
                                                           const float* factor, const float* bias,
                                                           const Q8Values& values, Isa isa) const {
  const UseLookups use = use_lookups();
  if (use == UseLookups::kNever || values.x.empty()) return nullptr;
  const LookupLayer layer = {params_, weights, zero_point_, factor, bias, epilogue_, values};
  if (use == UseLookups::kWherePays && !LookupConv::pays(layer, isa)) return nullptr;
  return LookupConv::make(layer, isa);
}

Work QAdderConv::share_out(const ConvShape& shape, int threads) const {
  if (lookups_ != nullptr) return lookups_->share_out(shape, threads);
  const int64_t blocks = is_depthwise(params_) ? 1 : blocks_.count();
  return share_out_rows(shape, blocks,
                        InputRows<uint8_t>::elements_per_row(params_, shape) +
                            shape.out_w * padded_channels(params_.out_channels),
                        threads);
}

int64_t QAdderConv::scratch_bytes(const ConvShape& shape, const Work& work) const {
  if (lookups_ != nullptr) return lookups_->scratch_bytes(shape, work);
  if (is_depthwise(params_)) return params_.kernel_size() * static_cast<int64_t>(sizeof(void*));
  return InputRows<uint8_t>::bytes_of(params_, shape, work.rows);
}

void QAdderConv::run(const Work& work, int64_t task, const ConvShape& shape, const uint8_t* x,
                     const uint8_t* z, uint8_t* y) const {
  if (lookups_ != nullptr) return lookups_->run(work, task, shape, x, z, y);
  const Range rows = work.rows_of(task, shape), blocks = work.blocks_of(task);
  if (is_depthwise(params_)) return run_depthwise(shape, x, z, y, rows);
  const int64_t bytes = params_.kernel_size() * eights(params_.group_in()) * 8;  // of a filter
  InputRows<uint8_t> source(params_, shape, x, zero_point_);
  Q8Pixels pixels{};
  pixels.count = (rows.last - rows.first) * shape.out_w;
  pixels.segments = source.segments().data();
  pixels.segment_count = static_cast<int64_t>(source.segments().size());
  pixels.steps = source.steps();
  pixels.row = padded_channels(params_.out_channels);
  for (int64_t b = blocks.first; b < blocks.last; ++b) {
    const FilterBlock block = blocks_.at(b);
    source.select(block.group, rows.first, rows.last);
    pixels.x = source.pixels();
    pixels.offset = source.offset();
    const int64_t at = rows.first * shape.out_w * pixels.row +
                       block.group * params_.group_out() + block.first;
    pixels.z = z == nullptr ? nullptr : z + at;
    pixels.y = y + at;
    const int64_t filter = b * kernels_.sad.filters_per_block;
    const Q8Filters filters = {weights_.data() + blocks_.lanes_before(block) * bytes,
                               factor_.data() + filter, bias_.data() + filter, block.count};
    kernels_.sad.run(pixels, filters, epilogue_);
  }
}

void QAdderConv::run_depthwise(const ConvShape& shape, const uint8_t* x, const uint8_t* z,
                               uint8_t* y, Range rows) const {
  static thread_local std::vector<const uint8_t*> taps;
  taps.resize(params_.kernel_size());
  const Q8DepthwiseArgs args = {&params_,        &shape,         x,           padding_.data(), z, y,
                                weights_.data(), factor_.data(), bias_.data()};
  kernels_.depthwise(args, epilogue_, rows.first, rows.last, taps.data());
}

double q8_inner_loop_rate(Isa isa, int threads, double seconds) {
  constexpr int64_t kSteps = 32;
  const Q8SadKernel& kernel = uint8_kernels(isa).sad;
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
