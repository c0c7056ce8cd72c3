// Placing buffers in one block of memory by the time they are in use.
#pragma once

#include <cstdint>
#include <vector>

namespace adder_onnx {

// In use from step `first` to step `last`, both included; size in elements.
struct Buffer {
  int64_t size;
  int64_t first, last;
};

struct Placement {
  std::vector<int64_t> offsets;  // of each buffer, multiples of kBufferAlignment elements
  int64_t size = 0;              // of the block
};

constexpr int64_t kBufferAlignment = 16;  // 64 bytes of float32, a cache line

// No two buffers in use at the same time overlap.
//
// Greedy by size (Pisarchyk & Lee, Efficient Memory Management for Deep Neural Net Inference, 2020,
// section 5.2): the largest first, each into the smallest gap that it fits in between those placed
// before which are in use at the same time, else behind them. Of more than two thousand buffers each
// is placed when it comes into use, in the smallest free gap that it fits.
//
// Throws std::invalid_argument: a size is negative, or all are too large together.
Placement place_buffers(const std::vector<Buffer>& buffers);

}  // namespace adder_onnx
