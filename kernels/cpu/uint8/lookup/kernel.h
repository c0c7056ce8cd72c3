// uint8 adder convolution by table lookups, for inputs that take few values: what an instruction set's
// kernel is.
//
// Two neighbouring input channels, each one of few levels, make one index; a table for the two weights that
// they meet has |x0 - w0| + |x1 - w1| for each index. So one lookup and one byte addition make two taps
// of every pixel in a register. From each entry the least of its table is taken away, which a filter's
// borders (below) make up for: bytes then hold more of them before they must be added to wider sums.
//
// Indices. A level has a code of `code_bits` bits, the zero point's is 0; an index is code0 |
// code1 << code_bits. Indices lie in planes, one for each channel pair, with the pixels side by side.
//
// Tables. Weights are less than 16, so that two of them have one of 256 tables, which are few enough to stay
// in the first-level cache whatever the number of weights.
//
// Epilogue. Where the output has few levels, which of them it takes depends on the sum alone (and on the
// residual, where that is less than 16): it is counted how many of a filter's borders lie below the sum.
// Sums are 16-bit, less 32767, and saturate; no border that a sum can reach lies where they do. Of other
// outputs, and with other residuals, the sums are given, and none may saturate.
#pragma once

#include <cstdint>

namespace adder_onnx {

// Weights, residuals and outputs are less.
constexpr int kLookupValues = 16;

// Filters that a tile has at most.
constexpr int kLookupFilters = 6;

// Where the indices of a tile's pixels are.
struct LookupTaps {
  const uint8_t* const* planes;  // by kernel position: of the first pixel and channel pair
  const uint8_t* const* masks;   // by kernel position: null, or for each pixel 0 where its tap is padding,
                                 // else 255
  int64_t positions;
  int64_t pairs;
  int64_t pitch;  // from a pair's plane to the next
};

struct LookupFilters {
  const uint8_t* tables;
  const uint16_t* weights;  // [position][pair][filter]: offsets of tables
  const uint8_t* runs;      // so many pairs after each other add up to at most 255 for each filter; 0
                            // behind the last
  const int16_t* borders;   // [filter][border][kLookupValues, by the residual, or 1 without one]
  int64_t border_count;
  const uint8_t* values;  // [filter][kLookupValues]: the output, by the number of borders below the sum
};

// What a tile takes and gives, in planes, one for each filter, so many pixels apart as a tile has at most.
struct LookupPlanes {
  const uint8_t* z;  // residuals, or null
  uint8_t* y;        // outputs; or null, for
  int16_t* sums;     // sums: of each register those of pixels of even numbers, and then of odd ones
};

// What the parts of a layer take for an output pixel, in any unit: by sums of absolute differences, whose
// channels are counted in eights, and by lookups. Measured on one processor, for all of the kind.
struct LookupCosts {
  double difference;           // a tap
  double difference_output;    // an output
  double difference_residual;  // its residual
  double lookup;               // two taps
  double index;                // making the index of a pair of channels
  double output;               // an output of few levels
  double border;               // one of its borders, without a residual
  double residual_border;      // one of its borders, with a residual
  double sum;                  // an output by its sum
};

struct LookupKernel {
  int code_bits;      // a table has 4^code_bits bytes
  int64_t pixels;     // of a register
  int64_t registers;  // of pixels that a tile has at most

  LookupCosts costs;

  // A tile of so many filters and registers. All planes have whole registers.
  void (*run)(const LookupTaps& taps, const LookupFilters& filters, int64_t filter_count,
              int64_t register_count, const LookupPlanes& planes);

  // Index planes of an even number of channels of `count` pixels, at least one, that lie at `x`, channels
  // side by side; each pixel has whole sixteens of bytes. `codes` has one for each value below 16.
  // Planes are written in whole registers.
  void (*make_indices)(const uint8_t* const* x, int64_t count, int64_t channels,
                       const uint8_t* codes, uint8_t* planes, int64_t pitch);

  // Planes of `channels` channels from pixels `row` bytes apart, and back; channels in whole sixteens.
  void (*to_planes)(const uint8_t* x, int64_t row, int64_t count, int64_t channels, uint8_t* planes,
                    int64_t pitch);
  void (*to_pixels)(const uint8_t* planes, int64_t pitch, int64_t count, int64_t channels, uint8_t* y,
                    int64_t row);

  // Sums as planes of a tile have them, of so many registers and filters, to [pixel][filter], pixels `row`
  // elements apart; filters in whole eights.
  void (*to_sums)(const int16_t* planes, int64_t register_count, int64_t filter_count,
                  int16_t* sums, int64_t row);

  // The bare inner loop of a full tile, `times` times over: `pairs` of each filter and register. Returns a
  // sum, so that it is not idle.
  uint64_t (*inner_loop)(const LookupTaps& taps, const LookupFilters& filters, int64_t times);
};

extern const LookupKernel kLookupScalar;
#if defined(ADDER_ONNX_X86)
extern const LookupKernel kLookupAvx2;
extern const LookupKernel kLookupAvx512;
extern const LookupKernel kLookupAvx512Vbmi;
#elif defined(ADDER_ONNX_ARM64)
extern const LookupKernel kLookupNeon;
extern const LookupKernel kLookupNeonTables;
#endif

}  // namespace adder_onnx
