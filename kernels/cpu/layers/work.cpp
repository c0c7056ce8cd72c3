#include "layers/work.h"

namespace adder_onnx {
namespace {

constexpr int64_t kMaxTaskBytes = 48 * 1024;
// Threads end together where there are several tasks for each, and a task has enough pixels for
// a few full tiles.
constexpr int64_t kTasksPerThread = 2;
constexpr int64_t kMinPixelsPerTask = 48;

}  // namespace

Work share_out_rows(const ConvShape& shape, int64_t blocks, int64_t bytes_per_row, int threads) {
  const int64_t rows = shape.batch * shape.out_h, pixels = rows * shape.out_w;
  if (pixels == 0) return {0, 0, 0, 1};
  Work work{};
  work.blocks = blocks;
  work.shares = 1;
  int64_t parts = std::min(rows, std::min(ceil_div(rows * bytes_per_row, kMaxTaskBytes),
                                          ceil_div(pixels, kMinPixelsPerTask)));
  if (threads > 1) {
    const int64_t wanted = kTasksPerThread * threads;
    parts = std::max(parts, std::min(wanted, ceil_div(pixels, kMinPixelsPerTask)));
    parts = std::min(parts, rows);
    work.shares = std::min(work.blocks, ceil_div(wanted, parts));
  }
  work.rows = ceil_div(rows, parts);
  work.tasks = ceil_div(rows, work.rows) * work.shares;
  return work;
}

}  // namespace adder_onnx
