// Single convolutions with their constants.
#include "python/arrays.h"
#include "python/bindings.h"
#include "layers/checks.h"
#include "uint8/qadder_conv.h"

namespace adder_onnx {
namespace {

template <typename Array>
ConvParams make_params(const Array& weights, const Vector& scale, const Vector& bias, Pair strides,
                       Pair dilations, int64_t group) {
  check_alignment(weights, scale, bias);
  ConvParams p{};
  p.out_channels = static_cast<int64_t>(weights.shape(0));
  p.in_channels = checked_product({static_cast<int64_t>(weights.shape(1)), group});
  p.kernel_h = static_cast<int64_t>(weights.shape(2));
  p.kernel_w = static_cast<int64_t>(weights.shape(3));
  std::tie(p.stride_h, p.stride_w) = strides;
  std::tie(p.dilation_h, p.dilation_w) = dilations;
  p.group = group;
  check_params(p);
  if (static_cast<int64_t>(scale.shape(0)) != p.out_channels ||
      static_cast<int64_t>(bias.shape(0)) != p.out_channels)
    throw std::invalid_argument("scale and bias must have one value per filter");
  return p;
}

std::shared_ptr<AdderConv> make_adder_conv(const Weights& weights, const Vector& scale,
                                           const Vector& bias, float clip_min, float clip_max,
                                           Pair strides, Pair dilations, int64_t group,
                                           const std::string& isa, const std::string& arithmetic) {
  const ConvParams p = make_params(weights, scale, bias, strides, dilations, group);
  return std::make_shared<AdderConv>(p, weights.data(), scale.data(), bias.data(),
                                     Clip{clip_min, clip_max}, to_form(arithmetic),
                                     isa_from_name(isa));
}

using Bytes4 = nb::ndarray<const uint8_t, nb::ndim<4>, nb::c_contig, nb::device::cpu>;

std::shared_ptr<QAdderConv> make_qadder_conv(const Bytes4& weights, int zero_point,
                                             const Vector& factor, const Vector& bias,
                                             float z_scale, int z_zero_point, float y_scale,
                                             int y_zero_point, float clip_min, int bits,
                                             Pair strides, Pair dilations, int64_t group,
                                             const std::string& isa,
                                             const std::vector<uint8_t>& levels,
                                             const std::vector<uint8_t>& x_values) {
  const ConvParams p = make_params(weights, factor, bias, strides, dilations, group);
  if (bits < 2 || bits > 8) throw std::invalid_argument("bits must be 2 to 8");
  if (zero_point < 0 || zero_point > 255)
    throw std::invalid_argument("a zero point must be 0 to 255");
  const Q8Activation activation = {z_scale,  z_zero_point,    y_scale,
                                   y_zero_point, clip_min, (1 << bits) - 1, levels};
  return std::make_shared<QAdderConv>(p, weights.data(), static_cast<uint8_t>(zero_point),
                                      factor.data(), bias.data(), activation, isa_from_name(isa),
                                      Q8Values{x_values, {}, false});
}

}  // namespace

void bind_convolutions(nb::module_& m) {
  nb::class_<AdderConv>(m, "AdderConv")
      .def(nb::new_(&make_adder_conv), "weights"_a.noconvert(), "scale"_a.noconvert(),
           "bias"_a.noconvert(), "clip_min"_a, "clip_max"_a, "strides"_a, "dilations"_a, "group"_a, "isa"_a,
           "arithmetic"_a = "fast")
      .def_prop_ro("arithmetic", [](const AdderConv& self) {
        return self.form() == Form::kMax ? "fast" : "exact";
      });
  nb::class_<QAdderConv>(m, "QAdderConv")
      .def(nb::new_(&make_qadder_conv), "weights"_a.noconvert(), "zero_point"_a,
           "factor"_a.noconvert(), "bias"_a.noconvert(), "z_scale"_a, "z_zero_point"_a, "y_scale"_a,
           "y_zero_point"_a, "clip_min"_a, "bits"_a, "strides"_a, "dilations"_a, "group"_a,
           "isa"_a, "levels"_a = std::vector<uint8_t>{}, "x_values"_a = std::vector<uint8_t>{})
      .def_prop_ro("has_lookups", &QAdderConv::has_lookups);
}

}  // namespace adder_onnx
