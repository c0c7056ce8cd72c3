#include "layers/checks.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace adder_onnx {
namespace {

void check_size(int64_t size) {
  if (size < 0) throw std::invalid_argument("a size is negative: " + std::to_string(size));
}

[[noreturn]] void refuse_size() {
  throw std::invalid_argument("sizes are too large: their product or sum is more than 2^56");
}

struct Axis {
  int64_t in, out, kernel, stride, dilation, pad;
};

// The pixels of the padded image, as far as kernels look at it. Throws where the output has fewer
// pixels than fit.
int64_t check_axis(const Axis& a) {
  for (int64_t size : {a.in, a.out, a.pad}) check_size(size);
  const int64_t span = checked_sum(checked_product({a.kernel - 1, a.dilation}), 1);
  const int64_t padded = checked_sum(a.in, a.pad);
  const int64_t fitting = padded < span ? 0 : (padded - span) / a.stride + 1;
  if (a.out < fitting)
    throw std::invalid_argument("an output of " + std::to_string(a.out) + " pixels along an axis is " +
                                "too small: " + std::to_string(fitting) + " fit");
  const int64_t steps = std::max<int64_t>(a.out - 1, 0);
  return std::max(padded, checked_sum(checked_product({steps, a.stride}), span));
}

}  // namespace

int64_t checked_product(std::initializer_list<int64_t> sizes) {
  int64_t product = 1;
  bool is_zero = false;
  for (int64_t size : sizes) {
    check_size(size);
    is_zero = is_zero || size == 0;
    if (size != 0 && (__builtin_mul_overflow(product, size, &product) || product > kMaxSize))
      refuse_size();
  }
  return is_zero ? 0 : product;
}

int64_t element_count(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (int64_t dim : shape) count = checked_product({count, dim});
  return count;
}

int64_t checked_sum(int64_t a, int64_t b) {
  check_size(a);
  check_size(b);
  int64_t sum;
  if (__builtin_add_overflow(a, b, &sum) || sum > kMaxSize) refuse_size();
  return sum;
}

int64_t checked_channels(int64_t channels) {
  return padded_channels(checked_sum(channels, 0));
}

void check_params(const ConvParams& a) {
  if (a.group < 1 || a.in_channels < 0 || a.out_channels < 0)
    throw std::invalid_argument("the number of groups is not positive, or one of channels is negative");
  if (a.in_channels % a.group != 0 || a.out_channels % a.group != 0)
    throw std::invalid_argument("the number of channels or filters is not a multiple of group");
  if (a.kernel_h < 1 || a.kernel_w < 1)
    throw std::invalid_argument("a kernel must have at least one position");
  if (a.stride_h < 1 || a.stride_w < 1 || a.dilation_h < 1 || a.dilation_w < 1)
    throw std::invalid_argument("strides and dilations must be at least 1");
  for (int64_t size : {a.group, a.stride_h, a.stride_w, a.dilation_h, a.dilation_w})
    checked_sum(size, 0);
  const int64_t width = static_cast<int64_t>(sizeof(double));
  checked_product({checked_channels(a.out_channels), checked_channels(a.group_in()), a.kernel_h,
                   a.kernel_w, width});
}

ConvParams checked_conv(const ConvParams& a) {
  check_params(a);
  if (a.in_channels < 1) throw std::invalid_argument("filters must have at least one channel");
  return a;
}

void check_shape(const ConvParams& a, const ConvShape& s) {
  const int64_t height =
      check_axis({s.in_h, s.out_h, a.kernel_h, a.stride_h, a.dilation_h, s.pad_top});
  const int64_t width =
      check_axis({s.in_w, s.out_w, a.kernel_w, a.stride_w, a.dilation_w, s.pad_left});
  // What a row of the output reads, times all rows, as they are shared out; the padded image, which
  // may be copied; and the output.
  const int64_t pixel = checked_product({checked_channels(a.in_channels), sizeof(float)});
  const int64_t rows = std::max(a.stride_h, a.kernel_h);
  checked_product({s.batch, s.out_h, rows, width, pixel});
  checked_product({s.batch, height, width, pixel});
  checked_product({a.stride_w, pixel});
  checked_product(
      {s.batch, s.out_h, s.out_w, checked_channels(a.out_channels), sizeof(float)});
}

bool overlap(const Memory& a, const Memory& b) {
  const auto first = reinterpret_cast<uintptr_t>(a.at), second = reinterpret_cast<uintptr_t>(b.at);
  return a.bytes > 0 && b.bytes > 0 && first < second + static_cast<uintptr_t>(b.bytes) &&
         second < first + static_cast<uintptr_t>(a.bytes);
}

}  // namespace adder_onnx
