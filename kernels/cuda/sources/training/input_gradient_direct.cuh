// The gradient of an adder convolution with respect to its input with one thread for each element of
// it: for groups of few channels, where a tile of input_gradient.cuh would be mostly empty.
//
// Neighbouring threads compute neighbouring channels of a pixel. Weights are (M, C/group, kH, kW), as
// they stand in the layer.
#pragma once

#include "common/params.cuh"

constexpr int kGradientDirectThreads = 128;

__global__ void __launch_bounds__(kGradientDirectThreads)
    input_gradient_direct(const GradientArgs a) {
  const int channels = a.group * a.group_in, kernel = a.kernel_h * a.kernel_w;
  const long long size = static_cast<long long>(a.batch) * a.in_h * a.in_w * channels;
  const long long step = static_cast<long long>(gridDim.x) * kGradientDirectThreads;
  for (long long i = static_cast<long long>(blockIdx.x) * kGradientDirectThreads + threadIdx.x;
       i < size; i += step) {
    const int channel = static_cast<int>(i % channels);
    const long long pixel = i / channels, image = pixel / a.in_w / a.in_h;
    const int column = static_cast<int>(pixel % a.in_w) + a.pad_left;
    const int row = static_cast<int>(pixel / a.in_w % a.in_h) + a.pad_top;
    const int group = channel / a.group_in;
    const float x = __ldg(static_cast<const float*>(a.x) + pixel * a.x_row + channel);
    float total = 0;
    for (int k = 0; k < kernel; ++k) {
      const int top = row - k / a.kernel_w * a.dilation_h, h = top / a.stride_h;
      const int left = column - k % a.kernel_w * a.dilation_w, w = left / a.stride_w;
      if (top < 0 || top % a.stride_h != 0 || h >= a.out_h) continue;
      if (left < 0 || left % a.stride_w != 0 || w >= a.out_w) continue;
      const float* grad_y = static_cast<const float*>(a.grad_y) + group * a.group_out +
                            ((image * a.out_h + h) * a.out_w + w) * a.y_row;
      const float* weights =
          static_cast<const float*>(a.weights) + k +
          (static_cast<long long>(group) * a.group_out * a.group_in + channel % a.group_in) * kernel;
      float sum = 0;
      for (int m = 0; m < a.group_out; ++m, weights += a.group_in * kernel) {
        const float difference = __ldg(weights) - x;
        // Written so that NaN stays NaN.
        const float slope = difference < -1 ? -1 : difference > 1 ? 1 : difference;
        sum = fmaf(__ldg(grad_y + m), slope, sum);
      }
      total += sum;
    }
    static_cast<float*>(a.grad_x)[pixel * a.x_row + channel] = total;
  }
}
