#include "chain/chain_program.h"

#include <utility>

namespace adder_onnx {

ChainProgram::ChainProgram(std::shared_ptr<const ChainPlan> plan, Program program)
    : plan_(std::move(plan)), program_(std::move(program)) {
  program_.close();
}

int64_t ChainProgram::run_bytes() const {
  return plan_->arenas->bytes() + program_.scratch_size(threads());
}

void ChainProgram::run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs,
                       const Workers& workers, double* seconds, const StopFlag& stop) const {
  Arenas::Arena arena = plan_->arenas->take();
  program_.run(arena.get(), inputs, outputs, FewerWorkers(workers, threads()), seconds, stop);
  plan_->arenas->give_back(std::move(arena));
}

}  // namespace adder_onnx
