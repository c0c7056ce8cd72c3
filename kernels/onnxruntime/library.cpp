// What onnxruntime calls when the library is registered.
#include <stdexcept>

#include "onnxruntime/operators.h"

namespace adder_onnx {
namespace {

constexpr const char* kDomain = "ai.addernet";

// Made once: sessions come and go, and all of them point here.
const std::vector<CustomOp>& all_ops() {
  static const std::vector<CustomOp>* ops = [] {
    auto* made = new std::vector<CustomOp>;
    add_layer_ops(made);
    add_chain_ops(made);
    return made;
  }();
  return *ops;
}

void register_in(OrtSessionOptions* options) {
  const std::vector<CustomOp>& ops = all_ops();
  OrtCustomOpDomain* domain = nullptr;
  check(ort->CreateCustomOpDomain(kDomain, &domain));
  // Sessions keep a pointer to it, and tell nobody when they end: it stays, a few kilobytes for each
  // time the library is registered.
  for (const CustomOp& op : ops) check(ort->CustomOpDomain_Add(domain, &op));
  check(ort->AddCustomOpDomain(options, domain));
}

}  // namespace
}  // namespace adder_onnx

extern "C" __attribute__((visibility("default"))) OrtStatus* ORT_API_CALL
RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(adder_onnx::kApiVersion);
  if (api == nullptr) return base->GetApi(1)->CreateStatus(ORT_NOT_IMPLEMENTED, "adder_onnx needs onnxruntime 1.17 or later");
  adder_onnx::ort = api;
  return adder_onnx::guarded("registering", [&] { adder_onnx::register_in(options); });
}
