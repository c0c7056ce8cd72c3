#include "program/program.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <stdexcept>
#include <utility>

#include "threads/thread_pool.h"

namespace adder_onnx {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kMaxPasses = 64;  // at the same time

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Sizes that would make a kernel read or write where it must not.
void check_axis(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t pad) {
  if (in < 0 || out < 0 || pad < 0 || kernel < 1 || stride < 1)
    throw std::invalid_argument("sizes, pads and strides of a convolution or pooling are not valid");
}

// What so many elements of channels-last tensors take of the arena. Rows are multiples of 16.
int64_t floats(int64_t elements, ElementType type) {
  return type == ElementType::kUint8 ? elements / 4 : elements;
}

uint8_t* bytes(float* at) { return reinterpret_cast<uint8_t*>(at); }

// Numbers below 64 that nobody else has at the moment.
class Slots {
 public:
  int take() {
    uint64_t used = used_.load(std::memory_order_relaxed);
    for (;;) {
      const int slot = __builtin_ctzll(~used);
      if (used_.compare_exchange_weak(used, used | uint64_t{1} << slot, std::memory_order_acquire,
                                      std::memory_order_relaxed))
        return slot;
    }
  }
  void give_back(int slot) {
    used_.fetch_and(~(uint64_t{1} << slot), std::memory_order_release);
  }

 private:
  std::atomic<uint64_t> used_{0};
};

}  // namespace

// Some images of a batch on their way through the program.
struct Program::Pass {
  float* arena;
  int64_t scale;  // that offsets are multiplied by
  int64_t first, images;
  const std::vector<const void*>& inputs;
  const std::vector<void*>& outputs;
  const StopFlag& stop;

  float* at(int64_t offset) const { return offset < 0 ? nullptr : arena + scale * offset; }

  ImageShape image(const Step& step) const {
    ImageShape shape = step.image;
    shape.batch = std::min(images, step.batch);
    return shape;
  }
  ConvShape shape(const Step& step) const {
    ConvShape shape = step.shape;
    shape.batch = std::min(images, step.batch);
    return shape;
  }
  // The bytes of a port that lie before those of the pass.
  int64_t before(const Step& step) const {
    return first * step.image.channels * step.image.height * step.image.width *
           size_of(step.conversion.outside);
  }
};

Program::Program(int64_t batch, int64_t pass) : batch_(batch), pass_(pass) {
  if (batch < 0 || pass < 1) throw std::invalid_argument("a pass must have at least one image");
}

int64_t Program::arena_size(int threads) const { return pass_size_ * slots(threads); }

int64_t Program::slots(int threads) const {
  return std::clamp<int64_t>(ceil_div(batch_, pass_), 1, std::min(threads, kMaxPasses));
}

Program::Step Program::make_step(Kind kind, int64_t batch) const {
  if (batch != batch_ && batch_ > pass_)
    throw std::invalid_argument("only a program of one pass may have steps of different batches");
  Step step;
  step.kind = kind;
  step.batch = batch;
  return step;
}

void Program::reserve(int64_t offset, int64_t size) {
  if (offset < 0) throw std::invalid_argument("a buffer's offset is negative");
  pass_size_ = std::max(pass_size_, offset + size);
}

// Inputs and outputs are numbered in the order in which they are added.
void Program::reserve_port(std::vector<Port>& ports, int64_t number, Port port) {
  if (number != static_cast<int64_t>(ports.size()))
    throw std::invalid_argument("inputs and outputs must be added in the order of their numbers");
  ports.push_back(port);
}

void Program::add_nchw_to_nhwc(int64_t input, const Conversion& conversion,
                               const ImageShape& shape, int64_t to) {
  Step step = make_step(Kind::kNchwToNhwc, shape.batch);
  step.port = input;
  step.conversion = conversion;
  step.image = shape;
  step.image.batch = std::min(shape.batch, pass_);
  step.y = to;
  reserve(to, floats(step.image.nhwc_size(), conversion.inside));
  reserve_port(inputs_, input, {shape.nchw_size(), conversion.outside});
  steps_.push_back(std::move(step));
}

void Program::add_nhwc_to_nchw(int64_t from, const ImageShape& shape, int64_t output,
                               const Conversion& conversion) {
  Step step = make_step(Kind::kNhwcToNchw, shape.batch);
  step.port = output;
  step.conversion = conversion;
  step.image = shape;
  step.image.batch = std::min(shape.batch, pass_);
  step.x = from;
  reserve(from, floats(step.image.nhwc_size(), conversion.inside));
  reserve_port(outputs_, output, {shape.nchw_size(), conversion.outside});
  steps_.push_back(std::move(step));
}

void Program::reserve_conv(const ConvParams& a, const ConvShape& shape, Step& step,
                           ElementType type) {
  check_axis(shape.in_h, shape.out_h, a.kernel_h, a.stride_h, shape.pad_top);
  check_axis(shape.in_w, shape.out_w, a.kernel_w, a.stride_w, shape.pad_left);
  const int64_t images = std::min(shape.batch, pass_);
  const int64_t x_size =
      floats(images * shape.in_h * shape.in_w * padded_channels(a.in_channels), type);
  const int64_t y_size =
      floats(images * shape.out_h * shape.out_w * padded_channels(a.out_channels), type);
  reserve(step.x, x_size);
  reserve(step.y, y_size);
  if (step.z >= 0) reserve(step.z, y_size);
  if (step.x < step.y + y_size && step.y < step.x + x_size)
    throw std::invalid_argument("the output of a convolution or pooling overlaps its input");
  step.shape = shape;
}

void Program::add_adder_conv(std::shared_ptr<const AdderConv> conv, const ConvShape& shape,
                             int64_t x, int64_t z, int64_t y) {
  Step step = make_step(Kind::kAdderConv, shape.batch);
  step.x = x;
  step.z = z;
  step.y = y;
  reserve_conv(conv->params(), shape, step, ElementType::kFloat32);
  step.conv = std::move(conv);
  steps_.push_back(std::move(step));
}

void Program::add_qadder_conv(std::shared_ptr<const QAdderConv> conv, const ConvShape& shape,
                              int64_t x, int64_t z, int64_t y) {
  Step step = make_step(Kind::kQAdderConv, shape.batch);
  step.x = x;
  step.z = z;
  step.y = y;
  reserve_conv(conv->params(), shape, step, ElementType::kUint8);
  step.qconv = std::move(conv);
  steps_.push_back(std::move(step));
}

void Program::add_max_pool(const ConvParams& params, const ConvShape& shape, int64_t x,
                           int64_t y) {
  if (params.in_channels < 0 || params.out_channels != params.in_channels ||
      params.dilation_h < 1 || params.dilation_w < 1)
    throw std::invalid_argument("channels and dilations of a max pooling are not valid");
  Step step = make_step(Kind::kMaxPool, shape.batch);
  step.x = x;
  step.y = y;
  step.pool = params;
  reserve_conv(params, shape, step, ElementType::kUint8);
  steps_.push_back(std::move(step));
}

// What a step does for a pass, as tasks.
class Program::Tasks {
 public:
  Tasks(const Step& step, const Pass& pass, int threads)
      : step_(step), pass_(pass), shape_(pass.shape(step)), image_(pass.image(step)) {
    switch (step.kind) {
      case Kind::kAdderConv:
        work_ = step.conv->share_out(shape_, threads);
        break;
      case Kind::kQAdderConv:
        work_ = step.qconv->share_out(shape_, threads);
        break;
      case Kind::kMaxPool: {
        const int64_t rows_read = step.pool.kernel_h * shape_.in_w + shape_.out_w;
        const int64_t bytes = rows_read * padded_channels(step.pool.in_channels);
        work_ = share_out_rows(shape_, 1, bytes, threads);
        break;
      }
      default: break;
    }
  }

  int64_t count() const {
    switch (step_.kind) {
      case Kind::kAdderConv:
      case Kind::kQAdderConv:
      case Kind::kMaxPool: return work_.tasks;
      default: return conversion_tasks(image_);
    }
  }

  // Does nothing once the run is to stop.
  void run(int64_t task) const {
    if (pass_.stop.is_set()) return;
    const Step& s = step_;
    switch (s.kind) {
      case Kind::kNchwToNhwc:
        nchw_to_nhwc(image_, s.conversion,
                     static_cast<const char*>(pass_.inputs[s.port]) + pass_.before(s),
                     pass_.at(s.y), task);
        break;
      case Kind::kNhwcToNchw:
        nhwc_to_nchw(image_, s.conversion, pass_.at(s.x),
                     static_cast<char*>(pass_.outputs[s.port]) + pass_.before(s), task);
        break;
      case Kind::kAdderConv:
        s.conv->run(work_, task, shape_, pass_.at(s.x), pass_.at(s.z), pass_.at(s.y));
        break;
      case Kind::kQAdderConv:
        s.qconv->run(work_, task, shape_, bytes(pass_.at(s.x)), bytes(pass_.at(s.z)),
                     bytes(pass_.at(s.y)));
        break;
      case Kind::kMaxPool:
        max_pool(s.pool, shape_, bytes(pass_.at(s.x)), bytes(pass_.at(s.y)),
                 work_.rows_of(task, shape_));
        break;
    }
  }

 private:
  const Step& step_;
  const Pass& pass_;
  ConvShape shape_;
  ImageShape image_;
  Work work_{};
};

void Program::run_wide(const Pass& pass, int threads, double* seconds) const {
  std::vector<Tasks> tasks;
  std::vector<int64_t> counts;
  tasks.reserve(steps_.size());
  counts.reserve(steps_.size());
  for (const Step& step : steps_) {
    tasks.emplace_back(step, pass, threads);
    counts.push_back(tasks.back().count());
  }
  const auto task = [&](int64_t step, int64_t i) { tasks[step].run(i); };
  if (seconds == nullptr)
    return run_phases(counts.data(), static_cast<int64_t>(counts.size()), threads, task);
  for (size_t step = 0; step < steps_.size(); ++step) {
    const Clock::time_point start = Clock::now();
    parallel_for(counts[step], threads, [&](int64_t i) { tasks[step].run(i); });
    seconds[step] += seconds_since(start);
  }
}

void Program::run_narrow(const Pass& pass, double* seconds) const {
  for (size_t step = 0; step < steps_.size(); ++step) {
    const Clock::time_point start = seconds == nullptr ? Clock::time_point{} : Clock::now();
    const Tasks tasks(steps_[step], pass, 1);
    for (int64_t i = 0; i < tasks.count(); ++i) tasks.run(i);
    if (seconds != nullptr) seconds[step] += seconds_since(start);
  }
}

void Program::run(float* arena, const std::vector<const void*>& inputs,
                  const std::vector<void*>& outputs, int threads, const StopFlag& stop,
                  double* seconds) const {
  if (seconds != nullptr) std::fill_n(seconds, steps_.size(), 0.0);
  // As many passes on one thread each as leave no thread idle.
  const int64_t used = std::min(threads, kMaxPasses);
  const int64_t passes = batch_ > pass_ ? batch_ / pass_ / used * used : 0;
  if (passes > 0) {
    Slots free;
    const Clock::time_point start = Clock::now();
    std::vector<double> spent(seconds == nullptr ? 0 : used * steps_.size());
    parallel_for(passes, static_cast<int>(used), [&](int64_t i) {
      if (stop.is_set()) return;
      const int slot = free.take();
      const Pass pass{arena + slot * pass_size_, 1, i * pass_, pass_, inputs, outputs, stop};
      run_narrow(pass, seconds == nullptr ? nullptr : spent.data() + slot * steps_.size());
      free.give_back(slot);
    });
    if (seconds != nullptr) {
      const double wall = seconds_since(start);
      double all = 0;
      for (double part : spent) all += part;
      for (size_t i = 0; i < spent.size(); ++i)
        seconds[i % steps_.size()] += all > 0 ? spent[i] * wall / all : 0;
    }
  }
  const int64_t left = batch_ - passes * pass_;
  if (left == 0 && passes > 0) return;
  const int64_t scale = left > pass_ ? slots(threads) : 1;
  run_wide({arena, scale, passes * pass_, left, inputs, outputs, stop}, threads, seconds);
}

}  // namespace adder_onnx
