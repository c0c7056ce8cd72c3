// uint8 adder convolution as sums of absolute differences of eight bytes at a time (psadbw; on ARM, uabd
// and what adds up its bytes), exact in integers, and behind them the epilogue of QLinearAdderConv.
//
// Taps. The taps of one output pixel are read as `segments` runs of `steps` times eight bytes each,
// from the address of the pixel's first tap on; whoever fills the input sees to it that channels
// come in eights. Where pixels lie densely, a kernel row is one segment, else every position is one.
//
// Tiles. A 64-bit lane of a register holds one filter: eight bytes of a pixel, broadcast, meet eight
// bytes of every filter of a register, and two instructions make eight taps of each. A
// tile is kMaxPixels pixels by the registers of one block of filters, all sums in registers. Pixels
// are numbered through rows and images and have an address each, so that tiles are full on narrow
// images too; those of a call are shared out evenly among its tiles.
//
// Weights of a block are packed [segment][step][register][lane][8 bytes]; a block has
// `filters_per_block` filters, or half of them where the rest of a group fits into half of its
// registers. Of two registers, one has the filters of even numbers and the other those of odd ones:
// sums are less than 2^32, and those of both registers by turns are already in order.
//
// Packed sums. On AMD's processors psadbw has two of four units, an addition takes any, also one that
// psadbw waits for, and packing has the other two. There the differences of four registers of
// 4 filters are packed, by three instructions, into 16 words of one, which one addition adds: as
// many instructions, but one in eight is an addition instead of every second. Sums take a quarter of
// the registers, so that tiles are larger, 8 pixels by 16 filters, and their beginnings and ends
// fewer. Words hold the sums of 32 steps and are then added to int32. Where packing and psadbw take
// the same unit, as on Intel's processors, additions are better.
//
// Epilogue, each step rounded to float32 by itself (no contraction):
//
//   v = float(sum) * -factor[m] + bias[m]
//   v = v + (z - z_zero_point) * z_scale      where there is a residual
//   y = clamp(round_half_even(max(v, clip_min) / y_scale) + y_zero_point, 0, top)
//
// The clamp is done before the division: with low = -y_zero_point * y_scale the quotient of low rounds
// to exactly -y_zero_point, likewise above, and quotient and rounding are monotone. Division by a
// constant is two fused steps after a product with the reciprocal r (Markstein 1990),
//
//   q = v * r;  quotient = q + (v - q * y_scale) * r
//
// which is only used where `is_reciprocal_exact` has found it to round to the same integer at every
// border between two integers, and thus everywhere.
//
// Where the output has a few levels only, v is compared with a constant for each border between two of
// them (uint8/few_levels.h), before any clamp, and the number of those passed chooses the level.
#pragma once

#include <cstdint>

namespace adder_onnx {

struct Q8Levels {
  int32_t borders;   // 0: the output is not of a few levels
  float border[15];  // of v, ascending: the level behind it is that of v >= border
  uint8_t level[16];
};

struct Q8Epilogue {
  float z_scale;
  int32_t z_zero_point;
  float y_scale;
  float y_reciprocal;  // 0: divide
  int32_t y_zero_point;
  float low, high;  // bounds of v
  int32_t top;      // 2^bits - 1
  Q8Levels levels;
};

// Output pixels that a call computes, of one block of filters.
struct Q8Pixels {
  const uint8_t* const* x;  // addresses of first taps, without `offset`
  int64_t count;
  int64_t offset;           // in bytes, to the group's channels
  const int64_t* segments;  // offsets in bytes from a first tap
  int64_t segment_count;
  int64_t steps;     // in a segment
  const uint8_t* z;  // residual of the first pixel and filter, laid out as y, or null
  uint8_t* y;        // output of the first pixel and filter
  int64_t row;       // bytes from one output pixel to the next
};

struct Q8Filters {
  const uint8_t* weights;
  const float* factor;  // of filters_per_block filters, also where there are fewer
  const float* bias;
  int64_t count;  // filters that there are; at most half a block is packed as half a block
};

// The epilogue alone.
struct Q8Finish {
  int64_t filters;  // that it is computed of at once
  // Of the first `count` of them and so many pixels, from sums, [pixel][filter], `sums_row` elements from one
  // pixel to the next, less than they are by `offsets`, one for each filter. The rest is as in Q8Pixels
  // and Q8Filters.
  void (*run)(const int16_t* sums, int64_t sums_row, const int32_t* offsets, int64_t pixels,
              const float* factor, const float* bias, int64_t count, const Q8Epilogue& epilogue,
              const uint8_t* z, uint8_t* y, int64_t row);
};

// One instruction set's kernel.
struct Q8SadKernel {
  int64_t filters_per_block;
  // The filter, among those of a block packed with so many lanes, that a lane has.
  int64_t (*filter_of_lane)(int64_t lane, int64_t lanes);
  void (*run)(const Q8Pixels& pixels, const Q8Filters& filters, const Q8Epilogue& epilogue);
  // The bare inner loop of one full tile, `times` times over: from `x`, `steps` times eight bytes
  // for each pixel, and as many packed weights. Returns a sum, so that it is not idle.
  uint64_t (*inner_loop)(const uint8_t* x, const uint8_t* weights, int64_t steps, int64_t times);
  int64_t pixels_per_tile;
};

}  // namespace adder_onnx
