// Choices read from bytes, so that a fuzzer that changes the bytes changes the choices. Where the
// bytes end, every choice is the first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace fuzz {

class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), end_(data + size) {}

  uint64_t take(int count) {
    uint64_t value = 0;
    for (int i = 0; i < count && data_ < end_; ++i) value = value << 8 | *data_++;
    return value;
  }
  // In [first, last], which are no more than 2^32 apart.
  int64_t from(int64_t first, int64_t last) {
    const int64_t count = last - first + 1;
    return first + static_cast<int64_t>(take(count <= 256 ? 1 : 4) % static_cast<uint64_t>(count));
  }
  template <typename T>
  T pick(std::initializer_list<T> values) {
    return values.begin()[from(0, static_cast<int64_t>(values.size()) - 1)];
  }
  template <typename T>
  const T& pick(const std::vector<T>& values) {
    return values[from(0, static_cast<int64_t>(values.size()) - 1)];
  }
  bool chance(int percent) { return from(0, 99) >= 100 - percent; }
  // Random numbers, for what need not be changed one by one.
  std::mt19937 random() { return std::mt19937(static_cast<uint32_t>(take(4))); }

 private:
  const uint8_t* data_;
  const uint8_t* end_;
};

// Ends the process: a fuzzer's way to say that something is wrong.
[[noreturn]] inline void fail(const std::string& what) {
  std::fprintf(stderr, "WRONG: %s\n", what.c_str());
  std::abort();
}

// One case each. What is wrong ends the process.
void try_program(Bytes& bytes);  // valid programs, against their definition
void try_hostile_program(Bytes& bytes);
void try_hostile_conv(Bytes& bytes);
void try_gradient(Bytes& bytes);
void try_chain(Bytes& bytes);
void try_roundings(Bytes& bytes);

// Calls `f`; whether it did not refuse.
template <typename F>
bool takes(const F& f) {
  try {
    f();
    return true;
  } catch (const std::invalid_argument&) {
    return false;
  }
}

}  // namespace fuzz
