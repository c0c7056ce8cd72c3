#include "uint8/few_levels.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <stdexcept>

namespace adder_onnx {
namespace {

constexpr size_t kFewest = 2, kMost = 16;

// All floats but NaN in their order, without -0: from -kInfinity to kInfinity.
constexpr int32_t kInfinity = 0x7f800000;

float float_at(int32_t place) {
  const int32_t bits = place < 0 ? -place : place;
  float v;
  std::memcpy(&v, &bits, sizeof v);
  return place < 0 ? -v : v;
}

// The least v of which the quotient, rounded, is above `border`; that of infinity is.
float least_above(float border, float y_scale) {
  int64_t below = -int64_t{kInfinity}, above = kInfinity;
  while (above - below > 1) {
    const int64_t middle = below + (above - below) / 2;
    (float_at(static_cast<int32_t>(middle)) / y_scale > border ? above : below) = middle;
  }
  return float_at(static_cast<int32_t>(above));
}

void check_levels(const std::vector<uint8_t>& levels, int32_t top) {
  const bool rise =
      std::adjacent_find(levels.begin(), levels.end(), std::greater_equal<>()) == levels.end();
  if (levels.size() < kFewest || levels.size() > kMost || !rise || levels.back() > top)
    throw std::invalid_argument(
        "levels must be 2 to 16 integers that rise, and no more than the largest integer");
}

}  // namespace

Q8Levels make_levels(const std::vector<uint8_t>& levels, float y_scale, int32_t y_zero_point,
                     float clip_min, int32_t top) {
  Q8Levels made{};
  if (levels.empty()) return made;
  check_levels(levels, top);
  made.borders = static_cast<int32_t>(levels.size()) - 1;
  std::copy(levels.begin(), levels.end(), made.level);
  for (int32_t i = 0; i < made.borders; ++i) {
    const float middle = static_cast<float>(levels[i] + levels[i + 1]) / 2;
    const float border = middle - static_cast<float>(y_zero_point);
    made.border[i] = clip_min / y_scale > border ? -std::numeric_limits<float>::infinity()
                                                 : least_above(border, y_scale);
  }
  return made;
}

}  // namespace adder_onnx
