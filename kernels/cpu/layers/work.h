// How a layer is shared out among threads, as tasks that may run in any order and at once.
#pragma once

#include <algorithm>

#include "layers/params.h"

namespace adder_onnx {

// From `first` up to `last`.
struct Range {
  int64_t first, last;
};

struct Work {
  int64_t tasks;
  int64_t rows;    // output rows of a task, numbered through the images
  int64_t blocks;  // of filters
  int64_t shares;  // of the filters: so many tasks have the same rows

  Range rows_of(int64_t task, const ConvShape& shape) const {
    const int64_t first = task / shares * rows;
    return {first, std::min(first + rows, shape.batch * shape.out_h)};
  }
  Range blocks_of(int64_t task) const {
    const int64_t share = task % shares;
    return {share * blocks / shares, (share + 1) * blocks / shares};
  }
};

// `bytes_per_row` is what one output row reads and writes. What a task reads and writes stays in
// the cache while all filters pass by, and there is a number of tasks for every thread.
Work share_out_rows(const ConvShape& shape, int64_t blocks, int64_t bytes_per_row, int threads);

}  // namespace adder_onnx
