// Chains of layers, from their descriptions.
#include <nanobind/stl/function.h>

#include "chain/chain.h"
#include "chain/description.h"
#include "chain/passes.h"
#include "chain/placement.h"
#include "isa/isa.h"
#include "python/arrays.h"
#include "python/bindings.h"
#include "python/gil.h"

namespace adder_onnx {
namespace {

using Constant = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

Operand to_operand(const Constant& array) {
  check_alignment(array);
  const bool is_float = has_type(array.dtype(), ElementType::kFloat32);
  if (!is_float && !has_type(array.dtype(), ElementType::kUint8))
    throw std::invalid_argument("an array of the chain is not float32 or uint8");
  Operand operand{is_float ? ElementType::kFloat32 : ElementType::kUint8, {}, array.data()};
  for (size_t i = 0; i < array.ndim(); ++i)
    operand.shape.push_back(static_cast<int64_t>(array.shape(i)));
  return operand;
}

std::vector<Operand> to_operands(const std::vector<Constant>& arrays) {
  std::vector<Operand> operands;
  for (const Constant& array : arrays) operands.push_back(to_operand(array));
  return operands;
}

std::shared_ptr<const Chain> make_chain(std::vector<int64_t> integers, std::vector<float> floats,
                                        const std::vector<std::optional<Constant>>& operands,
                                        const std::vector<std::string>& labels,
                                        const std::string& isa, const std::string& arithmetic) {
  std::vector<Operand> arrays;
  const Operand computed = {ElementType::kFloat32, {}, nullptr, true};
  for (const auto& operand : operands) arrays.push_back(operand ? to_operand(*operand) : computed);
  return read_chain({std::move(integers), std::move(floats)}, arrays, isa_from_name(isa),
                    to_form(arithmetic), labels);
}

Quadruple to_tuple(const ImageShape& s) { return {s.batch, s.channels, s.height, s.width}; }

std::vector<ImageShape> to_images(const std::vector<Quadruple>& shapes) {
  std::vector<ImageShape> images;
  for (const Quadruple& shape : shapes) images.push_back(to_image(shape));
  return images;
}

std::vector<Program::Port> input_ports(const Chain& chain, const ChainProgram& program) {
  std::vector<Program::Port> ports;
  for (size_t i = 0; i < program.inputs().size(); ++i)
    ports.push_back({program.inputs()[i], chain.entries()[i].outside});
  return ports;
}

void run_chain(const Chain& chain, const ChainProgram& program, const std::vector<Input>& inputs,
               const std::vector<Output>& outputs, const StopFlag* stop, double* seconds) {
  const auto from = addresses<const void*>(inputs, input_ports(chain, program), "inputs");
  const auto to = addresses<void*>(outputs, program.outputs(), "outputs");
  ReleasedGil released;
  program.run(from, to, PoolWorkers(program.threads()), seconds, flag_of(stop));
}

}  // namespace

void bind_chains(nb::module_& m) {
  nb::exception<ShapeError>(m, "ShapeError", PyExc_ValueError);
  nb::class_<ChainPlan>(m, "ChainPlan")
      .def_prop_ro("input_shapes",
                   [](const ChainPlan& self) {
                     std::vector<Quadruple> shapes;
                     for (const ImageShape& shape : self.inputs) shapes.push_back(to_tuple(shape));
                     return shapes;
                   })
      .def_prop_ro("arena_bytes", [](const ChainPlan& self) { return self.arenas->bytes(); })
      .def_prop_ro("arenas", [](const ChainPlan& self) { return self.arenas->kept(); });
  nb::class_<ChainProgram>(m, "ChainProgram")
      .def_prop_ro("output_shapes", [](const ChainProgram& self) {
        std::vector<Quadruple> shapes;
        for (const auto& port : self.outputs()) shapes.push_back(to_tuple(port.shape));
        return shapes;
      });
  nb::class_<Chain>(m, "Chain")
      .def(nb::new_(&make_chain), "integers"_a, "floats"_a, "operands"_a, "labels"_a, "isa"_a,
           "arithmetic"_a)
      .def(
          "program",
          [](const Chain& self, const std::vector<Quadruple>& shapes, int threads,
             const Chain::Approve& approve, const std::vector<Constant>& weights) {
            return self.program(to_images(shapes), threads, approve, to_operands(weights));
          },
          "shapes"_a, "threads"_a, "approve"_a, "weights"_a)
      .def("plans", &Chain::plans)
      .def_prop_ro("lookups",
                   [](const Chain& self) {
                     std::vector<bool> found;
                     for (const ChainLayer& layer : self.layers())
                       found.push_back(layer.qconv && layer.qconv->has_lookups());
                     return found;
                   })
      .def(
          "run",
          [](const Chain& self, const ChainProgram& program, const std::vector<Input>& inputs,
             const std::vector<Output>& outputs, const StopFlag* stop) {
            run_chain(self, program, inputs, outputs, stop, nullptr);
          },
          "program"_a, "inputs"_a.noconvert(), "outputs"_a.noconvert(), "stop"_a = nb::none())
      .def(
          "profile",
          [](const Chain& self, const ChainProgram& program, const std::vector<Input>& inputs,
             const std::vector<Output>& outputs, const StopFlag* stop) {
            std::vector<double> seconds(program.step_count());
            run_chain(self, program, inputs, outputs, stop, seconds.data());
            return seconds;
          },
          "program"_a, "inputs"_a.noconvert(), "outputs"_a.noconvert(), "stop"_a = nb::none());
  m.def(
      "plan_passes",
      [](const std::vector<Quadruple>& shapes, const std::vector<int64_t>& bytes, int threads) {
        if (shapes.size() != bytes.size())
          throw std::invalid_argument("there must be as many shapes as sizes");
        const Passes passes = plan_passes(to_images(shapes), bytes, threads);
        return std::make_tuple(passes.batch, passes.images, passes.at_once);
      },
      "shapes"_a, "bytes"_a, "threads"_a);
  m.def(
      "place_buffers",
      [](const std::vector<std::tuple<int64_t, int64_t, int64_t>>& buffers) {
        std::vector<Buffer> taken;
        for (const auto& [size, first, last] : buffers) taken.push_back({size, first, last});
        const Placement placement = place_buffers(taken);
        return std::make_tuple(placement.offsets, placement.size);
      },
      "buffers"_a);
}

}  // namespace adder_onnx
