// One adder convolution with its constants: packed weights, epilogue, and the kernel chosen for
// this machine.
#pragma once

#include <vector>

#include "layers/aligned.h"
#include "isa/select.h"
#include "layers/packing.h"
#include "layers/work.h"

namespace adder_onnx {

class AdderConv {
 public:
  // weights: (M, C/group, kH, kW) in C order; scale, bias: M values. The form is direct, whichever is
  // asked for, where a weight is not finite or so large that sums in max form could overflow, and
  // where each channel has one filter.
  AdderConv(const ConvParams& params, const float* weights, const float* scale, const float* bias,
            Clip clip, Form form, Isa isa);

  const ConvParams& params() const { return params_; }
  Form form() const { return form_; }

  Work share_out(const ConvShape& shape, int threads) const;
  // The most bytes of memory that a thread takes beside tensors.
  int64_t scratch_bytes(const ConvShape& shape, const Work& work) const;

  // x: (batch, in_h, in_w, padded C); y and z (or null): (batch, out_h, out_w, padded M). Output
  // pixels with a tap that is not finite are computed in direct form. The shape must have passed
  // check_shape, with at least one output pixel and filter.
  void run(const Work& work, int64_t task, const ConvShape& shape, const float* x, const float* z,
           float* y) const;

 private:
  void run_depthwise(const ConvShape& shape, const float* x, const float* z, float* y,
                     Range rows) const;
  const F32Kernel& kernel(Form form) const { return kernels_.sums[static_cast<int>(form)]; }

  ConvParams params_;
  Clip clip_;
  Form form_;
  const Float32Kernels& kernels_;
  FilterBlocks blocks_;
  // Packed by blocks, the last two for each form; or as float32/depthwise.h has it.
  AlignedVector<float> weights_;
  std::vector<double> scale_[2], bias_[2];
  std::vector<float> padding_;  // depthwise: a pixel of padding
};

// Taps per second of the bare inner loop, its operands in the first-level cache, on so many threads
// at once: the bound on what AdderConv can reach. Takes about `seconds`; the best of ten parts.
double f32_inner_loop_rate(Form form, Isa isa, int threads, double seconds);

}  // namespace adder_onnx
