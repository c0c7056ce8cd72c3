#include "onnxruntime/custom_op.h"

namespace adder_onnx {
namespace {

const CustomOp& of(const OrtCustomOp* op) { return *static_cast<const CustomOp*>(op); }

OrtCustomOpInputOutputCharacteristic characteristic(const OrtCustomOp* op) {
  return of(op).is_variadic ? INPUT_OUTPUT_VARIADIC : INPUT_OUTPUT_REQUIRED;
}

}  // namespace

CustomOp::CustomOp(std::string name, std::vector<TensorType> inputs, TensorType output, Make make)
    : OrtCustomOp{}, name(std::move(name)), inputs(std::move(inputs)), output(output),
      is_variadic(false), make(make) {
  fill();
}

CustomOp::CustomOp(std::string name, TensorType outputs, Make make)
    : OrtCustomOp{}, name(std::move(name)), inputs{kAnyType}, output(outputs), is_variadic(true),
      make(make) {
  fill();
}

void CustomOp::fill() {
  version = kApiVersion;
  GetName = [](const OrtCustomOp* op) { return of(op).name.c_str(); };
  GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };
  GetInputType = [](const OrtCustomOp* op, size_t i) { return of(op).inputs[i]; };
  GetInputTypeCount = [](const OrtCustomOp* op) { return of(op).inputs.size(); };
  GetOutputType = [](const OrtCustomOp* op, size_t) { return of(op).output; };
  GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
  GetInputCharacteristic = [](const OrtCustomOp* op, size_t) { return characteristic(op); };
  GetOutputCharacteristic = [](const OrtCustomOp* op, size_t) { return characteristic(op); };
  GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
  GetVariadicInputMinArity = [](const OrtCustomOp*) { return 1; };
  GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 0; };
  GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 1; };
  GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
  GetStartVersion = [](const OrtCustomOp*) { return 1; };
  GetEndVersion = [](const OrtCustomOp*) { return 1; };
  CreateKernelV2 = [](const OrtCustomOp* op, const OrtApi*, const OrtKernelInfo* info,
                      void** kernel) -> OrtStatusPtr {
    return guarded(of(op).name.c_str(), [&] { *kernel = of(op).make(Node(info)).release(); });
  };
  KernelComputeV2 = [](void* kernel, OrtKernelContext* context) -> OrtStatusPtr {
    return guarded("a run", [&] { static_cast<const Kernel*>(kernel)->compute(Call(context)); });
  };
  KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
}

}  // namespace adder_onnx
