// Where an adder convolution reads the taps of its output pixels.
//
// A kernel reads padding like any other pixel, and of bytes whole eights of channels. An input that
// has both in place is read where it lies; of any other the rows that a call needs are copied first,
// padding filled in, into memory that stays in the cache. The copy is one element for the taps of
// a whole kernel and all filters of the group.
#pragma once

#include <vector>

#include "layers/aligned.h"
#include "layers/params.h"

namespace adder_onnx {

constexpr int64_t eights(int64_t channels) { return ceil_div(channels, 8); }

// Elements that a kernel takes in one step: a step of bytes is eight channels.
template <typename T>
constexpr int64_t kStep = sizeof(T) == 1 ? 8 : 1;

// Some rows of output pixels of one group. Rows are numbered through the images of a batch.
template <typename T>  // uint8_t or float
class InputRows {
 public:
  // x: (batch, in_h, in_w, padded C). `zero` fills the padding, and channels up to whole steps.
  InputRows(const ConvParams& params, const ConvShape& shape, const T* x, T zero);

  // Elements of input, copied or not, that a further output row needs.
  static int64_t elements_per_row(const ConvParams& params, const ConvShape& shape);

  // Bounds for a task of so many output rows: on the input pixels from its first to its last tap, and
  // on the bytes that a thread takes to make them readable.
  static int64_t pixels_of(const ConvParams& params, const ConvShape& shape, int64_t rows);
  static int64_t bytes_of(const ConvParams& params, const ConvShape& shape, int64_t rows);

  // Makes the output rows [first, last) of a group readable; the next call makes them invalid.
  void select(int64_t group, int64_t first, int64_t last);

  // For each output pixel of the rows, the address that segments and `offset` are added to.
  const T* const* pixels() const { return pixels_->data(); }
  int64_t offset() const { return offset_; }
  const std::vector<int64_t>& segments() const { return *segments_; }
  int64_t steps() const { return steps_; }
  // Where they are read: elements of an input pixel, and pixels of an input row.
  int64_t pitch() const { return pitch_; }
  int64_t width() const { return width_; }

 private:
  template <typename F>
  void for_images(int64_t first, int64_t last, const F& f) const;
  int64_t in_rows(int64_t count) const;
  void copy(int64_t group, int64_t first, int64_t last);
  void copy_row(int64_t group, int64_t image, int64_t row, T* to) const;

  const ConvParams& params_;
  const ConvShape& shape_;
  const T* x_;
  T zero_;
  bool is_copied_;
  int64_t in_pitch_;                  // elements of a pixel of x
  int64_t pitch_, width_;             // elements of a pixel, and pixels of a row, where they are read
  int64_t offset_ = 0, steps_ = 0;
  int64_t first_ = -1, last_ = -1, group_ = -1;
  // Of the thread that runs the task, for its next tasks.
  std::vector<const T*>* pixels_;
  std::vector<int64_t>* segments_;
  AlignedVector<T>* memory_;
};

}  // namespace adder_onnx
