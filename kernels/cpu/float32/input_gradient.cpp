#include "float32/input_gradient.h"

#include <algorithm>
#include <stdexcept>

#include "isa/select.h"
#include "layers/aligned.h"
#include "layers/checks.h"
#include "layout/layout.h"
#include "threads/thread_pool.h"

namespace adder_onnx {
namespace {

constexpr int64_t kMaxBytes = 4 << 20;  // of channels-last copies of some images
const Conversion kFloats = {ElementType::kFloat32, ElementType::kFloat32, 1.0f, 0, 255};

AlignedVector<float> pack_weights(const ConvParams& a, const float* w) {
  const int64_t row = padded_channels(a.group_in()), size = a.kernel_size();
  AlignedVector<float> packed(a.out_channels * size * row);
  for (int64_t m = 0; m < a.out_channels; ++m)
    for (int64_t c = 0; c < a.group_in(); ++c)
      for (int64_t k = 0; k < size; ++k) {
        const int64_t group = m / a.group_out(), filter = m % a.group_out();
        packed[((group * size + k) * a.group_out() + filter) * row + c] =
            w[(m * a.group_in() + c) * size + k];
      }
  return packed;
}

}  // namespace

void input_gradient(const ConvParams& params, const ConvShape& shape, const float* x,
                    const float* weights, const float* grad_y, float* grad_x, Isa isa,
                    int threads) {
  if (threads < 1) throw std::invalid_argument("threads must be at least 1");
  checked_conv(params);
  check_shape(params, shape);
  ImageShape in = {shape.batch, params.in_channels, shape.in_h, shape.in_w};
  ImageShape out = {shape.batch, params.out_channels, shape.out_h, shape.out_w};
  const auto floats = [](const float* at, int64_t count) {
    return Memory{at, count * static_cast<int64_t>(sizeof(float))};
  };
  const Memory to = floats(grad_x, in.nchw_size());
  const int64_t taps = params.group_in() * params.kernel_size();
  for (const Memory& from : {floats(x, in.nchw_size()), floats(grad_y, out.nchw_size()),
                             floats(weights, params.out_channels * taps)})
    if (overlap(to, from))
      throw std::invalid_argument("the gradient of the input shares memory with what it is made of");
  if (in.nchw_size() == 0) return;
  in.batch = out.batch = 1;
  const F32GradientKernel kernel = float32_kernels(isa).gradient;
  const AlignedVector<float> packed = pack_weights(params, weights);
  const AlignedVector<float> zeros(padded_channels(params.out_channels));
  const int64_t bytes =
      static_cast<int64_t>(sizeof(float)) * (2 * in.nhwc_size() + out.nhwc_size());
  const int64_t images =
      std::min(shape.batch, std::max<int64_t>(threads, kMaxBytes / std::max<int64_t>(bytes, 1)));
  AlignedVector<float> x_inside(images * in.nhwc_size()), grad_x_inside(x_inside.size());
  AlignedVector<float> grad_y_inside(images * out.nhwc_size());
  for (int64_t first = 0; first < shape.batch; first += images) {
    in.batch = out.batch = std::min(images, shape.batch - first);
    ConvShape some = shape;
    some.batch = in.batch;
    const F32GradientArgs args = {&params,       &some,         x_inside.data(),
                                  grad_y_inside.data(), zeros.data(), packed.data(),
                                  grad_x_inside.data()};
    const float* from = x + first * params.in_channels * shape.in_h * shape.in_w;
    const float* from_y = grad_y + first * params.out_channels * shape.out_h * shape.out_w;
    float* to = grad_x + first * params.in_channels * shape.in_h * shape.in_w;
    const int64_t counts[] = {conversion_tasks(in), conversion_tasks(out), in.batch * shape.in_h,
                              conversion_tasks(in)};
    run_phases(counts, 4, PoolWorkers(threads), [&](int64_t phase, int64_t task) {
      switch (phase) {
        case 0: return nchw_to_nhwc(in, kFloats, from, x_inside.data(), task);
        case 1: return nchw_to_nhwc(out, kFloats, from_y, grad_y_inside.data(), task);
        case 2: return kernel(args, task, task + 1);
        default: return nhwc_to_nchw(in, kFloats, grad_x_inside.data(), to, task);
      }
    });
  }
}

}  // namespace adder_onnx
