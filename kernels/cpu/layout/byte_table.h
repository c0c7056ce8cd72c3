// What each of 256 integers becomes.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

namespace adder_onnx {

// Where neighbours differ at few places, as they do in a table of few levels, what a value becomes is the
// first entry and the differences at the places up to it, added up modulo 256: sixteen values at once,
// by comparisons. Any other table is looked up value by value.
class ByteTable {
 public:
  static constexpr int64_t kSize = 256;
  static constexpr int64_t kAtOnce = 16;

  explicit ByteTable(const uint8_t* bytes) {
    std::memcpy(bytes_.data(), bytes, bytes_.size());
    for (int i = 1; i < kSize; ++i) {
      if (bytes_[i] == bytes_[i - 1]) continue;
      if (places_ < kMostPlaces) {
        at_[places_] = Register{} + static_cast<uint8_t>(i);
        by_[places_] = Register{} + static_cast<uint8_t>(bytes_[i] - bytes_[i - 1]);
      }
      ++places_;
    }
  }

  const std::array<uint8_t, kSize>& bytes() const { return bytes_; }

  // In place; `count` is at most kAtOnce.
  void look_up(uint8_t* values, int64_t count) const {
    if (count == kAtOnce && places_ <= kMostPlaces) return add_up(values);
    for (int64_t i = 0; i < count; ++i) values[i] = bytes_[values[i]];
  }

 private:
  typedef uint8_t Register __attribute__((vector_size(kAtOnce)));
  static constexpr int kMostPlaces = 15;

  void add_up(uint8_t* values) const {
    Register from, to = Register{} + bytes_[0];
    std::memcpy(&from, values, sizeof(from));
    for (int i = 0; i < places_; ++i) to += reinterpret_cast<Register>(from >= at_[i]) & by_[i];
    std::memcpy(values, &to, sizeof(to));
  }

  std::array<uint8_t, kSize> bytes_;
  int places_ = 0;  // where entries differ from the ones before
  Register at_[kMostPlaces]{}, by_[kMostPlaces]{};
};

}  // namespace adder_onnx
