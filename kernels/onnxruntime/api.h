// onnxruntime's C API as the operators here use it.
#pragma once

#include <onnxruntime_c_api.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "layout/layout.h"
#include "threads/workers.h"

namespace adder_onnx {

// The oldest version of the API that has all that is used here: onnxruntime 1.17's. Later ones keep it.
constexpr uint32_t kApiVersion = 17;

// Set by RegisterCustomOps, before anything else here is called.
extern const OrtApi* ort;

// Throws std::runtime_error with the message of a status that is one of a failure.
void check(OrtStatus* status);

// Calls work(); what it throws becomes a status, whose message begins with `what`.
template <typename Work>
OrtStatusPtr guarded(const char* what, const Work& work) noexcept;

// A tensor of onnxruntime's: what it holds, and where.
struct OrtTensor {
  ONNXTensorElementDataType type;
  std::vector<int64_t> shape;
  const void* data;

  int64_t size() const;  // elements
};

OrtTensor to_tensor(const OrtValue* value);

// float32, float16 or uint8. Throws std::invalid_argument for another one.
ElementType to_element_type(ONNXTensorElementDataType type);
// Throws std::invalid_argument: it has not four dimensions.
ImageShape to_image(const OrtTensor& tensor);

// The attributes and inputs of a node.
class Node {
 public:
  explicit Node(const OrtKernelInfo* info) : info_(info) {}

  std::string name() const;
  size_t input_count() const;
  size_t output_count() const;
  // An input that is a constant.
  std::optional<OrtTensor> constant(size_t input) const;

  // The default, where a node has no such attribute.
  int64_t integer(const char* name, int64_t otherwise) const;
  float number(const char* name, float otherwise) const;
  std::string text(const char* name, const std::string& otherwise) const;
  std::vector<int64_t> integers(const char* name, std::vector<int64_t> otherwise) const;
  std::vector<float> numbers(const char* name) const;

 private:
  const OrtKernelInfo* info_;
};

// One call of an operator.
class Call {
 public:
  explicit Call(OrtKernelContext* context) : context_(context) {}

  OrtTensor input(size_t number) const;
  void* output(size_t number, const ImageShape& shape) const;
  OrtKernelContext* context() const { return context_; }

 private:
  OrtKernelContext* context_;
};

// The threads of the session in which an operator is called. Their number is not told: work is shared
// out among as many as the process may use, and those that are not there cost nothing.
class SessionWorkers final : public Workers {
 public:
  explicit SessionWorkers(const Call& call) : context_(call.context()) {}
  int count() const override;
  void run(int helpers, Work work, void* call) const override;

 private:
  const OrtKernelContext* context_;
};

template <typename Work>
OrtStatusPtr guarded(const char* what, const Work& work) noexcept {
  try {
    try {
      work();
      return nullptr;
    } catch (const std::bad_alloc&) {
      return ort->CreateStatus(ORT_FAIL, "adder_onnx: there is not enough memory");
    } catch (const std::exception& error) {
      const std::string message = "adder_onnx: " + std::string(what) + ": " + error.what();
      return ort->CreateStatus(ORT_FAIL, message.c_str());
    }
  } catch (...) {
    return ort->CreateStatus(ORT_FAIL, "adder_onnx: there is not enough memory for a message");
  }
}

}  // namespace adder_onnx
