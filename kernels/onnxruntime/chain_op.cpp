#include <stdexcept>

#include "chain/description.h"
#include "isa/default.h"
#include "onnxruntime/chain_kernel.h"
#include "onnxruntime/operators.h"

namespace adder_onnx {
namespace {

constexpr int kChains = 64;  // of a file; adder-compile makes no more

// Inputs are the images that enter, and then the operands of the description, all constant.
class ChainKernel final : public Kernel {
 public:
  explicit ChainKernel(const Node& node) : chain_(read(node)) {
    if (chain_->exits().size() != node.output_count())
      throw std::invalid_argument("the node has another number of outputs than its chain");
  }

  void compute(const Call& call) const override { run_chain(*chain_, call); }

 private:
  static std::shared_ptr<const Chain> read(const Node& node) {
    Description description;
    description.integers = node.integers("program", {});
    description.floats = node.numbers("numbers");
    const int64_t entries = description.integers.size() > 1 ? description.integers[1] : 0;
    const size_t inputs = node.input_count();
    if (entries < 0 || static_cast<uint64_t>(entries) > inputs)
      throw std::invalid_argument("the node has less inputs than its chain");
    std::vector<Operand> operands;
    for (auto i = static_cast<size_t>(entries); i < inputs; ++i) {
      const std::optional<OrtTensor> tensor = node.constant(i);
      if (!tensor) throw std::invalid_argument("the weights of a chain must be constants");
      operands.push_back({to_element_type(tensor->type), tensor->shape, tensor->data});
    }
    return read_chain(description, operands, default_isa(), Form::kMax);
  }

  std::shared_ptr<const Chain> chain_;
};

std::unique_ptr<Kernel> make_chain(const Node& node) { return std::make_unique<ChainKernel>(node); }

}  // namespace

void add_chain_ops(std::vector<CustomOp>* ops) {
  // A chain's outputs have one type, which is in its name.
  const std::pair<const char*, TensorType> kinds[] = {
      {"AdderChain", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
      {"AdderChainFloat16_", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16},
      {"AdderChainUint8_", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8}};
  for (const auto& [name, type] : kinds)
    for (int i = 0; i < kChains; ++i)
      ops->emplace_back(name + std::to_string(i), type, make_chain);
}

}  // namespace adder_onnx
