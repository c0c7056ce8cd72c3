// NumPy's arrays and Python's values as the kernels take them.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "float32/adder_conv.h"
#include "layout/layout.h"
#include "program/program.h"
#include "threads/stop_flag.h"

namespace adder_onnx {

namespace nb = nanobind;
using namespace nb::literals;

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

inline Form to_form(const std::string& arithmetic) {
  if (arithmetic == "exact") return Form::kDirect;
  if (arithmetic == "fast") return Form::kMax;
  throw std::invalid_argument("arithmetic '" + arithmetic + "' is not exact or fast");
}

inline ImageShape to_image(Quadruple nchw) {
  const auto [n, c, h, w] = nchw;
  return {n, c, h, w};
}

inline ElementType to_element_type(const std::string& name) {
  if (name == "float32") return ElementType::kFloat32;
  if (name == "float16") return ElementType::kFloat16;
  if (name == "uint8") return ElementType::kUint8;
  throw std::invalid_argument("element type '" + name + "' is not float32, float16 or uint8");
}

inline bool has_type(nb::dlpack::dtype dtype, ElementType type) {
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
inline bool has_shape(const Array& array, const ImageShape& s) {
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

inline const StopFlag& flag_of(const StopFlag* stop) {
  return stop == nullptr ? StopFlag::never() : *stop;
}

}  // namespace adder_onnx
