// Programs made step by step, for tests, benchmarks and single layers.
#include "python/arrays.h"
#include "python/bindings.h"
#include "python/gil.h"

namespace adder_onnx {
namespace {

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

Conversion with_table(Conversion conversion, const std::optional<nb::bytes>& bytes) {
  if (!bytes) return conversion;
  if (bytes->size() != ByteTable::kSize) throw std::invalid_argument("a table must have 256 bytes");
  conversion.table = std::make_shared<const ByteTable>(static_cast<const uint8_t*>(bytes->data()));
  return conversion;
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
  program.run(arena.data(), from, to, PoolWorkers(threads), seconds, flag_of(stop));
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

}  // namespace

void bind_programs(nb::module_& m) {
  nb::class_<StopFlag>(m, "StopFlag")
      .def(nb::init<>())
      .def("set", &StopFlag::set)
      .def_prop_ro("is_set", &StopFlag::is_set);
  nb::class_<Program>(m, "Program")
      .def(nb::init<int64_t, int64_t>(), "batch"_a, "pass_"_a)
      .def(
          "add_nchw_to_nhwc",
          [](Program& self, int64_t input, Quadruple shape, int64_t to, const std::string& outside,
             const std::string& inside, Quantization quantization,
             const std::optional<nb::bytes>& table) {
            self.add_nchw_to_nhwc(input,
                                  with_table(to_conversion(outside, inside, quantization), table),
                                  to_image(shape), to);
          },
          "input"_a, "shape"_a, "to"_a, "outside"_a, "inside"_a, "quantization"_a = nb::none(),
          "table"_a = nb::none())
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
}

}  // namespace adder_onnx
