// A chain of layers with the conversions around it, for images of any size.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "chain/chain_program.h"
#include "chain/layer.h"

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

  // The sizes of all values, by number. Throws ShapeError; and std::invalid_argument, where weights are
  // computed.
  std::vector<ImageShape> infer_shapes(const std::vector<ImageShape>& entering) const;

  // The channels that an image must have which enters; -1 where any number will do.
  int64_t input_channels(size_t number) const;

  // The program for images of these sizes. `weights` are those that are computed, float32, in the order
  // of their layers. Plans for the sixteen combinations of sizes used last are kept, and where no weight
  // is computed the programs, too. Throws ShapeError, or std::invalid_argument for weights that
  // do not fit their layers, and for what Program refuses.
  std::shared_ptr<const ChainProgram> program(const std::vector<ImageShape>& entering, int threads,
                                              const Approve& approve = {},
                                              const std::vector<Operand>& weights = {}) const;

  // Those that are kept at the moment, the one used last at the end.
  std::vector<std::shared_ptr<const ChainPlan>> plans() const;

 private:
  using Layers = std::vector<ChainLayer>;  // with all weights
  struct Kept {
    std::shared_ptr<const ChainPlan> plan;
    std::shared_ptr<const ChainProgram> program;  // where no weight is computed
  };

  ElementType type_of(int64_t value) const;
  void check_weight_count(size_t count) const;
  Layers weighted(const std::vector<Operand>& weights) const;
  std::vector<ConvParams> computed_of(const Layers& layers) const;
  std::shared_ptr<const ChainProgram> program_of(const Layers& layers,
                                                 const std::vector<ImageShape>& entering,
                                                 int threads, const Approve& approve) const;
  std::optional<Kept> find(const std::vector<ImageShape>& entering, int threads,
                           const std::vector<ConvParams>& computed) const;
  ChainPlan make_plan(const Layers& layers, const std::vector<ImageShape>& entering,
                      int threads) const;
  std::shared_ptr<const ChainProgram> assemble(const Layers& layers,
                                               std::shared_ptr<const ChainPlan> plan) const;
  int64_t result_bytes(const ChainPlan& plan) const;
  std::vector<struct Buffer> lifetimes() const;

  std::vector<Conversion> entries_;
  std::vector<ChainLayer> layers_;
  std::vector<ChainPort> exits_;
  std::vector<size_t> computed_;  // numbers of the layers whose weights are computed
  mutable std::mutex mutex_;
  mutable std::vector<Kept> kept_;
};

}  // namespace adder_onnx
