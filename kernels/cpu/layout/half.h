// IEEE 754 binary16 to and from float32, in portable integer arithmetic.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace adder_onnx {

struct Half {
  uint16_t bits;
};

inline float to_float(float value) { return value; }

inline float to_float(Half half) {
  const uint32_t sign = static_cast<uint32_t>(half.bits & 0x8000) << 16;
  const uint32_t exponent = (half.bits >> 10) & 31, mantissa = half.bits & 0x3ff;
  uint32_t bits;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24, exact in float32
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    std::memcpy(&bits, &magnitude, sizeof(bits));
  } else if (exponent == 31) {  // infinity or NaN
    bits = 0x7f800000 | mantissa << 13;
  } else {  // the exponents' biases differ by 112
    bits = (exponent + 112) << 23 | mantissa << 13;
  }
  bits |= sign;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

inline void from_float(float value, float& to) { to = value; }

// Rounds to nearest, ties to even; what is beyond the largest half becomes infinite.
inline void from_float(float value, Half& to) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  uint32_t half;
  if (magnitude > 0x7f800000) {
    half = 0x7e00;                       // NaN
  } else if (magnitude >= 0x477ff000) {  // 65520, half way beyond the largest half
    half = 0x7c00;
  } else if (magnitude < 0x38800000) {  // below 2^-14: a multiple of 2^-24
    half = static_cast<uint32_t>(std::lrintf(std::fabs(value) * 0x1p24f));
  } else {
    half = (magnitude + 0xfff + (magnitude >> 13 & 1) - (112u << 23)) >> 13;
  }
  to.bits = static_cast<uint16_t>(sign | half);
}

}  // namespace adder_onnx
