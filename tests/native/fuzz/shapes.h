// Random convolutions that are valid.
#pragma once

#include <algorithm>

#include "fuzz/bytes.h"
#include "isa/isa.h"
#include "layers/params.h"

namespace fuzz {

using namespace adder_onnx;

struct Geometry {
  ConvParams a;
  ConvShape s;

  int64_t taps() const { return a.group_in() * a.kernel_size(); }
  int64_t outputs() const { return s.batch * a.out_channels * s.out_h * s.out_w; }
};

inline void choose_axis(Bytes& bytes, int64_t in, int64_t& out, int64_t& kernel, int64_t& stride,
                        int64_t& dilation, int64_t& pad) {
  kernel = bytes.pick<int64_t>({1, 2, 3, 3, 5});
  stride = bytes.pick<int64_t>({1, 1, 2, 3});
  dilation = bytes.pick<int64_t>({1, 1, 1, 2, 3});
  pad = bytes.pick<int64_t>({0, 1, 1, 2, 4});
  const int64_t end = bytes.pick<int64_t>({0, 1, 1, 2, 3});
  const int64_t room = in + pad + end - (kernel - 1) * dilation - 1;
  if (room < 0) {  // one position in the middle of padding
    pad = (kernel - 1) * dilation;
    out = in == 0 ? 1 : (in - 1) / stride + 1;
    return;
  }
  out = room / stride + 1;
}

// A convolution of an image; with `is_pool`, a pooling.
inline Geometry choose_geometry(Bytes& bytes, int64_t batch, int64_t channels, int64_t in_h,
                                int64_t in_w, bool is_pool) {
  Geometry g{};
  ConvParams& a = g.a;
  a.in_channels = a.out_channels = channels;
  a.group = 1;
  if (!is_pool) {
    const int64_t kind = bytes.from(0, 5);
    if (kind == 0) a.group = channels;
    if (kind == 1) a.group = channels % 2 == 0 ? 2 : channels % 3 == 0 ? 3 : 1;
    a.out_channels = kind == 0 && bytes.chance(70)
                         ? channels
                         : a.group * bytes.pick<int64_t>({1, 3, 4, 8, 9, 15, 16, 17, 20, 33});
  }
  g.s.batch = batch;
  g.s.in_h = in_h;
  g.s.in_w = in_w;
  choose_axis(bytes, in_h, g.s.out_h, a.kernel_h, a.stride_h, a.dilation_h, g.s.pad_top);
  choose_axis(bytes, in_w, g.s.out_w, a.kernel_w, a.stride_w, a.dilation_w, g.s.pad_left);
  return g;
}

// Calls tap(channel within the group, position of the kernel, row, column) for each tap of an output
// pixel; rows and columns may lie in the padding.
template <typename F>
void for_taps(const Geometry& g, int64_t y, int64_t x, int64_t channels, const F& tap) {
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t i = 0; i < g.a.kernel_h; ++i)
      for (int64_t j = 0; j < g.a.kernel_w; ++j)
        tap(c, i * g.a.kernel_w + j, y * g.a.stride_h + i * g.a.dilation_h - g.s.pad_top,
            x * g.a.stride_w + j * g.a.dilation_w - g.s.pad_left);
}

inline bool is_inside(const ConvShape& s, int64_t row, int64_t column) {
  return row >= 0 && row < s.in_h && column >= 0 && column < s.in_w;
}

inline Isa choose_isa(Bytes& bytes) { return bytes.pick(available_isas()); }

// Memory of exactly so many elements, of its own.
template <typename T>
using Exact = std::vector<T>;

}  // namespace fuzz
