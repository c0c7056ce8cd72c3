// One quantized adder convolution with its constants, and the kernel chosen for this machine.
#pragma once

#include <memory>
#include <vector>

#include "layers/aligned.h"
#include "isa/select.h"
#include "layers/packing.h"
#include "layers/work.h"
#include "uint8/lookup/lookup_conv.h"

namespace adder_onnx {

// Of the activation that follows a sum; see uint8/sad.h.
struct Q8Activation {
  float z_scale;
  int32_t z_zero_point;
  float y_scale;
  int32_t y_zero_point;
  float clip_min;
  int32_t top;  // 2^bits - 1
  std::vector<uint8_t> levels = {};  // the only outputs (uint8/few_levels.h); none: all up to top
};

class QAdderConv {
 public:
  // weights: (M, C/group, kH, kW) in C order; factor, bias: M values; zero_point: of x. `isa` must be
  // one that this machine has, and `kernels` some of it; null: those that are chosen for the processor.
  // Where `values` are few, and it pays, sums come from tables. Throws std::invalid_argument where
  // `params` (layers/checks.h) or `activation` are not valid: zero points are uint8, y_scale is
  // positive and finite, clip_min is a number, top is 3 to 255, levels are as make_levels takes them;
  // or where the sum of a filter's taps may not fit into int32.
  QAdderConv(const ConvParams& params, const uint8_t* weights, uint8_t zero_point,
             const float* factor, const float* bias, const Q8Activation& activation, Isa isa,
             const Q8Values& values = {}, const Uint8Kernels* kernels = nullptr);

  const ConvParams& params() const { return params_; }
  bool has_lookups() const { return lookups_ != nullptr; }
  // The only integers among the outputs, ascending; none where all up to 2^bits - 1 may be.
  const std::vector<uint8_t>& levels() const { return levels_; }

  Work share_out(const ConvShape& shape, int threads) const;
  // The most bytes of memory that a thread takes beside tensors.
  int64_t scratch_bytes(const ConvShape& shape, const Work& work) const;

  // x: (batch, in_h, in_w, padded C); y and z (or null): (batch, out_h, out_w, padded M). The shape
  // must have passed check_shape, with at least one output pixel and filter.
  void run(const Work& work, int64_t task, const ConvShape& shape, const uint8_t* x,
           const uint8_t* z, uint8_t* y) const;

 private:
  void run_depthwise(const ConvShape& shape, const uint8_t* x, const uint8_t* z, uint8_t* y,
                     Range rows) const;
  std::shared_ptr<const LookupConv> make_lookups(const uint8_t* weights, const float* factor,
                                                 const float* bias, const Q8Values& values,
                                                 Isa isa) const;

  ConvParams params_;
  uint8_t zero_point_;
  std::vector<uint8_t> levels_;
  Q8Epilogue epilogue_;
  const Uint8Kernels& kernels_;
  std::shared_ptr<const LookupConv> lookups_;  // null: sums of absolute differences
  FilterBlocks blocks_;
  // Packed by blocks, or as uint8/depthwise.h has it.
  AlignedVector<uint8_t> weights_;
  std::vector<float> factor_, bias_;
  std::vector<uint8_t> padding_;  // depthwise: a pixel of padding
};

// What the kernels take of an activation. Throws std::invalid_argument: it is not as QAdderConv takes it.
Q8Epilogue make_epilogue(const Q8Activation& activation);

// Whether the product with the reciprocal and one correction, as uint8/sad.h has it, rounds to the same
// integer as the quotient does for all v with a quotient in [-top, top].
bool is_reciprocal_exact(float y_scale, int32_t top);

// Taps per second of the bare inner loop, its operands in the first-level cache, on so many threads
// at once: the bound on what QAdderConv can reach. Takes about `seconds`; the best of ten parts.
double q8_inner_loop_rate(Isa isa, int threads, double seconds);

}  // namespace adder_onnx
