// A sequence of kernels for fixed shapes over one block of memory, executed in one call.
#pragma once

#include <memory>
#include <vector>

#include "adder_conv.h"
#include "layout.h"
#include "qadder_conv.h"

namespace adder_onnx {

// Tensors inside the program are channels-last, float32 or uint8, and live at offsets, in floats, of
// an arena that the caller provides; offsets are planned by the caller. Inputs and outputs are
// (N, C, H, W), float32, float16 or uint8.
// A program is immutable while it runs, and may run on several threads at once with an arena each.
class Program {
 public:
  void add_nchw_to_nhwc(int64_t input, ElementType type, const ImageShape& shape, int64_t to);
  void add_nhwc_to_nchw(int64_t from, const ImageShape& shape, int64_t output, ElementType type);
  // z < 0: no residual. Throws std::invalid_argument where sizes do not fit together.
  void add_adder_conv(std::shared_ptr<const AdderConv> conv, const ConvShape& shape, int64_t x,
                      int64_t z, int64_t y);
  void add_qadder_conv(std::shared_ptr<const QAdderConv> conv, const ConvShape& shape, int64_t x,
                       int64_t z, int64_t y);

  // What an array given to `run` as an input or output must hold.
  struct Port {
    int64_t size = 0;  // in elements
    ElementType type = ElementType::kFloat32;
  };

  int64_t arena_size() const { return arena_size_; }  // in floats
  size_t step_count() const { return steps_.size(); }
  const std::vector<Port>& inputs() const { return inputs_; }
  const std::vector<Port>& outputs() const { return outputs_; }

  // Where `seconds` is given, the time of each step, in the order in which they were added, is
  // stored there.
  void run(float* arena, const std::vector<const void*>& inputs,
           const std::vector<void*>& outputs, int threads, double* seconds = nullptr) const;

 private:
  enum class Kind { kNchwToNhwc, kNhwcToNchw, kAdderConv, kQAdderConv };
  struct Step {
    Kind kind;
    int64_t port = 0;  // number of the input or output
    ElementType type = ElementType::kFloat32;
    ImageShape image{};
    std::shared_ptr<const AdderConv> conv;
    std::shared_ptr<const QAdderConv> qconv;
    ConvShape shape{};
    int64_t x = 0, z = -1, y = 0;
  };

  void reserve(int64_t offset, int64_t size);
  void reserve_conv(const ConvParams& params, const ConvShape& shape, Step& step, int64_t per_float);
  static void reserve_port(std::vector<Port>& ports, int64_t number, Port port);

  std::vector<Step> steps_;
  int64_t arena_size_ = 0;
  std::vector<Port> inputs_, outputs_;
};

}  // namespace adder_onnx
