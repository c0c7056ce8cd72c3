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

inline void convert(float from, float& to) { to = from; }
inline void convert(float from, Half& to) { from_float(from, to); }
inline void convert(Half from, float& to) { to = to_float(from); }
inline void convert(uint8_t from, uint8_t& to) { to = from; }

template <typename From, typename To>
void pack(const ImageShape& s, const void* nchw, void* nhwc, int threads) {
  const int64_t pixels = s.height * s.width, row = padded_channels(s.channels);
  for_stripes(s, threads, [&](int64_t n, int64_t first, int64_t last) {
    const From* from = static_cast<const From*>(nchw) + n * s.channels * pixels;
    To* to = static_cast<To*>(nhwc) + n * pixels * row;
    for (int64_t c = 0; c < s.channels; c += kChannelAlignment) {
      const int64_t stop = std::min(c + kChannelAlignment, s.channels);
      for (int64_t p = first; p < last; ++p) {
        for (int64_t i = c; i < stop; ++i) convert(from[i * pixels + p], to[p * row + i]);
        for (int64_t i = stop; i < c + kChannelAlignment; ++i) to[p * row + i] = 0;
      }
    }
  });
}

template <typename From, typename To>
void unpack(const ImageShape& s, const void* nhwc, void* nchw, int threads) {
  const int64_t pixels = s.height * s.width, row = padded_channels(s.channels);
  for_stripes(s, threads, [&](int64_t n, int64_t first, int64_t last) {
    const From* from = static_cast<const From*>(nhwc) + n * pixels * row;
    To* to = static_cast<To*>(nchw) + n * s.channels * pixels;
    for (int64_t c = 0; c < s.channels; ++c)
      for (int64_t p = first; p < last; ++p) convert(from[p * row + c], to[c * pixels + p]);
  });
}

}  // namespace

void nchw_to_nhwc(const ImageShape& shape, ElementType type, const void* nchw, void* nhwc,
                  int threads) {
  switch (type) {
    case ElementType::kFloat32: return pack<float, float>(shape, nchw, nhwc, threads);
    case ElementType::kFloat16: return pack<Half, float>(shape, nchw, nhwc, threads);
    case ElementType::kUint8: return pack<uint8_t, uint8_t>(shape, nchw, nhwc, threads);
  }
}

void nhwc_to_nchw(const ImageShape& shape, ElementType type, const void* nhwc, void* nchw,
                  int threads) {
  switch (type) {
    case ElementType::kFloat32: return unpack<float, float>(shape, nhwc, nchw, threads);
    case ElementType::kFloat16: return unpack<float, Half>(shape, nhwc, nchw, threads);
    case ElementType::kUint8: return unpack<uint8_t, uint8_t>(shape, nhwc, nchw, threads);
  }
}

}  // namespace adder_onnx
