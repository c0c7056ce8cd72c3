#include "chain/arenas.h"

#include <algorithm>
#include <new>
#include <utility>

namespace adder_onnx {
namespace {

constexpr size_t kMaxArenas = 8;
constexpr std::align_val_t kAlignment{64};

}  // namespace

int64_t Arenas::kept() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return static_cast<int64_t>(free_.size());
}

Arenas::Arena Arenas::take() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!free_.empty()) {
      Arena arena = std::move(free_.back());
      free_.pop_back();
      return arena;
    }
  }
  const auto size = static_cast<size_t>(std::max<int64_t>(bytes_, 1));
  return Arena(static_cast<float*>(::operator new(size, kAlignment)),
               [](float* at) { ::operator delete(at, kAlignment); });
}

void Arenas::give_back(Arena arena) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (free_.size() < kMaxArenas) free_.push_back(std::move(arena));
}

}  // namespace adder_onnx
