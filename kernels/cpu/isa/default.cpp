#include "isa/default.h"

#include <cstdlib>

namespace adder_onnx {

Isa default_isa() {
  const char* name = std::getenv("ADDER_ONNX_CPU_ISA");
  return name == nullptr || *name == '\0' ? available_isas().back() : isa_from_name(name);
}

}  // namespace adder_onnx
