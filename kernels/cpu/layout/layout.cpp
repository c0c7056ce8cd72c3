#include "layout/layout.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "layers/checks.h"
#include "layout/half.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace adder_onnx {
namespace {

constexpr int64_t kStripe = 64;  // pixels of one task and of one cache-resident transposition
constexpr int64_t kSide = 16;    // of a tile that is transposed in registers

static_assert(kSide == kChannelAlignment && kSide == ByteTable::kAtOnce && kStripe % kSide == 0);

// The pixels of one task.
struct Stripe {
  int64_t image, first, last;
};

int64_t stripes_per_image(const ImageShape& s) { return ceil_div(s.height * s.width, kStripe); }

Stripe stripe_of(const ImageShape& s, int64_t task) {
  const int64_t stripes = stripes_per_image(s), first = task % stripes * kStripe;
  return {task / stripes, first, std::min(first + kStripe, s.height * s.width)};
}

typedef uint8_t ByteRegister __attribute__((vector_size(16)));
typedef float FloatRegister __attribute__((vector_size(16)));

// Rows become columns: four rounds, each of which interleaves row i with row i + 8.
inline void transpose(uint8_t tile[kSide][kSide]) {
  ByteRegister a[kSide], b[kSide];
  for (int i = 0; i < kSide; ++i) std::memcpy(&a[i], tile[i], kSide);
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < kSide / 2; ++i) {
      b[2 * i] = __builtin_shufflevector(a[i], a[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21,
                                         6, 22, 7, 23);
      b[2 * i + 1] = __builtin_shufflevector(a[i], a[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28,
                                             13, 29, 14, 30, 15, 31);
    }
    std::memcpy(a, b, sizeof(a));
  }
  for (int i = 0; i < kSide; ++i) std::memcpy(tile[i], &a[i], kSide);
}

// Rows become columns, in squares of four by four.
inline void transpose(float tile[kSide][kSide]) {
  const auto square = [&](int row, int column) {
    FloatRegister a[4], b[4];
    for (int i = 0; i < 4; ++i) std::memcpy(&a[i], &tile[row + i][column], sizeof(a[i]));
    for (int i = 0; i < 2; ++i) {
      b[2 * i] = __builtin_shufflevector(a[i], a[i + 2], 0, 4, 1, 5);
      b[2 * i + 1] = __builtin_shufflevector(a[i], a[i + 2], 2, 6, 3, 7);
    }
    for (int i = 0; i < 2; ++i) {
      a[2 * i] = __builtin_shufflevector(b[i], b[i + 2], 0, 4, 1, 5);
      a[2 * i + 1] = __builtin_shufflevector(b[i], b[i + 2], 2, 6, 3, 7);
    }
    struct Square {
      FloatRegister rows[4];
    };
    return Square{{a[0], a[1], a[2], a[3]}};
  };
  for (int row = 0; row < kSide; row += 4)
    for (int column = row; column < kSide; column += 4) {
      const auto above = square(row, column), below = square(column, row);
      for (int i = 0; i < 4; ++i) {
        std::memcpy(&tile[column + i][row], &above.rows[i], sizeof(FloatRegister));
        std::memcpy(&tile[row + i][column], &below.rows[i], sizeof(FloatRegister));
      }
    }
}

// Each converts sixteen values, or the first `count` of them.
template <typename T>
struct Copy {
  using Inside = T;
  using Outside = T;
  void in(const T* from, T* to, int64_t count) const {
    std::memcpy(to, from, (count == kSide ? kSide : count) * sizeof(T));
  }
  void out(const T* from, T* to, int64_t count) const { in(from, to, count); }
};

struct Halves {
  using Inside = float;
  using Outside = Half;
  void in(const Half* from, float* to, int64_t count) const {
    for (int64_t i = 0; i < count; ++i) to[i] = to_float(from[i]);
  }
  void out(const float* from, Half* to, int64_t count) const {
    for (int64_t i = 0; i < count; ++i) from_float(from[i], to[i]);
  }
};

class Quantize {
 public:
  using Inside = uint8_t;
  using Outside = float;

  explicit Quantize(const Conversion& c)
      : scale_(c.scale),
        zero_point_(static_cast<float>(c.zero_point)),
        low_(-zero_point_),
        high_(static_cast<float>(c.top) - zero_point_),
        table_(c.table.get()) {}

  void in(const float* from, uint8_t* to, int64_t count) const {
    quantize(from, to, count);
    if (table_ != nullptr) table_->look_up(to, count);
  }
  void out(const uint8_t* from, float* to, int64_t count) const {
#if defined(__SSE2__)
    if (count == kSide) return dequantize(from, to);
#endif
    for (int64_t i = 0; i < count; ++i) to[i] = (static_cast<float>(from[i]) - zero_point_) * scale_;
  }

 private:
  void quantize(const float* from, uint8_t* to, int64_t count) const {
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
  const ByteTable* table_;
};

// A tile is read along its channels' pixels, and written along its pixels' channels: what lies side by
// side is used while it is in the cache, however far apart channels are.
template <typename How>
void pack(const ImageShape& s, const Stripe& stripe, const How& how, const void* nchw,
          void* nhwc) {
  using Inside = typename How::Inside;
  const int64_t pixels = s.height * s.width, row = padded_channels(s.channels);
  const auto* from = static_cast<const typename How::Outside*>(nchw) +
                     stripe.image * s.channels * pixels;
  Inside* to = static_cast<Inside*>(nhwc) + stripe.image * pixels * row;
  Inside tile[kSide][kSide] = {};
  for (int64_t p = stripe.first; p < stripe.last; p += kSide)
    for (int64_t c = 0; c < row; c += kSide) {
      const int64_t count = std::min(kSide, stripe.last - p);
      for (int64_t i = 0; i < kSide; ++i) {
        if (c + i < s.channels)
          how.in(from + (c + i) * pixels + p, tile[i], count);
        else
          std::memset(tile[i], 0, sizeof(tile[i]));
      }
      transpose(tile);
      for (int64_t i = 0; i < count; ++i)
        std::memcpy(to + (p + i) * row + c, tile[i], sizeof(tile[i]));
    }
}

template <typename How>
void unpack(const ImageShape& s, const Stripe& stripe, const How& how, const void* nhwc,
            void* nchw) {
  using Inside = typename How::Inside;
  const int64_t pixels = s.height * s.width, row = padded_channels(s.channels);
  const Inside* from = static_cast<const Inside*>(nhwc) + stripe.image * pixels * row;
  auto* to = static_cast<typename How::Outside*>(nchw) + stripe.image * s.channels * pixels;
  Inside tile[kSide][kSide] = {};
  for (int64_t p = stripe.first; p < stripe.last; p += kSide)
    for (int64_t c = 0; c < s.channels; c += kSide) {
      const int64_t count = std::min(kSide, stripe.last - p);
      for (int64_t i = 0; i < kSide; ++i) {
        if (i < count)
          std::memcpy(tile[i], from + (p + i) * row + c, sizeof(tile[i]));
        else
          std::memset(tile[i], 0, sizeof(tile[i]));
      }
      transpose(tile);
      for (int64_t i = 0; i < std::min(kSide, s.channels - c); ++i)
        how.out(tile[i], to + (c + i) * pixels + p, count);
    }
}

// Calls f with how values are converted.
template <typename F>
void choose(const Conversion& c, const F& f) {
  if (c.inside == ElementType::kFloat32) {
    if (c.outside == ElementType::kFloat16) return f(Halves{});
    return f(Copy<float>{});
  }
  if (c.outside == ElementType::kUint8) return f(Copy<uint8_t>{});
  f(Quantize(c));
}

}  // namespace

void check_image(const ImageShape& s) {
  checked_product({s.batch, s.height, s.width, checked_channels(s.channels), sizeof(float)});
}

void check_conversion(const Conversion& c, bool to_kernels) {
  using T = ElementType;
  if (c.inside != T::kFloat32 && c.inside != T::kUint8)
    throw std::invalid_argument("the kernels take float32 and uint8");
  const T other = c.inside == T::kFloat32 ? T::kFloat16 : T::kUint8;
  if (c.outside != T::kFloat32 && c.outside != other)
    throw std::invalid_argument("only float32 becomes uint8, and back");
  if (!(c.scale > 0) || c.zero_point < 0 || c.zero_point > 255 || c.top < 0 || c.top > 255)
    throw std::invalid_argument("a scale must be positive, a zero point and the top 0 to 255");
  if (c.table && !(to_kernels && c.outside == T::kFloat32 && c.inside == T::kUint8))
    throw std::invalid_argument("only what becomes uint8 on its way into the kernels has a table");
}

int64_t conversion_tasks(const ImageShape& shape) {
  return shape.channels == 0 ? 0 : shape.batch * stripes_per_image(shape);
}

void nchw_to_nhwc(const ImageShape& shape, const Conversion& c, const void* nchw, void* nhwc,
                  int64_t task) {
  choose(c, [&](const auto& how) { pack(shape, stripe_of(shape, task), how, nchw, nhwc); });
}

void nhwc_to_nchw(const ImageShape& shape, const Conversion& c, const void* nhwc, void* nchw,
                  int64_t task) {
  choose(c, [&](const auto& how) { unpack(shape, stripe_of(shape, task), how, nhwc, nchw); });
}

}  // namespace adder_onnx
