// What this machine has, and how fast it is at best.
#include "python/arrays.h"
#include "python/bindings.h"
#include "python/gil.h"
#include "isa/isa.h"
#include "layers/checks.h"
#include "threads/startable.h"
#include "uint8/qadder_conv.h"

namespace adder_onnx {

void bind_machine(nb::module_& m) {
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
  m.def("most_lookup_levels",
        [](const std::string& isa) { return most_lookup_levels(isa_from_name(isa)); }, "isa"_a);
  m.def(
      "lookup_rate",
      [](const std::string& isa, int levels, int threads, double seconds) {
        const Isa level = isa_from_name(isa);
        ReleasedGil released;
        return lookup_inner_loop_rate(level, levels, threads, seconds);
      },
      "isa"_a, "levels"_a, "threads"_a, "seconds"_a);
  m.def(
      "startable_threads",
      [](int wanted) {
        ReleasedGil released;
        return startable_threads(wanted);
      },
      "wanted"_a);
  m.def("padded_channels", &checked_channels, "channels"_a);
}

}  // namespace adder_onnx
