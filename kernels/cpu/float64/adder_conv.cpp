#include "float64/adder_conv.h"

#include <cmath>

#include "threads/thread_pool.h"

namespace adder_onnx {
namespace {

// The sum of one filter's taps of one channel, at an output pixel whose first tap is at (top, left).
double distance(const ConvParams& a, const ConvShape& s, const double* x, const double* w,
                int64_t top, int64_t left) {
  double sum = 0;
  for (int64_t i = 0; i < a.kernel_h; ++i)
    for (int64_t j = 0; j < a.kernel_w; ++j) {
      const int64_t row = top + i * a.dilation_h, column = left + j * a.dilation_w;
      const bool is_inside = row >= 0 && row < s.in_h && column >= 0 && column < s.in_w;
      sum += std::fabs((is_inside ? x[row * s.in_w + column] : 0.0) - w[i * a.kernel_w + j]);
    }
  return sum;
}

}  // namespace

void adder_conv_float64(const ConvParams& a, const ConvShape& s, const double* x,
                        const double* weights, double* y, const Workers& workers) {
  const int64_t channels = a.group_in(), image = s.in_h * s.in_w;
  parallel_for(s.batch * a.out_channels, workers, [&](int64_t task) {
    const int64_t n = task / a.out_channels, m = task % a.out_channels;
    const double* of_group = x + (n * a.in_channels + m / a.group_out() * channels) * image;
    const double* w = weights + m * channels * a.kernel_size();
    double* out = y + task * s.out_h * s.out_w;
    for (int64_t row = 0; row < s.out_h; ++row)
      for (int64_t column = 0; column < s.out_w; ++column) {
        double sum = 0;
        for (int64_t c = 0; c < channels; ++c)
          sum += distance(a, s, of_group + c * image, w + c * a.kernel_size(),
                          row * a.stride_h - s.pad_top, column * a.stride_w - s.pad_left);
        *out++ = -sum;
      }
  });
}

}  // namespace adder_onnx
