// What training and calibration take.
#include "python/arrays.h"
#include "python/bindings.h"
#include "python/gil.h"
#include "float32/input_gradient.h"
#include "layers/checks.h"
#include "rounding/rounding.h"

namespace adder_onnx {
namespace {

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

}  // namespace

void bind_training(nb::module_& m) {
  m.def("input_gradient", &run_input_gradient, "x"_a.noconvert(), "weights"_a.noconvert(),
        "grad_y"_a.noconvert(), "grad_x"_a.noconvert(), "strides"_a, "pad_begin"_a,
        "dilations"_a, "group"_a, "isa"_a, "threads"_a);
  m.def("choose_roundings", &run_choose_roundings, "x"_a.noconvert(), "weights"_a.noconvert(),
        "steps"_a.noconvert(), "missing"_a.noconvert(), "parts"_a, "sweeps"_a,
        "threads"_a, "stop"_a = nb::none());
}

}  // namespace adder_onnx
