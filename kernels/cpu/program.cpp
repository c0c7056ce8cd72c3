#include "program.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <utility>

namespace adder_onnx {
namespace {

// Sizes that would make a kernel read or write where it must not.
void check_axis(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t pad) {
  if (in < 0 || out < 0 || pad < 0 || kernel < 1 || stride < 1)
    throw std::invalid_argument("sizes, pads and strides of an adder convolution are not valid");
}

// What a channels-last tensor takes of the arena. Rows are multiples of 16 elements.
int64_t floats(const ImageShape& shape, ElementType type) {
  return type == ElementType::kUint8 ? shape.nhwc_size() / 4 : shape.nhwc_size();
}

uint8_t* bytes(float* at) { return reinterpret_cast<uint8_t*>(at); }

}  // namespace

void Program::reserve(int64_t offset, int64_t size) {
  if (offset < 0) throw std::invalid_argument("a buffer's offset is negative");
  arena_size_ = std::max(arena_size_, offset + size);
}

// Inputs and outputs are numbered in the order in which they are added.
void Program::reserve_port(std::vector<Port>& ports, int64_t number, Port port) {
  if (number != static_cast<int64_t>(ports.size()))
    throw std::invalid_argument("inputs and outputs must be added in the order of their numbers");
  ports.push_back(port);
}

void Program::add_nchw_to_nhwc(int64_t input, ElementType type, const ImageShape& shape,
                               int64_t to) {
  reserve(to, floats(shape, type));
  reserve_port(inputs_, input, {shape.nchw_size(), type});
  Step step{Kind::kNchwToNhwc};
  step.port = input;
  step.type = type;
  step.image = shape;
  step.y = to;
  steps_.push_back(std::move(step));
}

void Program::add_nhwc_to_nchw(int64_t from, const ImageShape& shape, int64_t output,
                               ElementType type) {
  reserve(from, floats(shape, type));
  reserve_port(outputs_, output, {shape.nchw_size(), type});
  Step step{Kind::kNhwcToNchw};
  step.port = output;
  step.type = type;
  step.image = shape;
  step.x = from;
  steps_.push_back(std::move(step));
}

void Program::reserve_conv(const ConvParams& a, const ConvShape& shape, Step& step,
                           int64_t per_float) {
  check_axis(shape.in_h, shape.out_h, a.kernel_h, a.stride_h, shape.pad_top);
  check_axis(shape.in_w, shape.out_w, a.kernel_w, a.stride_w, shape.pad_left);
  const int64_t x_size =
      shape.batch * shape.in_h * shape.in_w * padded_channels(a.in_channels) / per_float;
  const int64_t y_size =
      shape.batch * shape.out_h * shape.out_w * padded_channels(a.out_channels) / per_float;
  reserve(step.x, x_size);
  reserve(step.y, y_size);
  if (step.z >= 0) reserve(step.z, y_size);
  if (step.x < step.y + y_size && step.y < step.x + x_size)
    throw std::invalid_argument("an adder convolution's output overlaps its input");
  step.shape = shape;
}

void Program::add_adder_conv(std::shared_ptr<const AdderConv> conv, const ConvShape& shape,
                             int64_t x, int64_t z, int64_t y) {
  Step step{Kind::kAdderConv};
  step.x = x;
  step.z = z;
  step.y = y;
  reserve_conv(conv->params(), shape, step, 1);
  step.conv = std::move(conv);
  steps_.push_back(std::move(step));
}

void Program::add_qadder_conv(std::shared_ptr<const QAdderConv> conv, const ConvShape& shape,
                              int64_t x, int64_t z, int64_t y) {
  Step step{Kind::kQAdderConv};
  step.x = x;
  step.z = z;
  step.y = y;
  reserve_conv(conv->params(), shape, step, 4);
  step.qconv = std::move(conv);
  steps_.push_back(std::move(step));
}

void Program::run(float* arena, const std::vector<const void*>& inputs,
                  const std::vector<void*>& outputs, int threads, double* seconds) const {
  using Clock = std::chrono::steady_clock;
  Clock::time_point start;
  if (seconds != nullptr) start = Clock::now();
  for (const Step& step : steps_) {
    switch (step.kind) {
      case Kind::kNchwToNhwc:
        nchw_to_nhwc(step.image, step.type, inputs[step.port], arena + step.y, threads);
        break;
      case Kind::kNhwcToNchw:
        nhwc_to_nchw(step.image, step.type, arena + step.x, outputs[step.port], threads);
        break;
      case Kind::kAdderConv:
        step.conv->run(step.shape, arena + step.x, step.z < 0 ? nullptr : arena + step.z,
                       arena + step.y, threads);
        break;
      case Kind::kQAdderConv:
        step.qconv->run(step.shape, bytes(arena + step.x),
                        step.z < 0 ? nullptr : bytes(arena + step.z), bytes(arena + step.y),
                        threads);
        break;
    }
    if (seconds != nullptr) {
      const Clock::time_point end = Clock::now();
      *seconds++ = std::chrono::duration<double>(end - start).count();
      start = end;
    }
  }
}

}  // namespace adder_onnx
