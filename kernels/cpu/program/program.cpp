#include "program/program.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <stdexcept>
#include <utility>

#include "layers/checks.h"
#include "threads/thread_pool.h"

namespace adder_onnx {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kMaxPasses = 64;  // at the same time

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

uint8_t* bytes(float* at) { return reinterpret_cast<uint8_t*>(at); }

void check_alignment(const void* at, int64_t alignment) {
  if (reinterpret_cast<uintptr_t>(at) % static_cast<uintptr_t>(alignment) != 0)
    throw std::invalid_argument("an array is not aligned to its elements");
}

// Inputs and outputs are numbered in the order in which they are added.
template <typename Ports>
void check_number(int64_t number, const Ports& ports) {
  if (number != static_cast<int64_t>(ports.size()))
    throw std::invalid_argument("inputs and outputs must be added in the order of their numbers");
}

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
  if (batch < 0 || pass < 1)
    throw std::invalid_argument("a batch must have no less than 0 images, and a pass at least one");
  checked_sum(batch, 0);
  checked_sum(pass, 0);
}

int64_t Program::arena_size(int threads) const { return tensors_.size() * slots(threads); }

int64_t Program::slots(int threads) const {
  if (threads < 1) throw std::invalid_argument("threads must be at least 1");
  return std::clamp<int64_t>(ceil_div(batch_, pass_), 1, std::min(threads, kMaxPasses));
}

Program::Step Program::make_step(Kind kind, int64_t batch) const {
  if (is_closed_.is_set())
    throw std::invalid_argument("nothing can be added to a program that has run");
  if (batch != batch_ && !is_one_pass())
    throw std::invalid_argument("only a program of one pass may have steps of different batches");
  if (batch > batch_)
    throw std::invalid_argument("a step has a larger batch than its program");
  Step step;
  step.kind = kind;
  step.batch = batch;
  return step;
}

// Of one pass. `shape` must have passed check_image, or check_shape have looked at it.
Tensor Program::make_tensor(int64_t offset, ImageShape shape, ElementType type) const {
  if (offset < 0) throw std::invalid_argument("a buffer's offset is negative");
  shape.batch = std::min(shape.batch, pass_);
  const Tensor tensor = {offset, shape, type};
  checked_sum(offset, tensor.size());
  return tensor;
}

void Program::add_nchw_to_nhwc(int64_t input, const Conversion& conversion,
                               const ImageShape& shape, int64_t to) {
  check_conversion(conversion, true);
  check_image(shape);
  Step step = make_step(Kind::kNchwToNhwc, shape.batch);
  const Tensor y = make_tensor(to, shape, conversion.inside);
  check_number(input, inputs_);
  step.port = input;
  step.conversion = conversion;
  step.image = y.shape;
  step.y = to;
  step.is_empty = shape.nchw_size() == 0;
  inputs_.push_back({shape, conversion.outside});
  steps_.push_back(std::move(step));
  tensors_.write(y);
}

void Program::add_nhwc_to_nchw(int64_t from, const ImageShape& shape, int64_t output,
                               const Conversion& conversion) {
  check_conversion(conversion, false);
  check_image(shape);
  Step step = make_step(Kind::kNhwcToNchw, shape.batch);
  const Tensor x = make_tensor(from, shape, conversion.inside);
  check_number(output, outputs_);
  tensors_.check_read(x, is_one_pass());
  step.port = output;
  step.conversion = conversion;
  step.image = x.shape;
  step.x = from;
  step.is_empty = shape.nchw_size() == 0;
  outputs_.push_back({shape, conversion.outside});
  steps_.push_back(std::move(step));
  tensors_.read(x);
}

void Program::add_conv(Step step, const ConvParams& a, const ConvShape& shape, ElementType type) {
  check_shape(a, shape);
  const ImageShape in = {shape.batch, a.in_channels, shape.in_h, shape.in_w};
  const ImageShape out = {shape.batch, a.out_channels, shape.out_h, shape.out_w};
  const Tensor x = make_tensor(step.x, in, type), y = make_tensor(step.y, out, type);
  Tensors::check_apart(y, x);
  tensors_.check_read(x, is_one_pass());
  if (step.z >= 0) {
    const Tensor z = make_tensor(step.z, out, type);
    Tensors::check_residual(y, z);
    tensors_.check_read(z, is_one_pass());
    tensors_.read(z);
  }
  step.shape = shape;
  step.is_empty = out.nchw_size() == 0;
  steps_.push_back(std::move(step));
  tensors_.read(x);
  tensors_.write(y);
}

void Program::add_adder_conv(std::shared_ptr<const AdderConv> conv, const ConvShape& shape,
                             int64_t x, int64_t z, int64_t y) {
  if (conv == nullptr) throw std::invalid_argument("there is no convolution");
  Step step = make_step(Kind::kAdderConv, shape.batch);
  step.x = x;
  step.z = z;
  step.y = y;
  step.conv = conv;
  add_conv(std::move(step), conv->params(), shape, ElementType::kFloat32);
}

void Program::add_qadder_conv(std::shared_ptr<const QAdderConv> conv, const ConvShape& shape,
                              int64_t x, int64_t z, int64_t y) {
  if (conv == nullptr) throw std::invalid_argument("there is no convolution");
  Step step = make_step(Kind::kQAdderConv, shape.batch);
  step.x = x;
  step.z = z;
  step.y = y;
  step.qconv = conv;
  add_conv(std::move(step), conv->params(), shape, ElementType::kUint8);
}

void Program::add_max_pool(const ConvParams& params, const ConvShape& shape, int64_t x,
                           int64_t y) {
  check_params(params);
  if (params.out_channels != params.in_channels || params.group != 1)
    throw std::invalid_argument("a max pooling has as many channels out as in, in one group");
  Step step = make_step(Kind::kMaxPool, shape.batch);
  step.x = x;
  step.y = y;
  step.pool = params;
  add_conv(std::move(step), params, shape, ElementType::kUint8);
}

void Program::check_run(const float* arena, const std::vector<const void*>& inputs,
                        const std::vector<void*>& outputs, int threads) const {
  if (inputs.size() != inputs_.size()) throw std::invalid_argument("wrong number of inputs");
  if (outputs.size() != outputs_.size()) throw std::invalid_argument("wrong number of outputs");
  check_alignment(arena, alignof(float));
  const Memory own = {arena, arena_size(threads) * static_cast<int64_t>(sizeof(float))};
  std::vector<Memory> others;
  for (size_t i = 0; i < inputs.size(); ++i) {
    check_alignment(inputs[i], size_of(inputs_[i].type));
    others.push_back({inputs[i], inputs_[i].bytes()});
    if (overlap(own, others.back()))
      throw std::invalid_argument("an input shares memory with the arena");
  }
  others.push_back(own);
  for (size_t i = 0; i < outputs.size(); ++i) {
    check_alignment(outputs[i], size_of(outputs_[i].type));
    const Memory written = {outputs[i], outputs_[i].bytes()};
    for (const Memory& other : others)
      if (overlap(written, other))
        throw std::invalid_argument("an output shares memory with the arena, an input or an output");
    others.push_back(written);
  }
}

// What a step does for a pass, as tasks.
class Program::Tasks {
 public:
  Tasks(const Step& step, const Pass& pass, int threads)
      : step_(step), pass_(pass), shape_(pass.shape(step)), image_(pass.image(step)) {
    if (step.is_empty) return;
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

  int64_t scratch_bytes() const {
    if (count() == 0) return 0;
    switch (step_.kind) {
      case Kind::kAdderConv: return step_.conv->scratch_bytes(shape_, work_);
      case Kind::kQAdderConv: return step_.qconv->scratch_bytes(shape_, work_);
      default: return 0;
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

int64_t Program::scratch_size(int threads) const {
  static const std::vector<const void*> kNoInputs;
  static const std::vector<void*> kNoOutputs;
  const StopFlag& never = StopFlag::never();
  const int64_t most = std::min(batch_, slots(threads) * pass_);
  const Pass narrow{nullptr, 1, 0, std::min(batch_, pass_), kNoInputs, kNoOutputs, never};
  const Pass wide{nullptr, 1, 0, most, kNoInputs, kNoOutputs, never};
  int64_t bytes = 0;
  for (const Step& step : steps_)
    bytes = std::max({bytes, Tasks(step, narrow, 1).scratch_bytes(),
                      Tasks(step, wide, threads).scratch_bytes()});
  const int64_t used = std::min(threads, kMaxThreads);
  return std::min(bytes, std::numeric_limits<int64_t>::max() / used) * used;
}

void Program::run_wide(const Pass& pass, const Workers& workers, double* seconds) const {
  std::vector<Tasks> tasks;
  std::vector<int64_t> counts;
  tasks.reserve(steps_.size());
  counts.reserve(steps_.size());
  for (const Step& step : steps_) {
    tasks.emplace_back(step, pass, workers.count());
    counts.push_back(tasks.back().count());
  }
  const auto task = [&](int64_t step, int64_t i) { tasks[step].run(i); };
  if (seconds == nullptr)
    return run_phases(counts.data(), static_cast<int64_t>(counts.size()), workers, task);
  for (size_t step = 0; step < steps_.size(); ++step) {
    const Clock::time_point start = Clock::now();
    parallel_for(counts[step], workers, [&](int64_t i) { tasks[step].run(i); });
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
                  const std::vector<void*>& outputs, const Workers& workers, double* seconds,
                  const StopFlag& stop) const {
  const int threads = workers.count();
  check_run(arena, inputs, outputs, threads);
  close();
  if (seconds != nullptr) std::fill_n(seconds, steps_.size(), 0.0);
  const auto is_empty = [](const Step& step) { return step.is_empty; };
  if (std::all_of(steps_.begin(), steps_.end(), is_empty)) return;
  // As many passes on one thread each as leave no thread idle.
  const int64_t used = std::min(threads, kMaxPasses);
  const int64_t passes = batch_ > pass_ ? batch_ / pass_ / used * used : 0;
  if (passes > 0) {
    Slots free;
    const Clock::time_point start = Clock::now();
    std::vector<double> spent(seconds == nullptr ? 0 : used * steps_.size());
    parallel_for(passes, FewerWorkers(workers, kMaxPasses), [&](int64_t i) {
      if (stop.is_set()) return;
      const int slot = free.take();
      const Pass pass{arena + slot * tensors_.size(), 1, i * pass_, pass_, inputs, outputs, stop};
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
  run_wide({arena, scale, passes * pass_, left, inputs, outputs, stop}, workers, seconds);
}

}  // namespace adder_onnx
