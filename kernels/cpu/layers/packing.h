// How constants of a layer are packed for kernels that compute blocks of filters, and for depthwise
// ones.
#pragma once

#include <algorithm>
#include <vector>

#include "layers/aligned.h"
#include "layers/params.h"

namespace adder_onnx {

struct FilterBlock {
  int64_t number;  // among the blocks of all groups
  int64_t group;
  int64_t first;  // filter, among those of the group
  int64_t count;  // filters, at most as many as a whole block has
};

// The filters of each group cut into blocks. A last one is packed as half a block where that suffices.
class FilterBlocks {
 public:
  FilterBlocks(const ConvParams& a, int64_t size)
      : groups_(a.group), group_out_(a.group_out()), size_(size) {}

  int64_t count() const { return groups_ * per_group(); }

  FilterBlock at(int64_t number) const {
    const int64_t group = number / per_group(), first = number % per_group() * size_;
    return {number, group, first, std::min(size_, group_out_ - first)};
  }

  int64_t half() const { return std::max<int64_t>(size_ / 2, 1); }  // filters of half a block

  // Filters that a block is packed with, that those before it are, and that all are.
  int64_t lanes(const FilterBlock& block) const { return block.count > half() ? size_ : half(); }
  int64_t lanes_before(const FilterBlock& block) const {
    return block.group * ceil_div(group_out_, half()) * half() + block.first;
  }
  int64_t all_lanes() const { return groups_ * ceil_div(group_out_, half()) * half(); }

  // value(m) of each filter m, to [block][filter of a whole block].
  template <typename T, typename F>
  std::vector<T> pack(const F& value) const {
    std::vector<T> packed(count() * size_);
    for (int64_t m = 0; m < groups_ * group_out_; ++m)
      packed[m / group_out_ * per_group() * size_ + m % group_out_] = value(m);
    return packed;
  }

 private:
  int64_t per_group() const { return ceil_div(group_out_, size_); }

  int64_t groups_, group_out_, size_;
};

inline bool is_depthwise(const ConvParams& a) { return a.group_in() == 1 && a.group_out() == 1; }

// (M, 1, kH, kW) to [kernel position][padded channels].
template <typename T>
AlignedVector<T> pack_depthwise_weights(const ConvParams& a, const T* w) {
  const int64_t row = padded_channels(a.in_channels), size = a.kernel_size();
  AlignedVector<T> packed(size * row);
  for (int64_t m = 0; m < a.out_channels; ++m)
    for (int64_t k = 0; k < size; ++k) packed[k * row + m] = w[m * size + k];
  return packed;
}

// value(m) of each channel m, to [padded channel].
template <typename T, typename F>
std::vector<T> pack_depthwise(const ConvParams& a, const F& value) {
  std::vector<T> packed(padded_channels(a.out_channels));
  for (int64_t m = 0; m < a.out_channels; ++m) packed[m] = value(m);
  return packed;
}

}  // namespace adder_onnx
