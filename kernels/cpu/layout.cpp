#include "layout.h"

#include <algorithm>

#include "half.h"
#include "thread_pool.h"

namespace adder_onnx {
namespace {

constexpr int64_t kStripe = 64;  // pixels of one task and of one cache-resident transposition

// Calls stripe(n, first pixel, last pixel) for all images in stripes.
template <typename F>
void for_stripes(const ImageShape& s, int threads, const F& stripe) {
  const int64_t pixels = s.height * s.width;
  const int64_t stripes = ceil_div(pixels, kStripe);
  parallel_for(s.batch * stripes, threads, [&](int64_t task) {
    const int64_t first = task % stripes * kStripe;
    stripe(task / stripes, first, std::min(first + kStripe, pixels));
  });
}

template <typename T>
void pack(const ImageShape& s, const T* nchw, float* nhwc, int threads) {
  const int64_t pixels = s.height * s.width, row = padded_channels(s.channels);
  for_stripes(s, threads, [&](int64_t n, int64_t first, int64_t last) {
    const T* from = nchw + n * s.channels * pixels;
    float* to = nhwc + n * pixels * row;
    for (int64_t c = 0; c < s.channels; c += kChannelAlignment) {
      const int64_t stop = std::min(c + kChannelAlignment, s.channels);
      for (int64_t p = first; p < last; ++p) {
        for (int64_t i = c; i < stop; ++i) to[p * row + i] = to_float(from[i * pixels + p]);
        for (int64_t i = stop; i < c + kChannelAlignment; ++i) to[p * row + i] = 0.0f;
      }
    }
  });
}

template <typename T>
void unpack(const ImageShape& s, const float* nhwc, T* nchw, int threads) {
  const int64_t pixels = s.height * s.width, row = padded_channels(s.channels);
  for_stripes(s, threads, [&](int64_t n, int64_t first, int64_t last) {
    const float* from = nhwc + n * pixels * row;
    T* to = nchw + n * s.channels * pixels;
    for (int64_t c = 0; c < s.channels; ++c)
      for (int64_t p = first; p < last; ++p) from_float(from[p * row + c], to[c * pixels + p]);
  });
}

}  // namespace

void nchw_to_nhwc(const ImageShape& shape, ElementType type, const void* nchw, float* nhwc,
                  int threads) {
  if (type == ElementType::kFloat16)
    pack(shape, static_cast<const Half*>(nchw), nhwc, threads);
  else
    pack(shape, static_cast<const float*>(nchw), nhwc, threads);
}

void nhwc_to_nchw(const ImageShape& shape, ElementType type, const float* nhwc, void* nchw,
                  int threads) {
  if (type == ElementType::kFloat16)
    unpack(shape, nhwc, static_cast<Half*>(nchw), threads);
  else
    unpack(shape, nhwc, static_cast<float*>(nchw), threads);
}

}  // namespace adder_onnx
