#include "program/tensors.h"

#include <algorithm>
#include <stdexcept>

namespace adder_onnx {
namespace {

bool is_same(const Tensor& a, const Tensor& b) {
  return a.offset == b.offset && a.type == b.type && a.shape.batch == b.shape.batch &&
         a.shape.channels == b.shape.channels && a.shape.height == b.shape.height &&
         a.shape.width == b.shape.width;
}

}  // namespace

bool overlap(const Tensor& a, const Tensor& b) {
  return a.size() > 0 && b.size() > 0 && a.offset < b.offset + b.size() &&
         b.offset < a.offset + a.size();
}

void Tensors::check_read(const Tensor& x, bool is_given) const {
  if (x.size() == 0) return;
  for (const Tensor& tensor : tensors_) {
    if (is_same(tensor, x)) return;
    if (overlap(tensor, x))
      throw std::invalid_argument("what a step reads is not a tensor that a step before it has "
                                  "written: the offset, shape or type differs, or it was overwritten");
  }
  if (!is_given)
    throw std::invalid_argument("a step reads what no step before it has written");
}

void Tensors::check_apart(const Tensor& y, const Tensor& x) {
  if (overlap(y, x))
    throw std::invalid_argument("the output of a convolution or pooling overlaps its input");
}

void Tensors::check_residual(const Tensor& y, const Tensor& z) {
  if (y.offset != z.offset && overlap(y, z))
    throw std::invalid_argument("the output of a convolution overlaps a part of its residual");
}

void Tensors::read(const Tensor& x) {
  const bool is_known = std::any_of(tensors_.begin(), tensors_.end(),
                                    [&](const Tensor& tensor) { return is_same(tensor, x); });
  if (is_known || x.size() == 0) return;
  tensors_.push_back(x);
  size_ = std::max(size_, x.offset + x.size());
}

void Tensors::write(const Tensor& y) {
  if (y.size() == 0) return;
  tensors_.erase(std::remove_if(tensors_.begin(), tensors_.end(),
                                [&](const Tensor& tensor) { return overlap(tensor, y); }),
                 tensors_.end());
  tensors_.push_back(y);
  size_ = std::max(size_, y.offset + y.size());
}

}  // namespace adder_onnx
