#include "layers/input_rows.h"

#include <algorithm>

namespace adder_onnx {
namespace {

// Input rows or columns from the first to the last tap of `count` outputs.
int64_t span(int64_t count, int64_t stride, int64_t kernel, int64_t dilation) {
  return (count - 1) * stride + (kernel - 1) * dilation + 1;
}

template <typename T>
bool needs_copy(const ConvParams& a, const ConvShape& s) {
  return a.group_in() % kStep<T> != 0 || s.pad_top != 0 || s.pad_left != 0 ||
         span(s.out_h, a.stride_h, a.kernel_h, a.dilation_h) > s.in_h ||
         span(s.out_w, a.stride_w, a.kernel_w, a.dilation_w) > s.in_w;
}

// Elements of a pixel where rows are copied.
template <typename T>
int64_t copied_pitch(const ConvParams& a) {
  return ceil_div(a.group_in(), kStep<T>) * kStep<T>;
}

}  // namespace

template <typename T>
InputRows<T>::InputRows(const ConvParams& params, const ConvShape& shape, const T* x, T zero)
    : params_(params),
      shape_(shape),
      x_(x),
      zero_(zero),
      is_copied_(needs_copy<T>(params, shape)),
      in_pitch_(padded_channels(params.in_channels)),
      pitch_(is_copied_ ? copied_pitch<T>(params) : in_pitch_),
      width_(is_copied_ ? span(shape.out_w, params.stride_w, params.kernel_w, params.dilation_w)
                        : shape.in_w) {
  static thread_local std::vector<const T*> pixels;
  static thread_local std::vector<int64_t> segments;
  static thread_local AlignedVector<T> memory;
  pixels_ = &pixels;
  segments_ = &segments;
  memory_ = &memory;
  segments.clear();
  const ConvParams& a = params_;
  const bool is_dense = a.dilation_w == 1 && pitch_ == a.group_in();
  for (int64_t i = 0; i < a.kernel_h; ++i)
    for (int64_t j = 0; j < (is_dense ? 1 : a.kernel_w); ++j)
      segments.push_back((i * a.dilation_h * width_ + j * a.dilation_w) * pitch_);
  steps_ = (is_dense ? a.kernel_w : 1) * ceil_div(a.group_in(), kStep<T>);
}

template <typename T>
int64_t InputRows<T>::elements_per_row(const ConvParams& a, const ConvShape& s) {
  const bool is_copied = needs_copy<T>(a, s);
  const int64_t width = is_copied ? span(s.out_w, a.stride_w, a.kernel_w, a.dilation_w) : s.in_w;
  return a.stride_h * width *
         (is_copied ? copied_pitch<T>(a) : padded_channels(a.in_channels));
}

template <typename T>
int64_t InputRows<T>::pixels_of(const ConvParams& a, const ConvShape& s, int64_t rows) {
  // They may begin and end within an image.
  const int64_t images = std::min(s.batch, rows / s.out_h + 2);
  const int64_t in_rows = span(std::min(rows, s.out_h), a.stride_h, a.kernel_h, a.dilation_h);
  const int64_t width = span(s.out_w, a.stride_w, a.kernel_w, a.dilation_w);
  return needs_copy<T>(a, s) ? images * in_rows * width : images * s.in_h * s.in_w;
}

template <typename T>
int64_t InputRows<T>::bytes_of(const ConvParams& a, const ConvShape& s, int64_t rows) {
  const int64_t addresses = rows * s.out_w + a.kernel_size();
  const int64_t copied = needs_copy<T>(a, s) ? pixels_of(a, s, rows) * copied_pitch<T>(a) : 0;
  return addresses * static_cast<int64_t>(sizeof(void*)) + copied * static_cast<int64_t>(sizeof(T));
}

// Calls f(image, first row, number of rows) for each image that has some of the output rows.
template <typename T>
template <typename F>
void InputRows<T>::for_images(int64_t first, int64_t last, const F& f) const {
  while (first < last) {
    const int64_t image = first / shape_.out_h, top = first % shape_.out_h;
    const int64_t count = std::min(shape_.out_h - top, last - first);
    f(image, top, count);
    first += count;
  }
}

template <typename T>
void InputRows<T>::select(int64_t group, int64_t first, int64_t last) {
  const bool same_rows = first == first_ && last == last_;
  if (same_rows && group == group_) return;
  if (is_copied_) {
    copy(group, first, last);
  } else {
    offset_ = group * params_.group_in();
  }
  first_ = first;
  last_ = last;
  group_ = group;
  if (same_rows) return;
  pixels_->resize((last - first) * shape_.out_w);
  const T** to = pixels_->data();
  const int64_t right = params_.stride_w * pitch_, below = width_ * pitch_;
  const T* copied = memory_->data();
  for_images(first, last, [&](int64_t image, int64_t top, int64_t count) {
    const T* at = is_copied_
                            ? copied
                            : x_ + (image * shape_.in_h + top * params_.stride_h) * below;
    for (int64_t i = 0; i < count; ++i, at += params_.stride_h * below)
      for (int64_t j = 0; j < shape_.out_w; ++j) *to++ = at + j * right;
    copied += in_rows(count) * below;
  });
}

template <typename T>
int64_t InputRows<T>::in_rows(int64_t count) const {
  return span(count, params_.stride_h, params_.kernel_h, params_.dilation_h);
}

// Rows of one image after those of another, each image's from the first to the last that it needs.
template <typename T>
void InputRows<T>::copy(int64_t group, int64_t first, int64_t last) {
  const int64_t row_size = width_ * pitch_;
  int64_t rows = 0;
  for_images(first, last, [&](int64_t, int64_t, int64_t count) { rows += in_rows(count); });
  if (static_cast<int64_t>(memory_->size()) < rows * row_size) memory_->resize(rows * row_size);
  T* to = memory_->data();
  for_images(first, last, [&](int64_t image, int64_t top, int64_t count) {
    const int64_t begin = top * params_.stride_h - shape_.pad_top;
    for (int64_t i = 0; i < in_rows(count); ++i, to += row_size)
      copy_row(group, image, begin + i, to);
  });
}

template <typename T>
void InputRows<T>::copy_row(int64_t group, int64_t image, int64_t row, T* to) const {
  const ConvShape& s = shape_;
  const int64_t channels = params_.group_in();
  // Columns of x that lie in the copied row, which begins at column -pad_left.
  const int64_t left = std::min(s.pad_left, width_);
  const int64_t right = std::max(left, std::min(width_, s.pad_left + s.in_w));
  if (row < 0 || row >= s.in_h || left == right) {
    std::fill_n(to, width_ * pitch_, zero_);
    return;
  }
  std::fill_n(to, left * pitch_, zero_);
  std::fill_n(to + right * pitch_, (width_ - right) * pitch_, zero_);
  const T* from =
      x_ + ((image * s.in_h + row) * s.in_w + left - s.pad_left) * in_pitch_ + group * channels;
  to += left * pitch_;
  if (channels == in_pitch_) {
    std::copy_n(from, (right - left) * pitch_, to);
    return;
  }
  for (int64_t i = left; i < right; ++i, from += in_pitch_, to += pitch_) {
    std::copy_n(from, channels, to);
    std::fill_n(to + channels, pitch_ - channels, zero_);
  }
}

template class InputRows<uint8_t>;
template class InputRows<float>;

}  // namespace adder_onnx
