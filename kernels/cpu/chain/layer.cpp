#include "chain/layer.h"

#include <stdexcept>

#include "layers/checks.h"

namespace adder_onnx {
namespace {

std::shared_ptr<const AdderConv> pack(const UnweightedConv& conv, const ConvParams& params,
                                      const Operand& weight) {
  if (weight.type != ElementType::kFloat32)
    throw std::invalid_argument("an array of the chain has the wrong type");
  check_filters(params, conv.scale, conv.bias);
  return std::make_shared<const AdderConv>(params, static_cast<const float*>(weight.data),
                                           conv.scale.data(), conv.bias.data(), conv.clip,
                                           conv.form, conv.isa);
}

}  // namespace

ConvParams with_weight(ConvParams params, const std::vector<int64_t>& weight) {
  if (weight.size() != 4) throw std::invalid_argument("a weight has not four dimensions");
  params.out_channels = weight[0];
  params.in_channels = checked_product({weight[1], params.group});
  params.kernel_h = weight[2];
  params.kernel_w = weight[3];
  return checked_conv(params);
}

void check_filters(const ConvParams& params, const std::vector<float>& scale,
                   const std::vector<float>& bias) {
  const auto filters = static_cast<size_t>(params.out_channels);
  if (scale.size() != filters || bias.size() != filters)
    throw std::invalid_argument("scale and bias must have one value per filter");
}

ChainLayer with_weight(ChainLayer layer, const Operand& weight) {
  layer.params = with_weight(layer.params, weight.shape);
  layer.conv = pack(*layer.unweighted, layer.params, weight);
  layer.unweighted = nullptr;
  return layer;
}

}  // namespace adder_onnx
