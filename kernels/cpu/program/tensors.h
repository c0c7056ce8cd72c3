// What lies where in a program's memory, step after step, while the program is made.
#pragma once

#include <vector>

#include "layout/layout.h"

namespace adder_onnx {

// A channels-last tensor of one pass, float32 or uint8.
struct Tensor {
  int64_t offset;  // in floats
  ImageShape shape;
  ElementType type;

  // In floats. The shape must have passed check_image.
  int64_t size() const {
    return type == ElementType::kUint8 ? shape.nhwc_size() / 4 : shape.nhwc_size();
  }
};

// Whether they share memory.
bool overlap(const Tensor& a, const Tensor& b);

class Tensors {
 public:
  // Checks, for a step, that its inputs are tensors as steps before have left them, and that its
  // output overlaps no input; its residual, the one input that may be in the output's place, is in
  // the whole of it or apart. Memory that no step has written is the caller's: it is any tensor, but
  // only where `is_given`, and from then on the same.
  // Throws std::invalid_argument, with nothing changed.
  void check_read(const Tensor& x, bool is_given) const;
  static void check_apart(const Tensor& y, const Tensor& x);
  static void check_residual(const Tensor& y, const Tensor& z);

  // Notes, after the checks, what a step has read and written. What overlaps `y` is no more.
  void read(const Tensor& x);
  void write(const Tensor& y);

  // The memory that all of them take, in floats.
  int64_t size() const { return size_; }

 private:
  std::vector<Tensor> tensors_;
  int64_t size_ = 0;
};

}  // namespace adder_onnx
