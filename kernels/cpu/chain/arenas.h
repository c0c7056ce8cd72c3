// Memory for runs, kept from one to the next.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace adder_onnx {

// Blocks of one size, aligned to cache lines. As many are kept as have been in use at the same time, at
// most eight.
class Arenas {
 public:
  using Arena = std::unique_ptr<float[], void (*)(float*)>;

  explicit Arenas(int64_t bytes) : bytes_(bytes) {}

  int64_t bytes() const { return bytes_; }  // of each
  int64_t kept() const;                     // that nobody uses at the moment

  // Throws std::bad_alloc.
  Arena take();
  void give_back(Arena arena);

 private:
  const int64_t bytes_;
  mutable std::mutex mutex_;
  std::vector<Arena> free_;
};

}  // namespace adder_onnx
