#include "layout.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "half.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace adder_onnx {
namespace {

constexpr int64_t kStripe = 64;  // pixels of one task and of one cache-resident transposition
constexpr int64_t kSide = 16;    // of a tile of bytes that is transposed in registers

static_assert(kSide == kChannelAlignment && kStripe % kSide == 0);

// The pixels of one task.
struct Stripe {
  int64_t image, first, last;
};

int64_t stripes_per_image(const ImageShape& s) { return ceil_div(s.height * s.width, kStripe); }

Stripe stripe_of(const ImageShape& s, int64_t task) {
  const int64_t stripes = stripes_per_image(s), first = task % stripes * kStripe;
  return {task / stripes, first, std::min(first + kStripe, s.height * s.width)};
}

inline void convert(float from, float& to) { to = from; }
inline void convert(float from, Half& to) { from_float(from, to); }
inline void convert(Half from, float& to) { to = to_float(from); }

template <typename From>
void pack(const ImageShape& s, const Stripe& stripe, const void* nchw, void* nhwc) {
  const int64_t pixels = s.height * s.width, row = padded_channels(s.channels);
  const From* from = static_cast<const From*>(nchw) + stripe.image * s.channels * pixels;
  float* to = static_cast<float*>(nhwc) + stripe.image * pixels * row;
  for (int64_t c = 0; c < s.channels; c += kChannelAlignment) {
    const int64_t stop = std::min(c + kChannelAlignment, s.channels);
    for (int64_t p = stripe.first; p < stripe.last; ++p) {
      for (int64_t i = c; i < stop; ++i) convert(from[i * pixels + p], to[p * row + i]);
      for (int64_t i = stop; i < c + kChannelAlignment; ++i) to[p * row + i] = 0;
    }
  }
}

template <typename To>
void unpack(const ImageShape& s, const Stripe& stripe, const void* nhwc, void* nchw) {
  const int64_t pixels = s.height * s.width, row = padded_channels(s.channels);
  const float* from = static_cast<const float*>(nhwc) + stripe.image * pixels * row;
  To* to = static_cast<To*>(nchw) + stripe.image * s.channels * pixels;
  for (int64_t c = 0; c < s.channels; ++c)
    for (int64_t p = stripe.first; p < stripe.last; ++p)
      convert(from[p * row + c], to[c * pixels + p]);
}

typedef uint8_t ByteRegister __attribute__((vector_size(16)));

#if defined(__clang__)
#define ADDER_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define ADDER_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, ByteRegister{__VA_ARGS__})
#endif

// Rows become columns: four rounds, each of which interleaves row i with row i + 8.
inline void transpose(uint8_t tile[kSide][kSide]) {
  ByteRegister a[kSide], b[kSide];
  for (int i = 0; i < kSide; ++i) std::memcpy(&a[i], tile[i], kSide);
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < kSide / 2; ++i) {
      b[2 * i] = ADDER_SHUFFLE(a[i], a[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7,
                               23);
      b[2 * i + 1] = ADDER_SHUFFLE(a[i], a[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29,
                                   14, 30, 15, 31);
    }
    std::memcpy(a, b, sizeof(a));
  }
  for (int i = 0; i < kSide; ++i) std::memcpy(tile[i], &a[i], kSide);
}

// Sixteen values, or the first `count` of them.
struct CopyBytes {
  using Outside = uint8_t;
  void in(const uint8_t* from, uint8_t* to, int64_t count) const {
    std::memcpy(to, from, count == kSide ? kSide : count);
  }
  void out(const uint8_t* from, uint8_t* to, int64_t count) const { in(from, to, count); }
};

class Quantize {
 public:
  using Outside = float;

  explicit Quantize(const Conversion& c)
      : scale_(c.scale),
        zero_point_(static_cast<float>(c.zero_point)),
        low_(-zero_point_),
        high_(static_cast<float>(c.top) - zero_point_) {}

  void in(const float* from, uint8_t* to, int64_t count) const {
#if defined(__SSE2__)
    if (count == kSide) return quantize(from, to);
#endif
    for (int64_t i = 0; i < count; ++i) {
      float v = from[i] / scale_;
      v = v > low_ ? v : low_;  // NaN becomes low
      v = v < high_ ? v : high_;
      to[i] = static_cast<uint8_t>(std::nearbyint(v) + zero_point_);
    }
  }
  void out(const uint8_t* from, float* to, int64_t count) const {
#if defined(__SSE2__)
    if (count == kSide) return dequantize(from, to);
#endif
    for (int64_t i = 0; i < count; ++i) to[i] = (static_cast<float>(from[i]) - zero_point_) * scale_;
  }

 private:
#if defined(__SSE2__)
  void quantize(const float* from, uint8_t* to) const {
    const __m128 scale = _mm_set1_ps(scale_), low = _mm_set1_ps(low_), high = _mm_set1_ps(high_);
    const __m128i zero_point = _mm_set1_epi32(static_cast<int32_t>(zero_point_));
    __m128i whole[4];
    for (int i = 0; i < 4; ++i) {
      const __m128 v = _mm_div_ps(_mm_loadu_ps(from + 4 * i), scale);
      whole[i] = _mm_cvtps_epi32(_mm_min_ps(_mm_max_ps(v, low), high));  // NaN becomes low
      whole[i] = _mm_add_epi32(whole[i], zero_point);
    }
    const __m128i bytes = _mm_packus_epi16(_mm_packs_epi32(whole[0], whole[1]),
                                           _mm_packs_epi32(whole[2], whole[3]));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes);
  }

  void dequantize(const uint8_t* from, float* to) const {
    const __m128 scale = _mm_set1_ps(scale_), zero_point = _mm_set1_ps(zero_point_);
    const __m128i zero = _mm_setzero_si128();
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    const __m128i halves[2] = {_mm_unpacklo_epi8(bytes, zero), _mm_unpackhi_epi8(bytes, zero)};
    for (int i = 0; i < 4; ++i) {
      const __m128i whole = i % 2 == 0 ? _mm_unpacklo_epi16(halves[i / 2], zero)
                                       : _mm_unpackhi_epi16(halves[i / 2], zero);
      const __m128 v = _mm_sub_ps(_mm_cvtepi32_ps(whole), zero_point);
      _mm_storeu_ps(to + 4 * i, _mm_mul_ps(v, scale));
    }
  }
#endif

  float scale_, zero_point_, low_, high_;
};

template <typename How>
void pack_bytes(const ImageShape& s, const Stripe& stripe, const How& how, const void* nchw,
                void* nhwc) {
  const int64_t pixels = s.height * s.width, row = padded_channels(s.channels);
  const auto* from = static_cast<const typename How::Outside*>(nchw) +
                     stripe.image * s.channels * pixels;
  uint8_t* to = static_cast<uint8_t*>(nhwc) + stripe.image * pixels * row;
  uint8_t tile[kSide][kSide] = {};
  for (int64_t p = stripe.first; p < stripe.last; p += kSide)
    for (int64_t c = 0; c < row; c += kSide) {
      const int64_t count = std::min(kSide, stripe.last - p);
      for (int64_t i = 0; i < kSide; ++i) {
        if (c + i < s.channels)
          how.in(from + (c + i) * pixels + p, tile[i], count);
        else
          std::memset(tile[i], 0, kSide);
      }
      transpose(tile);
      for (int64_t i = 0; i < count; ++i) std::memcpy(to + (p + i) * row + c, tile[i], kSide);
    }
}

template <typename How>
void unpack_bytes(const ImageShape& s, const Stripe& stripe, const How& how, const void* nhwc,
                  void* nchw) {
  const int64_t pixels = s.height * s.width, row = padded_channels(s.channels);
  const uint8_t* from = static_cast<const uint8_t*>(nhwc) + stripe.image * pixels * row;
  auto* to = static_cast<typename How::Outside*>(nchw) + stripe.image * s.channels * pixels;
  uint8_t tile[kSide][kSide] = {};
  for (int64_t p = stripe.first; p < stripe.last; p += kSide)
    for (int64_t c = 0; c < s.channels; c += kSide) {
      const int64_t count = std::min(kSide, stripe.last - p);
      for (int64_t i = 0; i < kSide; ++i) {
        if (i < count)
          std::memcpy(tile[i], from + (p + i) * row + c, kSide);
        else
          std::memset(tile[i], 0, kSide);
      }
      transpose(tile);
      for (int64_t i = 0; i < std::min(kSide, s.channels - c); ++i)
        how.out(tile[i], to + (c + i) * pixels + p, count);
    }
}

}  // namespace

int64_t conversion_tasks(const ImageShape& shape) { return shape.batch * stripes_per_image(shape); }

void nchw_to_nhwc(const ImageShape& shape, const Conversion& c, const void* nchw, void* nhwc,
                  int64_t task) {
  const Stripe stripe = stripe_of(shape, task);
  if (c.inside == ElementType::kFloat32) {
    if (c.outside == ElementType::kFloat16) return pack<Half>(shape, stripe, nchw, nhwc);
    return pack<float>(shape, stripe, nchw, nhwc);
  }
  if (c.outside == ElementType::kUint8) return pack_bytes(shape, stripe, CopyBytes{}, nchw, nhwc);
  pack_bytes(shape, stripe, Quantize(c), nchw, nhwc);
}

void nhwc_to_nchw(const ImageShape& shape, const Conversion& c, const void* nhwc, void* nchw,
                  int64_t task) {
  const Stripe stripe = stripe_of(shape, task);
  if (c.inside == ElementType::kFloat32) {
    if (c.outside == ElementType::kFloat16) return unpack<Half>(shape, stripe, nhwc, nchw);
    return unpack<float>(shape, stripe, nhwc, nchw);
  }
  if (c.outside == ElementType::kUint8) return unpack_bytes(shape, stripe, CopyBytes{}, nhwc, nchw);
  unpack_bytes(shape, stripe, Quantize(c), nhwc, nchw);
}

}  // namespace adder_onnx
