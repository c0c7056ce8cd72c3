// The lookup kernel for any processor, one pixel at a time.
#include <algorithm>

#include "uint8/lookup/kernel.h"

namespace adder_onnx {
namespace {

constexpr int kCodeBits = 3;
constexpr int64_t kPixels = 8;

void run(const LookupTaps& taps, const LookupFilters& filters, int64_t filter_count,
         int64_t, const LookupPlanes& planes) {
  const int64_t residuals = planes.z == nullptr ? 1 : kLookupValues;
  for (int64_t f = 0; f < filter_count; ++f)
    for (int64_t i = 0; i < kPixels; ++i) {  // a tile is one register
      int64_t sum = -32767;
      for (int64_t p = 0; p < taps.positions; ++p)
        for (int64_t g = 0; g < taps.pairs; ++g) {
          const bool is_tap = taps.masks[p] == nullptr || taps.masks[p][i] != 0;
          const uint8_t index = is_tap ? taps.planes[p][g * taps.pitch + i] : 0;
          sum += filters.tables[filters.weights[(p * taps.pairs + g) * filter_count + f] + index];
        }
      const int64_t at = f * kPixels + i;
      if (planes.y == nullptr) {
        const int64_t place = i / 2 + (i % 2 == 0 ? 0 : kPixels / 2);
        planes.sums[f * kPixels + place] = static_cast<int16_t>(sum);
        continue;
      }
      const int64_t z = planes.z == nullptr ? 0 : planes.z[at];
      int64_t count = 0;
      for (int64_t b = 0; b < filters.border_count; ++b)
        count += filters.borders[(f * filters.border_count + b) * residuals + z] <
                 std::min<int64_t>(sum, 32767);
      planes.y[at] = filters.values[f * kLookupValues + count];
    }
}

void make_indices(const uint8_t* const* x, int64_t count, int64_t channels, const uint8_t* codes,
                  uint8_t* planes, int64_t pitch) {
  for (int64_t c = 0; c < channels; c += 2)
    for (int64_t i = 0; i < count; ++i)
      planes[c / 2 * pitch + i] = static_cast<uint8_t>(codes[x[i][c] % kLookupValues] |
                                                       codes[x[i][c + 1] % kLookupValues] << kCodeBits);
}

void to_planes(const uint8_t* x, int64_t row, int64_t count, int64_t channels, uint8_t* planes,
               int64_t pitch) {
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t i = 0; i < count; ++i) planes[c * pitch + i] = x[i * row + c];
}

void to_pixels(const uint8_t* planes, int64_t pitch, int64_t count, int64_t channels, uint8_t* y,
               int64_t row) {
  for (int64_t i = 0; i < count; ++i)
    for (int64_t c = 0; c < channels; ++c) y[i * row + c] = planes[c * pitch + i];
}

void to_sums(const int16_t* planes, int64_t, int64_t filter_count, int16_t* sums, int64_t row) {
  for (int64_t f = 0; f < filter_count; ++f)
    for (int64_t i = 0; i < kPixels; ++i)
      sums[i * row + f] = planes[f * kPixels + i / 2 + (i % 2 == 0 ? 0 : kPixels / 2)];
}

uint64_t inner_loop(const LookupTaps& taps, const LookupFilters& filters, int64_t times) {
  uint64_t sum = 0;
  for (int64_t t = 0; t < times; ++t) {
    for (int64_t g = 0; g < taps.pairs; ++g)
      for (int64_t f = 0; f < kLookupFilters; ++f)
        for (int64_t i = 0; i < kPixels; ++i)
          sum += filters.tables[filters.weights[g * kLookupFilters + f] +
                                taps.planes[0][g * taps.pitch + i]];
    __asm__ volatile("" : : : "memory");  // or the sum would be made once
  }
  return sum;
}

}  // namespace

// It has no vectors to gain from, and is only used where asked for.
const LookupKernel kLookupScalar = {
    kCodeBits, kPixels, 1, {1, 0, 0, 10, 0, 0, 0, 0, 0}, run, make_indices, to_planes, to_pixels,
    to_sums,   inner_loop};

}  // namespace adder_onnx
