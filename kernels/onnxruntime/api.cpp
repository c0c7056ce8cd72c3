#include "onnxruntime/api.h"

#include <algorithm>
#include <stdexcept>
#include <thread>

namespace adder_onnx {

const OrtApi* ort = nullptr;

namespace {

constexpr int kMaxSessionThreads = 64;

std::string take_message(OrtStatus* status) {
  std::string message = ort->GetErrorMessage(status);
  ort->ReleaseStatus(status);
  return message;
}

// Whether a call succeeded: onnxruntime tells an attribute that is not there so, too.
bool succeeds(OrtStatus* status) {
  if (status == nullptr) return true;
  ort->ReleaseStatus(status);
  return false;
}

template <typename T, typename Get>
std::optional<std::vector<T>> array_of(const OrtKernelInfo* info, const char* name, Get get) {
  size_t size = 0;
  if (!succeeds(get(info, name, nullptr, &size))) return {};
  std::vector<T> values(size);
  if (size > 0) check(get(info, name, values.data(), &size));
  return values;
}

}  // namespace

void check(OrtStatus* status) {
  if (status != nullptr) throw std::runtime_error(take_message(status));
}

int64_t OrtTensor::size() const {
  int64_t product = 1;
  for (int64_t dim : shape) product *= dim;
  return product;
}

OrtTensor to_tensor(const OrtValue* value) {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(ort->GetTensorTypeAndShape(value, &info));
  OrtTensor tensor{};
  size_t rank = 0;
  OrtStatus* status = ort->GetTensorElementType(info, &tensor.type);
  if (status == nullptr) status = ort->GetDimensionsCount(info, &rank);
  if (status == nullptr) {
    tensor.shape.resize(rank);
    status = ort->GetDimensions(info, tensor.shape.data(), rank);
  }
  ort->ReleaseTensorTypeAndShapeInfo(info);
  check(status);
  void* data = nullptr;
  check(ort->GetTensorMutableData(const_cast<OrtValue*>(value), &data));
  tensor.data = data;
  return tensor;
}

ElementType to_element_type(ONNXTensorElementDataType type) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: return ElementType::kFloat32;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16: return ElementType::kFloat16;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8: return ElementType::kUint8;
    default: throw std::invalid_argument("a tensor is not float32, float16 or uint8");
  }
}

ImageShape to_image(const OrtTensor& tensor) {
  if (tensor.shape.size() != 4)
    throw std::invalid_argument("an image has " + std::to_string(tensor.shape.size()) +
                                " dimensions; expected (N, C, H, W)");
  return {tensor.shape[0], tensor.shape[1], tensor.shape[2], tensor.shape[3]};
}

std::string Node::name() const {
  size_t size = 0;
  if (!succeeds(ort->KernelInfo_GetNodeName(info_, nullptr, &size)) || size == 0) return "";
  std::string name(size, '\0');
  check(ort->KernelInfo_GetNodeName(info_, name.data(), &size));
  name.resize(size - 1);
  return name;
}

size_t Node::input_count() const {
  size_t count = 0;
  check(ort->KernelInfo_GetInputCount(info_, &count));
  return count;
}

size_t Node::output_count() const {
  size_t count = 0;
  check(ort->KernelInfo_GetOutputCount(info_, &count));
  return count;
}

std::optional<OrtTensor> Node::constant(size_t input) const {
  int is_constant = 0;
  const OrtValue* value = nullptr;
  if (!succeeds(ort->KernelInfoGetConstantInput_tensor(info_, input, &is_constant, &value)) ||
      is_constant == 0 || value == nullptr)
    return {};
  return to_tensor(value);
}

int64_t Node::integer(const char* name, int64_t otherwise) const {
  int64_t value = 0;
  return succeeds(ort->KernelInfoGetAttribute_int64(info_, name, &value)) ? value : otherwise;
}

float Node::number(const char* name, float otherwise) const {
  float value = 0;
  return succeeds(ort->KernelInfoGetAttribute_float(info_, name, &value)) ? value : otherwise;
}

std::string Node::text(const char* name, const std::string& otherwise) const {
  size_t size = 0;
  if (!succeeds(ort->KernelInfoGetAttribute_string(info_, name, nullptr, &size)) || size == 0)
    return otherwise;
  std::string value(size, '\0');
  check(ort->KernelInfoGetAttribute_string(info_, name, value.data(), &size));
  value.resize(size - 1);
  return value;
}

std::vector<int64_t> Node::integers(const char* name, std::vector<int64_t> otherwise) const {
  return array_of<int64_t>(info_, name, ort->KernelInfoGetAttributeArray_int64)
      .value_or(std::move(otherwise));
}

std::vector<float> Node::numbers(const char* name) const {
  return array_of<float>(info_, name, ort->KernelInfoGetAttributeArray_float).value_or(
      std::vector<float>{});
}

OrtTensor Call::input(size_t number) const {
  const OrtValue* value = nullptr;
  check(ort->KernelContext_GetInput(context_, number, &value));
  if (value == nullptr) throw std::invalid_argument("an input is not given");
  return to_tensor(value);
}

void* Call::output(size_t number, const ImageShape& s) const {
  const int64_t shape[] = {s.batch, s.channels, s.height, s.width};
  OrtValue* value = nullptr;
  check(ort->KernelContext_GetOutput(context_, number, shape, 4, &value));
  void* data = nullptr;
  check(ort->GetTensorMutableData(value, &data));
  return data;
}

int SessionWorkers::count() const {
  static const int threads = static_cast<int>(
      std::clamp<unsigned>(std::thread::hardware_concurrency(), 1, kMaxSessionThreads));
  return threads;
}

void SessionWorkers::run(int helpers, Work work, void* call) const {
  struct Both {
    Work work;
    void* call;
  } both = {work, call};
  check(ort->KernelContext_ParallelFor(
      context_,
      [](void* argument, size_t) {
        const Both* begun = static_cast<const Both*>(argument);
        begun->work(begun->call);
      },
      static_cast<size_t>(helpers) + 1, 0, &both));
}

}  // namespace adder_onnx
