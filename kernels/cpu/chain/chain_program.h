// A chain made for images of fixed sizes.
#pragma once

#include <memory>
#include <vector>

#include "chain/arenas.h"
#include "chain/passes.h"
#include "program/program.h"

namespace adder_onnx {

// What holds for images and computed weights of fixed sizes, and for a number of threads, whatever the
// weights are.
struct ChainPlan {
  std::vector<ImageShape> inputs;
  int threads;
  std::vector<ConvParams> computed;  // of the convolutions whose weights are computed, in their order
  std::vector<ImageShape> shapes;    // of all values, by number
  Passes passes;
  std::vector<int64_t> offsets;  // of all values, in floats
  std::shared_ptr<Arenas> arenas;
};

// A plan with its layers. It may be run by several threads at once, each with an arena of the plan's.
class ChainProgram {
 public:
  ChainProgram(std::shared_ptr<const ChainPlan> plan, Program program);

  const std::vector<ImageShape>& inputs() const { return plan_->inputs; }
  const std::vector<Program::Port>& outputs() const { return program_.outputs(); }
  size_t step_count() const { return program_.step_count(); }
  int threads() const { return plan_->threads; }
  // A bound on what a run takes, its outputs left aside.
  int64_t run_bytes() const;

  // As Program::run, with an arena of its own. `workers` are no more than `threads`.
  void run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs,
           const Workers& workers, double* seconds = nullptr,
           const StopFlag& stop = StopFlag::never()) const;

 private:
  std::shared_ptr<const ChainPlan> plan_;
  Program program_;
};

}  // namespace adder_onnx
