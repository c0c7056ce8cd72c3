// One adder convolution with its constants: packed weights, epilogue, and the kernel chosen for
// this machine.
#pragma once

#include <vector>

#include "aligned.h"
#include "f32_direct.h"
#include "isa.h"

namespace adder_onnx {

class AdderConv {
 public:
  // weights: (M, C/group, kH, kW) in C order; scale, bias: M values.
  AdderConv(const ConvParams& params, const float* weights, const float* scale, const float* bias,
            Clip clip, Isa isa);

  const ConvParams& params() const { return params_; }

  // How a call is shared out among threads, as tasks that may run in any order and at once.
  struct Work {
    int64_t tasks;
    int64_t tiles;  // of a task
  };
  Work share_out(const ConvShape& shape, int threads) const;

  // x: (batch, in_h, in_w, padded C); y and z (or null): (batch, out_h, out_w, padded M).
  void run(const Work& work, int64_t task, const ConvShape& shape, const float* x, const float* z,
           float* y) const;

 private:
  int64_t tiles(const ConvShape& shape) const;

  ConvParams params_;
  Clip clip_;
  const F32DirectKernel* kernel_;
  AlignedVector<float> weights_;
  std::vector<float> scale_, bias_, zeros_;
};

// Taps per second of the bare inner loop, its operands in the first-level cache, on so many threads
// at once: the bound on what AdderConv can reach. Takes about `seconds`; the best of ten parts.
double f32_inner_loop_rate(Isa isa, int threads, double seconds);

}  // namespace adder_onnx
