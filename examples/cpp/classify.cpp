// Says what is on an image, by a model that adder-compile has made.
//
//     classify MODEL.onnx LIBRARY IMAGE
//
// LIBRARY is the path that adder_onnx.get_library_path() gives; IMAGE is a binary PGM or PPM file of the
// model's size. Prints the class's number and its probability.
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <vector>

#include "image.h"

static void classify(const char* model, const char* library, const char* path) {
  Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "classify");
  Ort::SessionOptions options;
  options.RegisterCustomOpsLibrary(library);
  Ort::Session session(env, model, options);

  Ort::AllocatorWithDefaultOptions allocator;
  const auto input = session.GetInputNameAllocated(0, allocator);
  const auto output = session.GetOutputNameAllocated(0, allocator);
  const auto how = session.GetModelMetadata().LookupCustomMetadataMapAllocated(
      "ai.addernet.preprocessing", allocator);
  std::vector<int64_t> shape = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();
  if (shape.size() != 4 || *std::min_element(shape.begin() + 1, shape.end()) < 1)
    throw std::runtime_error("the model's input is not (N, C, H, W) of one size");
  shape[0] = 1;
  std::vector<float> image = read_image(path, shape, how ? how.get() : "");

  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const auto tensor = Ort::Value::CreateTensor<float>(memory, image.data(), image.size(),
                                                      shape.data(), shape.size());
  const char* const inputs[] = {input.get()};
  const char* const outputs[] = {output.get()};
  const auto results = session.Run(Ort::RunOptions{nullptr}, inputs, &tensor, 1, outputs, 1);

  const auto info = results[0].GetTensorTypeAndShapeInfo();
  if (info.GetElementType() != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT || info.GetElementCount() == 0)
    throw std::runtime_error("the model's first output is not logits in float32");
  const float* logits = results[0].GetTensorData<float>();
  const float* end = logits + info.GetElementCount();
  const float* best = std::max_element(logits, end);
  double sum = 0;
  for (const float* logit = logits; logit < end; logit++) sum += std::exp(double(*logit) - *best);
  std::printf("class %d, probability %.4f\n", static_cast<int>(best - logits), 1 / sum);
}

int main(int count, char** arguments) {
  if (count != 4) {
    std::fprintf(stderr, "classify MODEL.onnx LIBRARY IMAGE\n");
    return 2;
  }
  if (OrtGetApiBase()->GetApi(ORT_API_VERSION) == nullptr) {
    std::fprintf(stderr, "classify: onnxruntime %s is older than the headers, of version 1.%d\n",
                 OrtGetApiBase()->GetVersionString(), ORT_API_VERSION);
    return 2;
  }
  try {
    classify(arguments[1], arguments[2], arguments[3]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "classify: %s\n", error.what());
    return 2;
  }
}
