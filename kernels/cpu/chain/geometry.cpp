#include "chain/geometry.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "layers/checks.h"

namespace adder_onnx {
namespace {

struct Axis {
  const char* name;
  int64_t size, kernel, stride, dilation;
  int64_t begin, end;  // pads, where they are given
};

struct Fit {
  int64_t out, begin;
};

// Along an axis with pads chosen so that the output has ceil(size / stride) pixels.
void pad_alike(AutoPad mode, int64_t span, Axis* a) {
  const int64_t out = ceil_div(a->size, a->stride);
  const int64_t total = std::max<int64_t>((out - 1) * a->stride + span - a->size, 0);
  a->begin = mode == AutoPad::kSameUpper ? total / 2 : total - total / 2;
  a->end = total - a->begin;
}

Fit fit(const Padding& padding, Axis a) {
  const int64_t span = checked_sum(checked_product({a.kernel - 1, a.dilation}), 1);
  if (padding.mode == AutoPad::kValid)
    a.begin = a.end = 0;
  else if (padding.mode != AutoPad::kNotSet)
    pad_alike(padding.mode, span, &a);
  const int64_t padded = checked_sum(checked_sum(a.size, a.begin), a.end);
  if (span > padded)
    throw std::invalid_argument(
        "the kernel spans " + std::to_string(span) + " pixels in " + a.name + " (kernel " +
        std::to_string(a.kernel) + ", dilation " + std::to_string(a.dilation) +
        "), more than the padded image's " + std::to_string(padded));
  int64_t out = (padded - span) / a.stride + 1;
  // One more where something is left, unless its window begins behind the image.
  const bool is_left = (padded - span) % a.stride != 0;
  if (padding.ceil && padding.mode == AutoPad::kNotSet && is_left &&
      checked_product({out, a.stride}) < a.size + a.begin)
    ++out;
  return {out, a.begin};
}

}  // namespace

ConvShape conv_shape(const ConvParams& a, const Padding& p, const ImageShape& image) {
  const Fit height =
      fit(p, {"height", image.height, a.kernel_h, a.stride_h, a.dilation_h, p.top, p.bottom});
  const Fit width =
      fit(p, {"width", image.width, a.kernel_w, a.stride_w, a.dilation_w, p.left, p.right});
  return {image.batch, image.height, image.width, height.out, width.out, height.begin, width.begin};
}

}  // namespace adder_onnx
