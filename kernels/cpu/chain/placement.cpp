#include "chain/placement.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <queue>
#include <set>
#include <tuple>
#include <utility>

#include "layers/checks.h"

namespace adder_onnx {
namespace {

constexpr size_t kMostCompared = 2000;  // each with each, which takes some milliseconds

int64_t aligned(int64_t size) {
  return ceil_div(size, kBufferAlignment) * kBufferAlignment;
}

template <typename Key>
std::vector<size_t> order_by(size_t count, const Key& key) {
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return key(a) < key(b); });
  return order;
}

Placement place_by_size(const std::vector<Buffer>& buffers) {
  Placement placement;
  placement.offsets.assign(buffers.size(), 0);
  std::vector<size_t> placed;
  std::vector<std::pair<int64_t, int64_t>> others;  // where those in use at the same time lie
  for (size_t i : order_by(buffers.size(), [&](size_t b) { return -buffers[b].size; })) {
    const Buffer& buffer = buffers[i];
    others.clear();
    for (size_t j : placed)
      if (buffers[j].first <= buffer.last && buffer.first <= buffers[j].last)
        others.emplace_back(placement.offsets[j], placement.offsets[j] + buffers[j].size);
    std::sort(others.begin(), others.end());
    int64_t best_gap = -1, best = 0, end = 0;
    for (const auto& [start, stop] : others) {
      const int64_t gap = start - end;
      if (gap >= buffer.size && (best_gap < 0 || gap < best_gap)) {
        best_gap = gap;
        best = end;
      }
      end = std::max(end, aligned(stop));
    }
    placement.offsets[i] = best_gap < 0 ? end : best;
    placement.size = std::max(placement.size, placement.offsets[i] + buffer.size);
    placed.push_back(i);
  }
  return placement;
}

// The free parts of the block, none beside another.
class Gaps {
 public:
  int64_t end() const { return end_; }  // where the block ends, so far

  // The offset of the smallest gap of at least a size, which is filled; else of a new one.
  int64_t take(int64_t size) {
    const auto found = by_size_.lower_bound({size, 0});
    if (found == by_size_.end()) {
      int64_t start = end_;
      if (!by_start_.empty() && by_start_.rbegin()->second == end_) {
        start = by_start_.rbegin()->first;  // what is free at the end grows
        remove(start);
      }
      end_ = start + size;
      return start;
    }
    const auto [gap, offset] = *found;
    remove(offset);
    if (gap > size) add(offset + size, offset + gap);
    return offset;
  }

  // Makes a gap of what was taken.
  void give(int64_t start, int64_t size) {
    if (size == 0) return;
    int64_t end = start + size;
    const auto behind = by_start_.lower_bound(start);
    if (behind != by_start_.begin() && std::prev(behind)->second == start)
      start = std::prev(behind)->first;
    if (behind != by_start_.end() && behind->first == end) {
      end = behind->second;
      remove(behind->first);
    }
    if (by_start_.count(start) != 0) remove(start);
    add(start, end);
  }

 private:
  void add(int64_t start, int64_t end) {
    by_size_.emplace(end - start, start);
    by_start_[start] = end;
  }
  void remove(int64_t start) {
    const auto found = by_start_.find(start);
    by_size_.erase({found->second - start, start});
    by_start_.erase(found);
  }

  int64_t end_ = 0;
  std::set<std::pair<int64_t, int64_t>> by_size_;  // size, start
  std::map<int64_t, int64_t> by_start_;            // start, end
};

Placement place_in_order(const std::vector<Buffer>& buffers) {
  Placement placement;
  placement.offsets.assign(buffers.size(), 0);
  Gaps gaps;
  using InUse = std::tuple<int64_t, int64_t, int64_t>;  // last step, offset, size
  std::priority_queue<InUse, std::vector<InUse>, std::greater<InUse>> in_use;
  for (size_t i : order_by(buffers.size(), [&](size_t b) { return buffers[b].first; })) {
    while (!in_use.empty() && std::get<0>(in_use.top()) < buffers[i].first) {
      gaps.give(std::get<1>(in_use.top()), std::get<2>(in_use.top()));
      in_use.pop();
    }
    const int64_t size = aligned(buffers[i].size);
    placement.offsets[i] = gaps.take(size);
    in_use.emplace(buffers[i].last, placement.offsets[i], size);
  }
  placement.size = gaps.end();
  return placement;
}

}  // namespace

Placement place_buffers(const std::vector<Buffer>& buffers) {
  int64_t all = 0;
  for (const Buffer& buffer : buffers)
    all = checked_sum(all, checked_sum(buffer.size, kBufferAlignment));
  return buffers.size() > kMostCompared ? place_in_order(buffers) : place_by_size(buffers);
}

}  // namespace adder_onnx
