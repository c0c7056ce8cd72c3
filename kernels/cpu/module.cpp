// The Python module adder_onnx.kernels.cpu._native.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <stdexcept>
#include <tuple>

#include "float32/adder_conv.h"
#include "float32/input_gradient.h"
#include "gil.h"
#include "isa/isa.h"
#include "layers/checks.h"
#include "program/program.h"
#include "rounding/rounding.h"
#include "threads/startable.h"
#include "threads/stop_flag.h"
#include "uint8/qadder_conv.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace adder_onnx {
namespace {

using Pair = std::tuple<int64_t, int64_t>;
using Quadruple = std::tuple<int64_t, int64_t, int64_t, int64_t>;
using Weights = nb::ndarray<const float, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Vector = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Arena = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
// scale, zero point and top of what is quantized
using Quantization = std::optional<std::tuple<float, int, int>>;
// float32, float16 or uint8
using Input = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
using Output = nb::ndarray<nb::c_contig, nb::device::cpu>;

// NumPy has arrays whose elements do not lie at multiples of their size.
template <typename... Arrays>
void check_alignment(const Arrays&... arrays) {
  const auto is_aligned = [](const auto& array) {
    return reinterpret_cast<uintptr_t>(array.data()) % array.itemsize() == 0;
  };
  if (!(is_aligned(arrays) && ...))
    throw std::invalid_argument("an array is not aligned to its elements");
}

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

Form to_form(const std::string& arithmetic) {
  if (arithmetic == "exact") return Form::kDirect;
  if (arithmetic == "fast") return Form::kMax;
  throw std::invalid_argument("arithmetic '" + arithmetic + "' is not exact or fast");
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
                                             const std::string& isa) {
  const ConvParams p = make_params(weights, factor, bias, strides, dilations, group);
  if (bits < 2 || bits > 8) throw std::invalid_argument("bits must be 2 to 8");
  if (zero_point < 0 || zero_point > 255)
    throw std::invalid_argument("a zero point must be 0 to 255");
  const Q8Activation activation = {z_scale,  z_zero_point,    y_scale,
                                   y_zero_point, clip_min, (1 << bits) - 1};
  return std::make_shared<QAdderConv>(p, weights.data(), static_cast<uint8_t>(zero_point),
                                      factor.data(), bias.data(), activation, isa_from_name(isa));
}

ImageShape to_image(Quadruple nchw) {
  const auto [n, c, h, w] = nchw;
  return {n, c, h, w};
}

ElementType to_element_type(const std::string& name) {
  if (name == "float32") return ElementType::kFloat32;
  if (name == "float16") return ElementType::kFloat16;
  if (name == "uint8") return ElementType::kUint8;
  throw std::invalid_argument("element type '" + name + "' is not float32, float16 or uint8");
}

Conversion to_conversion(const std::string& outside, const std::string& inside,
                         Quantization quantization) {
  Conversion c{to_element_type(outside), to_element_type(inside), 1.0f, 0, 255};
  const bool changes = (c.inside == ElementType::kUint8) != (c.outside == ElementType::kUint8);
  if (changes != quantization.has_value())
    throw std::invalid_argument("float32 becomes uint8, and back, by a quantization, and nothing "
                                "else does");
  if (quantization) std::tie(c.scale, c.zero_point, c.top) = *quantization;
  return c;
}

bool has_type(nb::dlpack::dtype dtype, ElementType type) {
  using Code = nb::dlpack::dtype_code;
  const bool integer = type == ElementType::kUint8;
  const int bits = integer ? 8 : type == ElementType::kFloat16 ? 16 : 32;
  const Code code = integer ? Code::UInt : Code::Float;
  return dtype.code == static_cast<uint8_t>(code) && dtype.bits == bits && dtype.lanes == 1;
}

template <typename Array>
std::string shape_text(const Array& array) {
  std::string text;
  for (size_t i = 0; i < array.ndim(); ++i)
    text += (i == 0 ? "" : ", ") + std::to_string(array.shape(i));
  return "(" + text + ")";
}

template <typename Array>
bool has_shape(const Array& array, const ImageShape& s) {
  const int64_t shape[] = {s.batch, s.channels, s.height, s.width};
  if (array.ndim() != 4) return false;
  for (size_t i = 0; i < 4; ++i)
    if (static_cast<int64_t>(array.shape(i)) != shape[i]) return false;
  return true;
}

// The addresses of arrays, each checked to be what the program takes or gives.
template <typename Pointer, typename Array>
std::vector<Pointer> addresses(const std::vector<Array>& arrays,
                               const std::vector<Program::Port>& ports, const char* what) {
  if (arrays.size() != ports.size())
    throw std::invalid_argument(std::string("wrong number of ") + what);
  std::vector<Pointer> pointers;
  for (size_t i = 0; i < arrays.size(); ++i) {
    if (!has_shape(arrays[i], ports[i].shape))
      throw std::invalid_argument(std::string("an array among the ") + what +
                                  " has the wrong size: its shape is " + shape_text(arrays[i]));
    if (!has_type(arrays[i].dtype(), ports[i].type))
      throw std::invalid_argument(std::string("an array among the ") + what +
                                  " has the wrong element type");
    pointers.push_back(arrays[i].data());
  }
  return pointers;
}

const StopFlag& flag_of(const StopFlag* stop) {
  return stop == nullptr ? StopFlag::never() : *stop;
}

void run_program(const Program& program, const Arena& arena, const std::vector<Input>& inputs,
                 const std::vector<Output>& outputs, int threads, const StopFlag* stop,
                 double* seconds = nullptr) {
  if (static_cast<int64_t>(arena.size()) < program.arena_size(threads))
    throw std::invalid_argument("the arena is too small");
  const auto from = addresses<const void*>(inputs, program.inputs(), "inputs");
  const auto to = addresses<void*>(outputs, program.outputs(), "outputs");
  program.close();  // while nobody else can add to it
  ReleasedGil released;
  program.run(arena.data(), from, to, threads, seconds, flag_of(stop));
}

std::vector<double> profile_program(const Program& program, const Arena& arena,
                                    const std::vector<Input>& inputs,
                                    const std::vector<Output>& outputs, int threads,
                                    const StopFlag* stop) {
  std::vector<double> seconds(program.step_count());
  run_program(program, arena, inputs, outputs, threads, stop, seconds.data());
  return seconds;
}

ConvShape make_shape(int64_t batch, Pair in_size, Pair out_size, Pair pad_begin) {
  ConvShape s{};
  s.batch = batch;
  std::tie(s.in_h, s.in_w) = in_size;
  std::tie(s.out_h, s.out_w) = out_size;
  std::tie(s.pad_top, s.pad_left) = pad_begin;
  return s;
}

template <typename Conv, void (Program::*add)(std::shared_ptr<const Conv>, const ConvShape&,
                                              int64_t, int64_t, int64_t)>
void add_conv(Program& self, std::shared_ptr<Conv> conv, int64_t batch, Pair in_size,
              Pair out_size, Pair pad_begin, int64_t x, int64_t z, int64_t y) {
  (self.*add)(std::move(conv), make_shape(batch, in_size, out_size, pad_begin), x, z, y);
}

void add_max_pool(Program& self, int64_t channels, Pair kernel, Pair strides, Pair dilations,
                  int64_t batch, Pair in_size, Pair out_size, Pair pad_begin, int64_t x, int64_t y) {
  ConvParams p{};
  p.in_channels = p.out_channels = channels;
  std::tie(p.kernel_h, p.kernel_w) = kernel;
  std::tie(p.stride_h, p.stride_w) = strides;
  std::tie(p.dilation_h, p.dilation_w) = dilations;
  p.group = 1;
  self.add_max_pool(p, make_shape(batch, in_size, out_size, pad_begin), x, y);
}

using Floats4 = nb::ndarray<float, nb::ndim<4>, nb::c_contig, nb::device::cpu>;

void run_input_gradient(const Weights& x, const Weights& weights, const Weights& grad_y,
                        const Floats4& grad_x, Pair strides, Pair pad_begin, Pair dilations,
                        int64_t group, const std::string& isa, int threads) {
  check_alignment(x, weights, grad_y, grad_x);
  ConvParams p{};
  p.in_channels = static_cast<int64_t>(x.shape(1));
  p.out_channels = static_cast<int64_t>(weights.shape(0));
  p.kernel_h = static_cast<int64_t>(weights.shape(2));
  p.kernel_w = static_cast<int64_t>(weights.shape(3));
  std::tie(p.stride_h, p.stride_w) = strides;
  std::tie(p.dilation_h, p.dilation_w) = dilations;
  p.group = group;
  ConvShape s{};
  s.batch = static_cast<int64_t>(x.shape(0));
  s.in_h = static_cast<int64_t>(x.shape(2));
  s.in_w = static_cast<int64_t>(x.shape(3));
  s.out_h = static_cast<int64_t>(grad_y.shape(2));
  s.out_w = static_cast<int64_t>(grad_y.shape(3));
  std::tie(s.pad_top, s.pad_left) = pad_begin;
  check_params(p);
  if (static_cast<int64_t>(weights.shape(1)) != p.group_in() ||
      grad_y.shape(0) != x.shape(0) || grad_y.shape(1) != weights.shape(0))
    throw std::invalid_argument("input, filters and gradient do not fit together");
  for (size_t i = 0; i < 4; ++i)
    if (grad_x.shape(i) != x.shape(i))
      throw std::invalid_argument("the gradient of the input has not the input's shape");
  const Isa level = isa_from_name(isa);
  ReleasedGil released;
  input_gradient(p, s, x.data(), weights.data(), grad_y.data(), grad_x.data(), level, threads);
}

template <typename Type>
using Matrix = nb::ndarray<Type, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

void run_choose_roundings(const Matrix<const uint8_t>& x, const Matrix<uint8_t>& weights,
                          const Matrix<int8_t>& steps, const Matrix<float>& missing, int64_t parts,
                          int sweeps, int threads, const StopFlag* stop) {
  const size_t filters = weights.shape(0), taps = x.shape(0), samples = x.shape(1);
  if (weights.shape(1) != taps || steps.shape(0) != filters || steps.shape(1) != taps ||
      missing.shape(0) != filters || missing.shape(1) != samples)
    throw std::invalid_argument("input, weights, steps and sums do not fit together");
  check_alignment(missing);
  ReleasedGil released;
  choose_roundings(x.data(), weights.data(), steps.data(), missing.data(),
                   static_cast<int64_t>(filters), static_cast<int64_t>(taps),
                   static_cast<int64_t>(samples), parts, sweeps, threads,
                   flag_of(stop));
}

NB_MODULE(_native, m) {
  // Threads that sleep while the process ends hold objects, which is no defect to print.
  nb::set_leak_warnings(false);
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
           "isa"_a);
  nb::class_<StopFlag>(m, "StopFlag")
      .def(nb::init<>())
      .def("set", &StopFlag::set)
      .def_prop_ro("is_set", &StopFlag::is_set);
  nb::class_<Program>(m, "Program")
      .def(nb::init<int64_t, int64_t>(), "batch"_a, "pass_"_a)
      .def(
          "add_nchw_to_nhwc",
          [](Program& self, int64_t input, Quadruple shape, int64_t to, const std::string& outside,
             const std::string& inside, Quantization quantization) {
            self.add_nchw_to_nhwc(input, to_conversion(outside, inside, quantization),
                                  to_image(shape), to);
          },
          "input"_a, "shape"_a, "to"_a, "outside"_a, "inside"_a, "quantization"_a = nb::none())
      .def(
          "add_nhwc_to_nchw",
          [](Program& self, int64_t from, Quadruple shape, int64_t output,
             const std::string& outside, const std::string& inside, Quantization quantization) {
            self.add_nhwc_to_nchw(from, to_image(shape), output,
                                  to_conversion(outside, inside, quantization));
          },
          "from_"_a, "shape"_a, "output"_a, "outside"_a, "inside"_a,
          "quantization"_a = nb::none())
      .def("add_adder_conv", &add_conv<AdderConv, &Program::add_adder_conv>, "conv"_a, "batch"_a,
           "in_size"_a, "out_size"_a, "pad_begin"_a, "x"_a, "z"_a, "y"_a)
      .def("add_qadder_conv", &add_conv<QAdderConv, &Program::add_qadder_conv>, "conv"_a, "batch"_a,
           "in_size"_a, "out_size"_a, "pad_begin"_a, "x"_a, "z"_a, "y"_a)
      .def("add_max_pool", &add_max_pool, "channels"_a, "kernel"_a, "strides"_a, "dilations"_a,
           "batch"_a, "in_size"_a, "out_size"_a, "pad_begin"_a, "x"_a, "y"_a)
      .def("arena_size", &Program::arena_size, "threads"_a)
      .def("scratch_size", &Program::scratch_size, "threads"_a)
      .def(
          "run",
          [](const Program& self, const Arena& arena, const std::vector<Input>& inputs,
             const std::vector<Output>& outputs, int threads, const StopFlag* stop) {
            run_program(self, arena, inputs, outputs, threads, stop);
          },
          "arena"_a.noconvert(), "inputs"_a.noconvert(), "outputs"_a.noconvert(), "threads"_a,
          "stop"_a = nb::none())
      .def("profile", &profile_program, "arena"_a.noconvert(), "inputs"_a.noconvert(),
           "outputs"_a.noconvert(), "threads"_a, "stop"_a = nb::none());
  m.def("available_isas", [] {
    std::vector<std::string> names;
    for (Isa isa : available_isas()) names.emplace_back(isa_name(isa));
    return names;
  });
  m.def(
      "inner_loop_rate",
      [](const std::string& type, const std::string& isa, int threads, double seconds,
         const std::string& arithmetic) {
        const ElementType element = to_element_type(type);
        if (element == ElementType::kFloat16)
          throw std::invalid_argument("the kernels take float32 and uint8");
        const Isa level = isa_from_name(isa);
        const Form form = to_form(arithmetic);
        ReleasedGil released;
        return element == ElementType::kUint8 ? q8_inner_loop_rate(level, threads, seconds)
                                              : f32_inner_loop_rate(form, level, threads, seconds);
      },
      "type"_a, "isa"_a, "threads"_a, "seconds"_a, "arithmetic"_a = "fast");
  m.def("input_gradient", &run_input_gradient, "x"_a.noconvert(), "weights"_a.noconvert(),
        "grad_y"_a.noconvert(), "grad_x"_a.noconvert(), "strides"_a, "pad_begin"_a,
        "dilations"_a, "group"_a, "isa"_a, "threads"_a);
  m.def("choose_roundings", &run_choose_roundings, "x"_a.noconvert(), "weights"_a.noconvert(),
        "steps"_a.noconvert(), "missing"_a.noconvert(), "parts"_a, "sweeps"_a,
        "threads"_a, "stop"_a = nb::none());
  m.def(
      "startable_threads",
      [](int wanted) {
        ReleasedGil released;
        return startable_threads(wanted);
      },
      "wanted"_a);
  m.def("padded_channels", &checked_channels, "channels"_a);
}

}  // namespace
}  // namespace adder_onnx
