// float32 adder convolution: sums of |x - w| over the taps of output pixels, in one of two forms.
//
//   direct   sum += |x - w|
//   max      sum += max(x, w), and in the end  2 * sum - (sum of x) - (sum of w)
//
// |x - w| = 2 max(x, w) - x - w. The sum of w is a constant of a filter, that of x is shared by all
// filters of a pixel, and what is left of a tap is one maximum and one addition. The addition is
// made as fma(max, 1, sum) by AVX2 and AVX-512, which is the same number, and which processors start in
// other units than the maximum: a tap costs little more than the multiply-add of a convolution.
//
// Taps are read in runs, floats side by side, so far from a pixel's first tap as `runs` has it. A tile
// is some pixels by the registers of one block of filters, a lane per filter, all sums in registers.
// Weights of a block are packed [tap][register][lane], taps in the order of the runs; a block has
// `filters_per_block` filters, or half of them where the rest of a group fits into one register.
//
// Accuracy. A run of at most kPartialTaps taps is added up in one float32 accumulator, kBlockRuns of
// these partial sums in another, and these blocks in double; scale and bias are applied to that. An
// addition's rounding is as large as the sum it is made to: short sums keep it small. Batch
// normalisation subtracts a mean that is often a thousand times the deviation from it, so one long
// sum in float32 would lose three digits that the network needs. docs/precision.md derives the
// bounds. Taps are added in the same order by every instruction set, for any tile: results are the
// same to the bit.
#pragma once

#include "layers/params.h"

namespace adder_onnx {

enum class Form { kDirect, kMax };

constexpr int64_t kPartialTaps = 24, kBlockRuns = 8;
constexpr int64_t kLaneTaps = 16;  // of a pixel's channels, in each of sixteen lanes

// Taps from `begin` up to `end`, in floats from a first tap; one at least, and at most kPartialTaps.
struct F32Run {
  int64_t begin, end;
};

// Output pixels that a call computes, of one block of filters.
struct F32Pixels {
  const float* const* x;  // addresses of first taps, without `offset`
  int64_t count;
  int64_t offset;           // in floats, to the group's channels
  const F32Run* runs;       // one at least
  int64_t run_count;
  const double* sums;  // max form: the sum of each pixel's taps
  const float* z;      // residual of the first pixel and filter, laid out as y, or null
  float* y;            // output of the first pixel and filter
  int64_t row;         // floats from one output pixel to the next
};

struct F32Filters {
  const float* weights;
  // In double, of filters_per_block filters, also where there are fewer. In max form scale is twice
  // that of the layer, and bias has the sum of weights in it: y = bias - scale * (sum - sums / 2).
  const double* scale;
  const double* bias;
  int64_t count;  // filters that there are; at most half a block is packed as half a block
  Clip clip;
};

// One instruction set's kernel, in one form.
struct F32Kernel {
  int64_t filters_per_block;
  void (*run)(const F32Pixels& pixels, const F32Filters& filters);
  // The sum of the channels of each of `count` pixels, `pitch` floats apart.
  void (*sum_channels)(const float* x, int64_t pitch, int64_t count, int64_t channels,
                       double* sums);
  // The bare inner loop of one full tile, `times` times over: from `x`, `steps` floats for each
  // pixel, and as many packed weights. Returns a sum, so that it is not idle.
  float (*inner_loop)(const float* x, const float* weights, int64_t steps, int64_t times);
  int64_t pixels_per_tile;
};

}  // namespace adder_onnx
