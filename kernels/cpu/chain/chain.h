// A chain of layers with the conversions around it, for images of any size.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "chain/geometry.h"
#include "program/program.h"

namespace adder_onnx {

// Images do not fit a layer; the message names it.
class ShapeError : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

// Values are numbered: what enters, in order, and then what each layer gives.
struct ChainPort {
  Conversion conversion;
  int64_t value;  // that leaves; of what enters it is the port's own number
};

// A convolution, float32 or quantized, or else a MaxPool of uint8.
struct ChainLayer {
  std::string label;  // for messages
  std::shared_ptr<const AdderConv> conv;
  std::shared_ptr<const QAdderConv> qconv;
  ConvParams params;  // of a pooling without channels, which are those of its input
  Padding padding;
  int64_t x;
  int64_t z;  // the residual; negative: none

  bool is_pool() const { return conv == nullptr && qconv == nullptr; }
  ElementType type() const { return conv ? ElementType::kFloat32 : ElementType::kUint8; }
};

// A chain made for images of fixed sizes, and for a number of threads. It may be run by several
// threads at once, each with an arena, of which as many are kept as have run at the same time.
class ChainProgram {
 public:
  ChainProgram(Program program, std::vector<ImageShape> inputs, int threads);

  const std::vector<ImageShape>& inputs() const { return inputs_; }
  const std::vector<Program::Port>& outputs() const { return program_.outputs(); }
  size_t step_count() const { return program_.step_count(); }
  int threads() const { return threads_; }
  int64_t arena_bytes() const;
  int64_t arenas() const;  // that are kept at the moment
  // A bound on what a run takes, its outputs left aside.
  int64_t run_bytes() const;

  // As Program::run, with an arena of its own. `workers` are no more than `threads`.
  void run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs,
           const Workers& workers, double* seconds = nullptr,
           const StopFlag& stop = StopFlag::never()) const;

 private:
  using Arena = std::unique_ptr<float[], void (*)(float*)>;
  Arena take_arena() const;

  Program program_;
  std::vector<ImageShape> inputs_;
  int threads_;
  mutable std::mutex mutex_;
  mutable std::vector<Arena> free_;
};

class Chain {
 public:
  // May throw, to refuse the bytes that a run would take, before they are taken.
  using Approve = std::function<void(int64_t bytes)>;

  // Throws std::invalid_argument: a layer takes a value that is not there yet, or not of its type.
  Chain(std::vector<Conversion> entries, std::vector<ChainLayer> layers,
        std::vector<ChainPort> exits);

  const std::vector<Conversion>& entries() const { return entries_; }
  const std::vector<ChainLayer>& layers() const { return layers_; }
  const std::vector<ChainPort>& exits() const { return exits_; }

  // The sizes of all values, by number. Throws ShapeError.
  std::vector<ImageShape> infer_shapes(const std::vector<ImageShape>& entering) const;

  // The program for images of these sizes: kept from before, or made. Those for the sixteen
  // combinations used last are kept. Throws ShapeError, or std::invalid_argument for what Program
  // refuses.
  std::shared_ptr<const ChainProgram> program(const std::vector<ImageShape>& entering, int threads,
                                              const Approve& approve = {}) const;

  // Those that are kept at the moment, the one used last at the end.
  std::vector<std::shared_ptr<const ChainProgram>> programs() const;

 private:
  ElementType type_of(int64_t value) const;
  std::shared_ptr<const ChainProgram> make(const std::vector<ImageShape>& entering, int threads,
                                           const Approve& approve) const;
  std::vector<struct Buffer> lifetimes() const;

  std::vector<Conversion> entries_;
  std::vector<ChainLayer> layers_;
  std::vector<ChainPort> exits_;
  mutable std::mutex mutex_;
  mutable std::vector<std::shared_ptr<const ChainProgram>> kept_;
};

}  // namespace adder_onnx
