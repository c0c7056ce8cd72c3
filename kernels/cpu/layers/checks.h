// What must hold of sizes before memory is taken, read or written by them. All checks
// throw std::invalid_argument where it does not.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <vector>

#include "layers/params.h"

namespace adder_onnx {

// The most that a tensor, or what kernels compute from its sizes, may have of bytes: a few of them
// added up, or times the number of threads, stay in an int64_t.
constexpr int64_t kMaxSize = int64_t{1} << 56;

// The product of sizes. None may be negative, and that of all but the zeros is at most kMaxSize: so is
// that of any of them.
int64_t checked_product(std::initializer_list<int64_t> sizes);

// The elements of an array of a shape, as checked_product has it.
int64_t element_count(const std::vector<int64_t>& shape);

// The sum of two sizes: neither is negative, and it is at most kMaxSize.
int64_t checked_sum(int64_t a, int64_t b);

// The number of channels that so many are padded to.
int64_t checked_channels(int64_t channels);

// Of a convolution or pooling: at least one group, which divides channels and filters, at least one
// kernel position, strides and dilations of at least 1.
void check_params(const ConvParams& params);

// As check_params, and at least one channel; returns `params`. There may be no filters.
ConvParams checked_conv(const ConvParams& params);

// `params` must have passed check_params. No size or pad is negative, and the output has no fewer
// pixels than it has without padding at the end; what it has more is such padding. Input and output
// are images that check_image (layout/layout.h) takes.
void check_shape(const ConvParams& params, const ConvShape& shape);

// Some bytes that a caller gives.
struct Memory {
  const void* at;
  int64_t bytes;
};

// Whether they have a byte in common.
bool overlap(const Memory& a, const Memory& b);

}  // namespace adder_onnx
