#include "uint8/lookup/use.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace adder_onnx {

UseLookups use_lookups() {
  const char* set = std::getenv("ADDER_ONNX_LOOKUPS");
  const std::string name = set == nullptr || *set == '\0' ? "auto" : set;
  if (name == "auto") return UseLookups::kWherePays;
  if (name == "always") return UseLookups::kAlways;
  if (name == "never") return UseLookups::kNever;
  throw std::invalid_argument("ADDER_ONNX_LOOKUPS is '" + name + "'; expected auto, always or never");
}

}  // namespace adder_onnx
