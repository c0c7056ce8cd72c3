// One quantized adder convolution with its constants, and the kernel chosen for this machine.
#pragma once

#include <vector>

#include "isa.h"
#include "q8_direct.h"

namespace adder_onnx {

class QAdderConv {
 public:
  // weights: (M, C/group, kH, kW) in C order; factor, bias: M values; zero_point: of x.
  QAdderConv(const ConvParams& params, const uint8_t* weights, uint8_t zero_point,
             const float* factor, const float* bias, const Q8Epilogue& epilogue, Isa isa);

  const ConvParams& params() const { return params_; }

  // x: (batch, in_h, in_w, padded C); y and z (or null): (batch, out_h, out_w, padded M).
  void run(const ConvShape& shape, const uint8_t* x, const uint8_t* z, uint8_t* y,
           int threads) const;

 private:
  ConvParams params_;
  Q8Epilogue epilogue_;
  Q8DirectKernel kernel_;
  std::vector<uint8_t> weights_, padding_;
  std::vector<float> factor_, bias_;
};

}  // namespace adder_onnx
