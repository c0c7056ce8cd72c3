// Running a chain on tensors of onnxruntime's.
#pragma once

#include "chain/chain.h"
#include "onnxruntime/api.h"

namespace adder_onnx {

// Images are the first inputs of the call, or those given; outputs are the call's.
void run_chain(const Chain& chain, const Call& call);
void run_chain(const Chain& chain, const Call& call, const std::vector<OrtTensor>& images);

}  // namespace adder_onnx
