// Files of chains, as adder-compile writes them.
//
// All numbers are little-endian. "ADDERCH1"; the numbers of integers, of floats and of operands, int64
// each; the integers, int64, and the floats, float32, of chain/description.h, with zeros up to a
// multiple of eight bytes; and for each operand its type (0: float32, 2: uint8), its rank and its
// dimensions, int64 each, and its elements in C order, with zeros up to a multiple of eight bytes.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "chain/chain.h"

namespace adder_onnx {

// Throws std::invalid_argument where the bytes are no such file, and std::runtime_error where one cannot
// be read.
std::shared_ptr<const Chain> read_chain_file(const void* bytes, size_t size);
std::shared_ptr<const Chain> read_chain_file(const std::string& path);

}  // namespace adder_onnx
