// float32 adder convolution in its direct form: acc += |x - w|.
//
// Layouts
//   x, y, z   channels-last (N, H, W, padded_channels(C)).
//   weights   packed by pack_f32_weights into blocks of `filters_per_block` filters of one group:
//             [group][block][kernel position][channel of the group][filter of the block].
//   scale, bias  packed alike: [group][block][filter of the block].
//
// Tiling. One tile is `pixels_per_tile` output pixels by one block of filters. Output pixels are
// numbered through the whole batch, so that tiles stay full on narrow images. There is no
// image-to-column copy: for each tile and kernel position a table holds the address of every
// pixel's input channels, or of a row of zeros where the position falls into the padding.
//
// Accuracy. Sums run over at most kPartialTaps taps in one float32 accumulator, which is then added
// to a total in double, and scale and bias are applied to that. Batch normalisation subtracts a mean
// that is often a thousand times the deviation from it, so a total in float32 would lose three
// digits that the network needs.
#pragma once

#include "params.h"

namespace adder_onnx {

constexpr int64_t kPartialTaps = 64;

struct F32DirectArgs {
  const ConvParams* params;
  const ConvShape* shape;
  const float* x;
  const float* zeros;  // at least padded_channels(C) zeros
  const float* z;      // residual, laid out as y, or null
  float* y;
  const float* weights;
  const float* scale;
  const float* bias;
  Clip clip;
};

// One instruction set's kernel.
struct F32DirectKernel {
  int64_t pixels_per_tile;
  int64_t filters_per_block;
  // Computes the tiles [first_tile, last_tile) of all filters. `table` has room for
  // (last_tile - first_tile) * kernel_size * pixels_per_tile pointers.
  void (*run)(const F32DirectArgs& args, int64_t first_tile, int64_t last_tile,
              const float** table);
  // The bare inner loop of one tile, `times` times over, without the totals in double: from `x`,
  // a row of `channels` for each pixel, and packed `weights`. Returns a sum, so that it is not idle.
  float (*inner_loop)(const float* x, const float* weights, int64_t channels, int64_t times);
};

extern const F32DirectKernel kF32DirectScalar;
#if defined(ADDER_ONNX_X86)
extern const F32DirectKernel kF32DirectAvx2;
extern const F32DirectKernel kF32DirectAvx512;
#endif

}  // namespace adder_onnx
