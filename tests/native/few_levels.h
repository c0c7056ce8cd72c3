// Levels of outputs, and what becomes of a value by the definition of QLinearAdderConv.
#pragma once

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "uint8/qadder_conv.h"

// 2 to 16 of the integers from 0 to `top`, in order.
inline std::vector<uint8_t> some_levels(std::mt19937& random, int32_t top) {
  std::vector<uint8_t> all(static_cast<size_t>(top) + 1);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint8_t>(i);
  std::shuffle(all.begin(), all.end(), random);
  all.resize(std::min<size_t>(all.size(), 2 + random() % 15));
  std::sort(all.begin(), all.end());
  return all;
}

// What is no number becomes the lower bound, or the first level.
inline uint8_t requantized(float v, const adder_onnx::Q8Activation& a) {
  const float q = (v > a.clip_min ? v : a.clip_min) / a.y_scale;
  if (std::isnan(v) && !a.levels.empty()) return a.levels[0];
  if (a.levels.empty()) {
    const float moved = std::nearbyint(q) + static_cast<float>(a.y_zero_point);
    return static_cast<uint8_t>(std::min(std::max(moved, 0.0f), static_cast<float>(a.top)));
  }
  uint8_t level = a.levels[0];
  for (size_t i = 1; i < a.levels.size(); ++i) {
    const float middle = static_cast<float>(a.levels[i - 1] + a.levels[i]) / 2;
    if (q > middle - static_cast<float>(a.y_zero_point)) level = a.levels[i];
  }
  return level;
}
