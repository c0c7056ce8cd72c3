// A layer of a chain, whose weight may come later.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "chain/geometry.h"
#include "float32/adder_conv.h"
#include "layout/layout.h"
#include "uint8/qadder_conv.h"

namespace adder_onnx {

// An array in C order, the caller's.
struct Operand {
  ElementType type;  // float32 or uint8
  std::vector<int64_t> shape;
  const void* data;
  bool is_computed = false;  // a weight that comes with each run: only its type is known
};

// An AdderConv but for its weight.
struct UnweightedConv {
  std::vector<float> scale, bias;  // one value for each filter
  Clip clip;
  Form form;
  Isa isa;
};

// A convolution, float32 or quantized, or else a MaxPool of uint8.
struct ChainLayer {
  std::string label;  // for messages
  std::shared_ptr<const AdderConv> conv;
  std::shared_ptr<const QAdderConv> qconv;
  std::shared_ptr<const UnweightedConv> unweighted;  // where the weight is computed
  // Of a pooling without channels, which are those of its input; without those that a weight has, of
  // which only the filters are known, where it is computed.
  ConvParams params;
  Padding padding;
  int64_t x;
  int64_t z;  // the residual; negative: none

  bool is_pool() const { return conv == nullptr && qconv == nullptr && unweighted == nullptr; }
  ElementType type() const { return conv || unweighted ? ElementType::kFloat32 : ElementType::kUint8; }
};

// Parameters with those that a weight, (M, C/group, kH, kW), has; `params` has the group. Throws
// std::invalid_argument: together they are no convolution's.
ConvParams with_weight(ConvParams params, const std::vector<int64_t>& weight);

// Throws std::invalid_argument: there is not one value of each for every filter.
void check_filters(const ConvParams& params, const std::vector<float>& scale,
                   const std::vector<float>& bias);

// An unweighted layer with its weight. Throws std::invalid_argument: that is not float32, or does not fit
// the other parameters.
ChainLayer with_weight(ChainLayer layer, const Operand& weight);

}  // namespace adder_onnx
