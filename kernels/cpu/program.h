// A sequence of kernels for fixed shapes over one block of memory, executed in one call.
#pragma once

#include <memory>
#include <vector>

#include "adder_conv.h"
#include "layout.h"

namespace adder_onnx {

// Tensors inside the program are channels-last and live at offsets, in floats, of an arena that
// the caller provides; offsets are planned by the caller. Inputs and outputs are (N, C, H, W).
// A program is immutable while it runs, and may run on several threads at once with an arena each.
class Program {
 public:
  void add_nchw_to_nhwc(int64_t input, const ImageShape& shape, int64_t to);
  void add_nhwc_to_nchw(int64_t from, const ImageShape& shape, int64_t output);
  // z < 0: no residual. Throws std::invalid_argument where sizes do not fit together.
  void add_adder_conv(std::shared_ptr<const AdderConv> conv, const ConvShape& shape, int64_t x,
                      int64_t z, int64_t y);

  // What the arrays given to `run` must hold, in floats.
  int64_t arena_size() const { return arena_size_; }
  const std::vector<int64_t>& input_sizes() const { return input_sizes_; }
  const std::vector<int64_t>& output_sizes() const { return output_sizes_; }

  void run(float* arena, const std::vector<const float*>& inputs,
           const std::vector<float*>& outputs, int threads) const;

 private:
  enum class Kind { kNchwToNhwc, kNhwcToNchw, kAdderConv };
  struct Step {
    Kind kind;
    int64_t port = 0;  // number of the input or output
    ImageShape image{};
    std::shared_ptr<const AdderConv> conv;
    ConvShape shape{};
    int64_t x = 0, z = -1, y = 0;
  };

  void reserve(int64_t offset, int64_t size);
  static void reserve_port(std::vector<int64_t>& sizes, int64_t port, int64_t size);

  std::vector<Step> steps_;
  int64_t arena_size_ = 0;
  std::vector<int64_t> input_sizes_, output_sizes_;
};

}  // namespace adder_onnx
