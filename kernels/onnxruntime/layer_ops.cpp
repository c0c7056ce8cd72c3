#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "chain/description.h"
#include "float64/adder_conv.h"
#include "isa/default.h"
#include "layers/checks.h"
#include "layout/half.h"
#include "onnxruntime/chain_kernel.h"
#include "onnxruntime/operators.h"

namespace adder_onnx {
namespace {

constexpr TensorType kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
constexpr TensorType kFloat16 = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
constexpr TensorType kDouble = ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE;
constexpr TensorType kUint8 = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;

// The attributes of ONNX Conv.
struct Attributes {
  std::string label;
  ConvParams params{};  // without channels and filters
  std::vector<int64_t> kernel;
  Padding padding;

  explicit Attributes(const Node& node) : label("node '" + node.name() + "'") {
    const std::vector<int64_t> strides = node.integers("strides", {1, 1});
    const std::vector<int64_t> dilations = node.integers("dilations", {1, 1});
    const std::vector<int64_t> pads = node.integers("pads", {0, 0, 0, 0});
    kernel = node.integers("kernel_shape", {});
    if (strides.size() != 2 || dilations.size() != 2 || pads.size() != 4)
      throw std::invalid_argument(label + ": strides, dilations and pads are not two-dimensional");
    params.stride_h = strides[0];
    params.stride_w = strides[1];
    params.dilation_h = dilations[0];
    params.dilation_w = dilations[1];
    params.group = node.integer("group", 1);
    padding.mode = mode(node.text("auto_pad", "NOTSET"));
    padding.top = checked_sum(pads[0], 0);
    padding.left = checked_sum(pads[1], 0);
    padding.bottom = checked_sum(pads[2], 0);
    padding.right = checked_sum(pads[3], 0);
  }

  // With filters of a shape.
  ConvParams with(const std::vector<int64_t>& weight) const {
    if (weight.size() != 4)
      throw std::invalid_argument(label + ": the weight is not (M, C/group, kH, kW)");
    if (!kernel.empty() && (kernel.size() != 2 || kernel[0] != weight[2] || kernel[1] != weight[3]))
      throw std::invalid_argument(label + ": kernel_shape is not that of the weight");
    ConvParams a = params;
    a.out_channels = weight[0];
    a.in_channels = checked_product({weight[1], a.group});
    a.kernel_h = weight[2];
    a.kernel_w = weight[3];
    return checked_conv(a);
  }

 private:
  AutoPad mode(const std::string& name) const {
    if (name == "NOTSET" || name.empty()) return AutoPad::kNotSet;
    if (name == "SAME_UPPER") return AutoPad::kSameUpper;
    if (name == "SAME_LOWER") return AutoPad::kSameLower;
    if (name == "VALID") return AutoPad::kValid;
    throw std::invalid_argument(label + ": auto_pad is '" + name + "'");
  }
};

Conversion unquantized(ElementType outside) {
  const bool is_uint8 = outside == ElementType::kUint8;
  return {outside, is_uint8 ? ElementType::kUint8 : ElementType::kFloat32, 1.0f, 0, 255};
}

// A chain of one layer of so many images of one type.
std::shared_ptr<const Chain> chain_of(ChainLayer layer, ElementType type) {
  const Conversion conversion = unquantized(type);
  const size_t images = layer.z < 0 ? 1 : 2;
  std::vector<Conversion> entries(images, conversion);
  std::vector<ChainLayer> layers = {std::move(layer)};
  return std::make_shared<const Chain>(
      std::move(entries), std::move(layers),
      std::vector<ChainPort>{{conversion, static_cast<int64_t>(images)}});
}

// Elements of a float16 or float32 tensor.
std::vector<float> floats_of(const OrtTensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.size()));
  if (values.empty()) return values;
  if (tensor.type == kFloat) {
    std::memcpy(values.data(), tensor.data, values.size() * sizeof(float));
  } else if (tensor.type == kFloat16) {
    const auto* halves = static_cast<const Half*>(tensor.data);
    for (size_t i = 0; i < values.size(); ++i) values[i] = to_float(halves[i]);
  } else {
    throw std::invalid_argument("a tensor is not float32 or float16");
  }
  return values;
}

// Of float32 or float16. Where its filters are constants they are packed once.
class AdderConvKernel final : public Kernel {
 public:
  explicit AdderConvKernel(const Node& node) : attributes_(node) {
    if (const auto weight = node.constant(1)) constant_ = make(*weight);
  }

  void compute(const Call& call) const override {
    const std::vector<OrtTensor> images = {call.input(0)};
    if (constant_)
      run_chain(*constant_, call, images);
    else
      run_chain(*make(call.input(1)), call, images);
  }

 private:
  std::shared_ptr<const Chain> make(const OrtTensor& weight) const {
    const ConvParams params = attributes_.with(weight.shape);
    const std::vector<float> filters = floats_of(weight);
    const auto count = static_cast<size_t>(params.out_channels);
    const std::vector<float> scale(count, 1.0f), bias(count, 0.0f);
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    ChainLayer layer{};
    layer.label = attributes_.label;
    layer.conv = std::make_shared<const AdderConv>(params, filters.data(), scale.data(), bias.data(),
                                                   Clip{-kInfinity, kInfinity}, Form::kMax,
                                                   default_isa());
    layer.params = params;
    layer.padding = attributes_.padding;
    layer.z = -1;
    return chain_of(std::move(layer), to_element_type(weight.type));
  }

  Attributes attributes_;
  std::shared_ptr<const Chain> constant_;
};

class Float64Kernel final : public Kernel {
 public:
  explicit Float64Kernel(const Node& node) : attributes_(node) {}

  void compute(const Call& call) const override {
    const OrtTensor x = call.input(0), w = call.input(1);
    const ImageShape image = to_image(x);
    const ConvParams a = attributes_.with(w.shape);
    if (image.channels != a.in_channels)
      throw std::invalid_argument(attributes_.label + ": the filters take another number of channels");
    const ConvShape s = conv_shape(a, attributes_.padding, image);
    check_shape(a, s);
    void* y = call.output(0, {s.batch, a.out_channels, s.out_h, s.out_w});
    adder_conv_float64(a, s, static_cast<const double*>(x.data), static_cast<const double*>(w.data),
                       static_cast<double*>(y), SessionWorkers(call));
  }

 private:
  Attributes attributes_;
};

// The inputs of QLinearAdderConv.
enum Input : size_t {
  kX, kW, kXScale, kXZeroPoint, kScale, kBias, kZ, kZScale, kZZeroPoint, kYScale, kYZeroPoint, kInputs
};

template <typename T>
T scalar(const OrtTensor& tensor) {
  if (tensor.size() != 1) throw std::invalid_argument("a scale or zero point is no scalar");
  return *static_cast<const T*>(tensor.data);
}

const float* per_filter(const OrtTensor& tensor, const ConvParams& a) {
  if (tensor.shape.size() != 1 || tensor.shape[0] != a.out_channels)
    throw std::invalid_argument("scale and bias must have one value per filter");
  return static_cast<const float*>(tensor.data);
}

class QLinearAdderConvKernel final : public Kernel {
 public:
  explicit QLinearAdderConvKernel(const Node& node)
      : attributes_(node), bits_(node.integer("bits", 8)),
        clip_min_(node.number("clip_min", -std::numeric_limits<float>::infinity())) {
    if (bits_ < 2 || bits_ > 8) throw std::invalid_argument("bits must be 2 to 8");
    for (int64_t level : node.integers("levels", {})) {
      if (level < 0 || level > 255) throw std::invalid_argument("levels must be 0 to 255");
      levels_.push_back(static_cast<uint8_t>(level));
    }
    std::vector<OrtTensor> inputs(kInputs);
    for (size_t i = 0; i < kInputs; ++i) {
      if (i == kX || i == kZ) continue;
      const auto constant = node.constant(i);
      if (!constant) return;
      inputs[i] = *constant;
    }
    for (bool has_residual : {false, true}) constant_[has_residual] = make(inputs, has_residual);
  }

  void compute(const Call& call) const override {
    std::vector<OrtTensor> inputs;
    for (size_t i = 0; i < kInputs; ++i) inputs.push_back(call.input(i));
    std::vector<OrtTensor> images = {inputs[kX]};
    std::vector<uint8_t> filled;
    const OrtTensor& z = inputs[kZ];
    const bool is_scalar = z.shape.size() != 4 && z.size() == 1;
    const bool has_residual =
        !is_scalar || scalar<uint8_t>(z) != scalar<uint8_t>(inputs[kZZeroPoint]);
    if (has_residual) images.push_back(is_scalar ? fill(inputs, &filled) : z);
    if (constant_[has_residual])
      run_chain(*constant_[has_residual], call, images);
    else
      run_chain(*make(inputs, has_residual), call, images);
  }

 private:
  std::shared_ptr<const Chain> make(const std::vector<OrtTensor>& inputs, bool has_residual) const {
    const ConvParams params = attributes_.with(inputs[kW].shape);
    const float* scale = per_filter(inputs[kScale], params);
    const float* bias = per_filter(inputs[kBias], params);
    std::vector<float> factor(static_cast<size_t>(params.out_channels));
    const float x_scale = scalar<float>(inputs[kXScale]);
    for (size_t m = 0; m < factor.size(); ++m) factor[m] = x_scale * scale[m];
    const Q8Activation activation = {
        scalar<float>(inputs[kZScale]), scalar<uint8_t>(inputs[kZZeroPoint]),
        scalar<float>(inputs[kYScale]), scalar<uint8_t>(inputs[kYZeroPoint]),
        clip_min_, (1 << bits_) - 1, levels_};
    ChainLayer layer{};
    layer.label = attributes_.label;
    layer.qconv = std::make_shared<const QAdderConv>(
        params, static_cast<const uint8_t*>(inputs[kW].data), scalar<uint8_t>(inputs[kXZeroPoint]),
        factor.data(), bias, activation, default_isa());
    layer.params = params;
    layer.padding = attributes_.padding;
    layer.z = has_residual ? 1 : -1;
    return chain_of(std::move(layer), ElementType::kUint8);
  }

  // A residual of one value, of the output's shape.
  OrtTensor fill(const std::vector<OrtTensor>& inputs, std::vector<uint8_t>* filled) const {
    const ConvParams a = attributes_.with(inputs[kW].shape);
    const ConvShape s = conv_shape(a, attributes_.padding, to_image(inputs[kX]));
    const int64_t size = checked_product({s.batch, a.out_channels, s.out_h, s.out_w});
    filled->assign(static_cast<size_t>(size), scalar<uint8_t>(inputs[kZ]));
    return {kUint8, {s.batch, a.out_channels, s.out_h, s.out_w}, filled->data()};
  }

  Attributes attributes_;
  int64_t bits_;
  float clip_min_;
  std::vector<uint8_t> levels_;
  std::shared_ptr<const Chain> constant_[2];  // without and with a residual
};

template <typename Of>
std::unique_ptr<Kernel> make(const Node& node) {
  return std::make_unique<Of>(node);
}

}  // namespace

void add_layer_ops(std::vector<CustomOp>* ops) {
  using Types = std::vector<TensorType>;
  ops->emplace_back("AdderConv", Types{kFloat, kFloat}, kFloat, make<AdderConvKernel>);
  ops->emplace_back("AdderConv", Types{kFloat16, kFloat16}, kFloat16, make<AdderConvKernel>);
  ops->emplace_back("AdderConv", Types{kDouble, kDouble}, kDouble, make<Float64Kernel>);
  ops->emplace_back("QLinearAdderConv",
                    Types{kUint8, kUint8, kFloat, kUint8, kFloat, kFloat, kUint8, kFloat, kUint8,
                          kFloat, kUint8},
                    kUint8, make<QLinearAdderConvKernel>);
}

}  // namespace adder_onnx
