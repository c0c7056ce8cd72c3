#include "uint8/max_pool.h"

#include <cstring>

namespace adder_onnx {
namespace {

// The kernel positions along an axis whose taps, from `start` on, lie inside of the image.
Range positions_inside(int64_t start, int64_t size, int64_t kernel, int64_t dilation) {
  const int64_t first = start >= 0 ? 0 : ceil_div(-start, dilation);
  const int64_t last = start >= size ? 0 : ceil_div(size - start, dilation);
  return {first, std::min(last, kernel)};
}

}  // namespace

void max_pool(const ConvParams& a, const ConvShape& s, const uint8_t* x, uint8_t* y, Range rows) {
  const int64_t channels = padded_channels(a.in_channels);
  for (int64_t r = rows.first; r < rows.last; ++r) {
    const int64_t top = r % s.out_h * a.stride_h - s.pad_top;
    const Range down = positions_inside(top, s.in_h, a.kernel_h, a.dilation_h);
    for (int64_t column = 0; column < s.out_w; ++column) {
      const int64_t left = column * a.stride_w - s.pad_left;
      const Range across = positions_inside(left, s.in_w, a.kernel_w, a.dilation_w);
      uint8_t* to = y + (r * s.out_w + column) * channels;
      std::memset(to, 0, channels);
      for (int64_t i = down.first; i < down.last; ++i)
        for (int64_t j = across.first; j < across.last; ++j) {
          const int64_t row = r / s.out_h * s.in_h + top + i * a.dilation_h;
          const uint8_t* from = x + (row * s.in_w + left + j * a.dilation_w) * channels;
          for (int64_t c = 0; c < channels; ++c) to[c] = std::max(to[c], from[c]);
        }
    }
  }
}

}  // namespace adder_onnx
