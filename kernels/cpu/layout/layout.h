// Conversions between onnxruntime's layout (N, C, H, W) and the kernels' (N, H, W, padded C), with a
// change of type where the two sides differ:
//
//   outside   inside    into the kernels                                      out of them
//   float32   float32
//   float16   float32   exact                                                 rounded to even
//   uint8     uint8
//   float32   uint8     clamp(round_half_even(v / scale) + zero_point, 0, top)  (q - zero_point) * scale
//
// the last as QuantizeLinear and DequantizeLinear have it. Into the kernels, a table may say what each of
// these integers becomes then.
#pragma once

#include <memory>

#include "layers/params.h"
#include "layout/byte_table.h"

namespace adder_onnx {

struct ImageShape {
  int64_t batch, channels, height, width;

  int64_t nchw_size() const { return batch * channels * height * width; }
  int64_t nhwc_size() const { return batch * height * width * padded_channels(channels); }
};

enum class ElementType { kFloat32, kFloat16, kUint8 };

inline int64_t size_of(ElementType type) {
  return type == ElementType::kFloat32 ? 4 : type == ElementType::kFloat16 ? 2 : 1;
}

// The type of the outer side, and how it becomes the inner one's.
struct Conversion {
  ElementType outside;
  ElementType inside;  // float32 or uint8
  float scale;         // of what is quantized
  int32_t zero_point;
  int32_t top;
  std::shared_ptr<const ByteTable> table = nullptr;  // none: integers stay as they are
};

// Throw std::invalid_argument: a size is negative, or the product of all is beyond kMaxSize bytes of
// either side; types or a quantization that are no row of the table, or a scale that is not
// positive, a zero point or top that is no uint8, a table where float32 does not become uint8, or out
// of the kernels. What passes is safe with all that follows here.
void check_image(const ImageShape& shape);
void check_conversion(const Conversion& conversion, bool to_kernels);

// Both directions share out their work in so many tasks, which may run in any order and at once;
// none where there are no channels.
int64_t conversion_tasks(const ImageShape& shape);

// The padding channels of `nhwc` are set to zero.
void nchw_to_nhwc(const ImageShape& shape, const Conversion& conversion, const void* nchw,
                  void* nhwc, int64_t task);
void nhwc_to_nchw(const ImageShape& shape, const Conversion& conversion, const void* nhwc,
                  void* nchw, int64_t task);

}  // namespace adder_onnx
