#include "qadder_conv.h"

#include <algorithm>

#include "thread_pool.h"

namespace adder_onnx {
namespace {

constexpr int64_t kTasksPerThread = 4;
constexpr int64_t kMaxPixelsPerTask = 256;

Q8DirectKernel select_kernel([[maybe_unused]] Isa isa) {
#if defined(ADDER_ONNX_X86)
  if (isa == Isa::kAvx512) return q8_direct_avx512;
  if (isa == Isa::kAvx2) return q8_direct_avx2;
#endif
  return q8_direct_scalar;
}

// (M, C/group, kH, kW) to [filter][kernel position][channel of the group].
std::vector<uint8_t> pack_weights(const ConvParams& a, const uint8_t* w) {
  std::vector<uint8_t> packed(a.out_channels * a.group_in() * a.kernel_size());
  uint8_t* to = packed.data();
  for (int64_t m = 0; m < a.out_channels; ++m)
    for (int64_t k = 0; k < a.kernel_size(); ++k)
      for (int64_t c = 0; c < a.group_in(); ++c)
        *to++ = w[(m * a.group_in() + c) * a.kernel_size() + k];
  return packed;
}

}  // namespace

QAdderConv::QAdderConv(const ConvParams& params, const uint8_t* weights, uint8_t zero_point,
                       const float* factor, const float* bias, const Q8Epilogue& epilogue, Isa isa)
    : params_(params),
      epilogue_(epilogue),
      kernel_(select_kernel(isa)),
      weights_(pack_weights(params, weights)),
      padding_(padded_channels(params.in_channels), zero_point),
      factor_(factor, factor + params.out_channels),
      bias_(bias, bias + params.out_channels) {}

void QAdderConv::run(const ConvShape& shape, const uint8_t* x, const uint8_t* z, uint8_t* y,
                     int threads) const {
  const Q8DirectArgs args = {&params_,        &shape,         x,            padding_.data(), z, y,
                             weights_.data(), factor_.data(), bias_.data(), epilogue_};
  const int64_t pixels = shape.batch * shape.out_h * shape.out_w;
  const int64_t each =
      std::clamp<int64_t>(ceil_div(pixels, kTasksPerThread * threads), 1, kMaxPixelsPerTask);
  parallel_for(ceil_div(pixels, each), threads, [&](int64_t task) {
    static thread_local std::vector<const uint8_t*> table;
    const int64_t first = task * each, last = std::min(first + each, pixels);
    table.resize((last - first) * params_.kernel_size());
    kernel_(args, first, last, table.data());
  });
}

}  // namespace adder_onnx
