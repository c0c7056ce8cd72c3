// A sequence of kernels for fixed shapes over one block of memory, executed in one call.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "float32/adder_conv.h"
#include "layout/layout.h"
#include "threads/stop_flag.h"
#include "threads/workers.h"
#include "program/tensors.h"
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
// Whatever is added is checked, once, so that no run reads or writes where it must not:
//
//   * sizes, pads, strides and dilations are valid and not too large (layers/checks.h, layout.h), and
//     channels are those of the convolution;
//   * offsets are not negative; the output of a step overlaps no input of it, but may be where its
//     residual is;
//   * what a step reads is a tensor that a step before it has written there, of the same shape and
//     type, or in a program of one pass the caller's own, where no step has written;
//   * a step has the program's batch, or in a program of one pass a smaller one.
//
// A program runs on several threads at once, with an arena each. Once it has been run, or closed,
// nothing can be added.
class Program {
 public:
  // Steps hold `batch` images, of which a pass takes `pass`: offsets are planned for so many. A wide
  // pass of up to `pass` times the number of threads finds room in the memory of all passes.
  // Throws std::invalid_argument: `batch` is negative, or `pass` not positive.
  Program(int64_t batch, int64_t pass);

  // These throw std::invalid_argument where something of the above does not hold, and add nothing
  // then. Inputs are numbered in the order in which they are added, and so are outputs.
  void add_nchw_to_nhwc(int64_t input, const Conversion& conversion, const ImageShape& shape,
                        int64_t to);
  void add_nhwc_to_nchw(int64_t from, const ImageShape& shape, int64_t output,
                        const Conversion& conversion);
  // z < 0: no residual.
  void add_adder_conv(std::shared_ptr<const AdderConv> conv, const ConvShape& shape, int64_t x,
                      int64_t z, int64_t y);
  void add_qadder_conv(std::shared_ptr<const QAdderConv> conv, const ConvShape& shape, int64_t x,
                       int64_t z, int64_t y);
  // Of uint8; `params` has as many channels in as out, and one group.
  void add_max_pool(const ConvParams& params, const ConvShape& shape, int64_t x, int64_t y);

  // From here on nothing can be added. Running a program closes it, too.
  void close() const { is_closed_.set(); }

  // What an array given to `run` as an input or output must hold.
  struct Port {
    ImageShape shape{};
    ElementType type = ElementType::kFloat32;

    int64_t bytes() const { return shape.nchw_size() * size_of(type); }
  };

  // In floats. Throws std::invalid_argument: there is not one thread at least.
  int64_t arena_size(int threads) const;
  // A bound on the bytes that a run takes beside that: mostly for rows of inputs that are copied with
  // their padding, which is large where pads or dilations are.
  int64_t scratch_size(int threads) const;
  size_t step_count() const { return steps_.size(); }
  const std::vector<Port>& inputs() const { return inputs_; }
  const std::vector<Port>& outputs() const { return outputs_; }

  // `arena` has arena_size(workers.count()) floats at least; inputs and outputs are as their ports say. Where
  // an input is not aligned to its elements, or an output shares memory with anything else, it throws
  // std::invalid_argument; and std::bad_alloc where threads find no memory for rows that they copy.
  //
  // Where `seconds` is given, the time of each step, in the order in which they were added, is
  // stored there; of the time of passes on several threads each step gets its share. Once `stop` is
  // set the rest is left out: the arena can be used again, the outputs hold anything.
  void run(float* arena, const std::vector<const void*>& inputs,
           const std::vector<void*>& outputs, const Workers& workers, double* seconds = nullptr,
           const StopFlag& stop = StopFlag::never()) const;

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
    bool is_empty = false;  // it gives nothing
  };
  // Set once, by whoever comes; a copy is not.
  class Mark {
   public:
    Mark() = default;
    Mark(const Mark&) {}
    Mark& operator=(const Mark&) { return *this; }
    void set() { is_set_.store(true, std::memory_order_relaxed); }
    bool is_set() const { return is_set_.load(std::memory_order_relaxed); }

   private:
    std::atomic<bool> is_set_{false};
  };
  struct Pass;
  class Tasks;

  int64_t slots(int threads) const;  // passes that the arena has room for
  bool is_one_pass() const { return batch_ <= pass_; }
  Step make_step(Kind kind, int64_t batch) const;
  Tensor make_tensor(int64_t offset, ImageShape shape, ElementType type) const;
  void add_conv(Step step, const ConvParams& params, const ConvShape& shape, ElementType type);
  void check_run(const float* arena, const std::vector<const void*>& inputs,
                 const std::vector<void*>& outputs, int threads) const;
  void run_wide(const Pass& pass, const Workers& workers, double* seconds) const;
  void run_narrow(const Pass& pass, double* seconds) const;

  int64_t batch_, pass_;
  std::vector<Step> steps_;
  Tensors tensors_;
  std::vector<Port> inputs_, outputs_;
  mutable Mark is_closed_;
};

}  // namespace adder_onnx
