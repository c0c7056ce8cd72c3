// The operators of the library: those of the domain ai.addernet, and chains of them.
#pragma once

#include <vector>

#include "onnxruntime/custom_op.h"

namespace adder_onnx {

// AdderConv in all types of its schema, and QLinearAdderConv.
void add_layer_ops(std::vector<CustomOp>* ops);

// AdderChain0, AdderChain1, …: the chains of compiled files. Each chain of a file has a name of its own,
// for its function body.
void add_chain_ops(std::vector<CustomOp>* ops);

}  // namespace adder_onnx
