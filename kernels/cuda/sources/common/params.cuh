// What the kernels take: one structure each, passed by value. Their NumPy twins are in params.py,
// field by field; a test compares the two.
//
// Layouts
//   Tensors inside a chain are channels-last, (N, H, W, row), float, __half or Byte. `row` is the
//   number of channels rounded up to 16 bytes, so that every pixel is aligned; what lies in the
//   padding is unspecified and never read as an input channel.
//   Packed weights are [group][tile][word of taps][filter of the tile], those of integers
//   [group][word of taps][filter of the group]; both files called pack.cuh say more.
#pragma once

using Byte = unsigned char;

// An adder convolution, and its epilogue
//     y = min(max(scale[m] * -s + bias[m] + z, clip_min), clip_max)
// of the sum of absolute differences s, in this order. z is the residual, laid out as y, or null.
struct ConvArgs {
  const void* x;
  const void* weights;
  const float* scale;
  const float* bias;
  const void* z;
  void* y;
  const void* pieces;  // of the matrix product's taps, see fetch.cuh
  const void* zeros;   // 32 bytes of what x's padding is: of zeros, or of a zero point
  void* scratch;      // where splits > 1, see split.cuh
  int pixels;  // N * out_h * out_w
  int in_h, in_w, out_h, out_w;
  int x_row, y_row;        // elements from one pixel to the next
  int group_in, group_out;  // channels and filters of a group
  int kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
  int pad_top, pad_left;
  int weight_words, weight_row;  // words of taps, filters: a group's weights, padding included
  int splits;                    // blocks that share the sums of a tile
  // For quotients by multiplication, see divide.cuh: words (or chunks of them) of a kernel
  // position, and kernel_w.
  unsigned per_position, per_position_inverse, kernel_w_inverse;
  float clip_min, clip_max;
};

constexpr int kMostBorders = 15;  // between the levels of an output

// An integer adder convolution; its epilogue is in integer/epilogue.cuh, which uses neither clip_min
// nor clip_max.
struct IntegerConvArgs : ConvArgs {
  const unsigned* weight_sums;  // of each filter, see integer/distances.cuh
  int z_zero_point, y_zero_point;
  float z_scale;                          // of the residual
  float y_factor, y_scale, y_reciprocal;  // a power of two, and then the output's scale times that
  float low, high;                        // bounds of what is divided by it
  // Where outputs are of a few levels: how many borders there are between them, and these; the first
  // level, and what leads from each to the next, in all four bytes of a word.
  int borders;
  unsigned first_level;
  float border[kMostBorders];
  unsigned step[kMostBorders];
};

// Weights (M, C/group, kH, kW), as they stand in a model, into a packed form.
struct PackArgs {
  const void* weights;
  void* packed;
  int group, group_in, group_out, kernel_size;
  int words_per_position;
  int weight_words, weight_row;
  int tile_filters;  // weight_row is a multiple of it
};

// Between (N, C, H, W) and channels-last.
struct LayoutArgs {
  const void* from;
  void* to;
  const unsigned char* table;  // what each uint8 becomes that a float has become; none: itself
  int batch, channels, pixels;  // pixels: H * W
  int row;
  float scale, zero_point, top;  // of what is quantized
};

// The gradient of an adder convolution with respect to its input, see training/input_gradient.cuh.
// x and grad_x are laid out alike; all are float.
struct GradientArgs {
  const void* x;
  const void* weights;
  const void* grad_y;
  void* grad_x;
  int batch, in_h, in_w, out_h, out_w;
  int x_row, y_row;                // elements from one pixel to the next, the latter of grad_y
  int group, group_in, group_out;  // of channels and filters
  int kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
  int pad_top, pad_left;
  int weight_filters, weight_row;  // filters and channels of a group's weights, padding included
  int phases_w, tiles;             // phases of columns, tiles of pixels in each phase
  // From one kernel position of a phase to the next: in the kernel, and in the output.
  int step_h, step_w, shift_h, shift_w;
};
