// One operator as onnxruntime takes it.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "onnxruntime/api.h"

namespace adder_onnx {

// What a node of an operator computes. Runs of a session at the same time share it.
class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual void compute(const Call& call) const = 0;
};

using TensorType = ONNXTensorElementDataType;
constexpr TensorType kAnyType = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;

// The description of an operator: onnxruntime has a pointer to it for as long as the process lives.
struct CustomOp : OrtCustomOp {
  using Make = std::unique_ptr<Kernel> (*)(const Node& node);

  // With inputs and outputs of these types.
  CustomOp(std::string name, std::vector<TensorType> inputs, TensorType output, Make make);
  // With any number of inputs, of any types, and of outputs of one type.
  CustomOp(std::string name, TensorType outputs, Make make);

  std::string name;
  std::vector<TensorType> inputs;
  TensorType output;
  bool is_variadic;
  Make make;

 private:
  void fill();
};

}  // namespace adder_onnx
