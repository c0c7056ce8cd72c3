// A sequence of kernels for fixed shapes over one block of memory, executed in one call.
#pragma once

#include <memory>
#include <vector>

#include "float32/adder_conv.h"
#include "layout/layout.h"
#include "threads/stop_flag.h"
#include "uint8/max_pool.h"
#include "uint8/qadder_conv.h"

namespace adder_onnx {

// Tensors inside the program are channels-last, float32 or uint8, and live at offsets, in floats, of
// a block of memory; offsets are planned by the caller. Inputs and outputs are (N, C, H, W), float32,
// float16 or uint8.
//
// The images of a batch do not depend on each other. A large batch is run in passes of a few images,
// each pass through the whole program on one thread: its tensors stay in that thread's cache and take
// little memory, and threads never wait for each other between steps. What is left, and a batch too
// small for that, is run in one wide pass, in which the threads share every step.
//
// A program is immutable while it runs, and may run on several threads at once with an arena each.
class Program {
 public:
  // Steps hold `batch` images, of which a pass takes `pass`: offsets are planned for so many. A wide
  // pass of up to `pass` times the number of threads finds room in the memory of all passes.
  Program(int64_t batch, int64_t pass);

  void add_nchw_to_nhwc(int64_t input, const Conversion& conversion, const ImageShape& shape,
                        int64_t to);
  void add_nhwc_to_nchw(int64_t from, const ImageShape& shape, int64_t output,
                        const Conversion& conversion);
  // z < 0: no residual. Throws std::invalid_argument where sizes do not fit together.
  void add_adder_conv(std::shared_ptr<const AdderConv> conv, const ConvShape& shape, int64_t x,
                      int64_t z, int64_t y);
  void add_qadder_conv(std::shared_ptr<const QAdderConv> conv, const ConvShape& shape, int64_t x,
                       int64_t z, int64_t y);
  // Of uint8; `params` has as many channels in as out.
  void add_max_pool(const ConvParams& params, const ConvShape& shape, int64_t x, int64_t y);

  // What an array given to `run` as an input or output must hold.
  struct Port {
    int64_t size = 0;  // in elements
    ElementType type = ElementType::kFloat32;
  };

  int64_t arena_size(int threads) const;  // in floats
  size_t step_count() const { return steps_.size(); }
  const std::vector<Port>& inputs() const { return inputs_; }
  const std::vector<Port>& outputs() const { return outputs_; }

  // Where `seconds` is given, the time of each step, in the order in which they were added, is
  // stored there; of the time of passes on several threads each step gets its share. Once `stop` is
  // set the rest is left out: the arena can be used again, the outputs hold anything.
  void run(float* arena, const std::vector<const void*>& inputs,
           const std::vector<void*>& outputs, int threads, const StopFlag& stop,
           double* seconds = nullptr) const;

 private:
  enum class Kind { kNchwToNhwc, kNhwcToNchw, kAdderConv, kQAdderConv, kMaxPool };
  struct Step {
    Kind kind = Kind::kNchwToNhwc;
    int64_t batch = 0;
    int64_t port = 0;  // number of the input or output
    Conversion conversion{};
    ImageShape image{};
    std::shared_ptr<const AdderConv> conv;
    std::shared_ptr<const QAdderConv> qconv;
    ConvParams pool{};
    ConvShape shape{};
    int64_t x = 0, z = -1, y = 0;
  };
  struct Pass;
  class Tasks;

  int64_t slots(int threads) const;  // passes that the arena has room for
  Step make_step(Kind kind, int64_t batch) const;
  void reserve(int64_t offset, int64_t size);
  void reserve_conv(const ConvParams& params, const ConvShape& shape, Step& step, ElementType type);
  static void reserve_port(std::vector<Port>& ports, int64_t number, Port port);
  void run_wide(const Pass& pass, int threads, double* seconds) const;
  void run_narrow(const Pass& pass, double* seconds) const;

  int64_t batch_, pass_;
  std::vector<Step> steps_;
  int64_t pass_size_ = 0;  // in floats
  std::vector<Port> inputs_, outputs_;
};

}  // namespace adder_onnx
