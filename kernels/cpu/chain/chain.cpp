#include "chain/chain.h"

#include <algorithm>
#include <new>
#include <utility>

#include "chain/passes.h"
#include "chain/placement.h"
#include "layers/checks.h"

namespace adder_onnx {
namespace {

constexpr size_t kMaxPrograms = 16;
constexpr size_t kMaxArenas = 8;
constexpr std::align_val_t kArenaAlignment{64};

bool is_same(const ImageShape& a, const ImageShape& b) {
  return a.batch == b.batch && a.channels == b.channels && a.height == b.height &&
         a.width == b.width;
}

bool are_same(const std::vector<ImageShape>& a, const std::vector<ImageShape>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), is_same);
}

std::string text(const ImageShape& s) {
  return "(" + std::to_string(s.batch) + ", " + std::to_string(s.channels) + ", " +
         std::to_string(s.height) + ", " + std::to_string(s.width) + ")";
}

// Throws where an image has other channels than the filters take.
void check_channels(const ConvParams& a, int64_t channels) {
  if (a.in_channels == channels) return;
  throw std::invalid_argument(
      "weight of shape [" + std::to_string(a.out_channels) + ", " + std::to_string(a.group_in()) +
      ", " + std::to_string(a.kernel_h) + ", " + std::to_string(a.kernel_w) +
      "] with group=" + std::to_string(a.group) + " takes " + std::to_string(a.in_channels) +
      " input channels, but the input has " + std::to_string(channels));
}

// A pooling's parameters for an image.
ConvParams with_channels(ConvParams a, int64_t channels) {
  a.in_channels = a.out_channels = channels;
  a.group = 1;
  return a;
}

// Of one pass, in floats.
int64_t floats_of(ImageShape shape, ElementType type, int64_t images) {
  shape.batch = std::min(shape.batch, images);
  check_image(shape);
  return Tensor{0, shape, type}.size();
}

}  // namespace

ChainProgram::ChainProgram(Program program, std::vector<ImageShape> inputs, int threads)
    : program_(std::move(program)), inputs_(std::move(inputs)), threads_(threads) {
  program_.close();
}

int64_t ChainProgram::arena_bytes() const {
  return program_.arena_size(threads_) * static_cast<int64_t>(sizeof(float));
}

int64_t ChainProgram::run_bytes() const { return arena_bytes() + program_.scratch_size(threads_); }

int64_t ChainProgram::arenas() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return static_cast<int64_t>(free_.size());
}

ChainProgram::Arena ChainProgram::take_arena() const {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!free_.empty()) {
      Arena arena = std::move(free_.back());
      free_.pop_back();
      return arena;
    }
  }
  const auto size = static_cast<size_t>(std::max<int64_t>(arena_bytes(), 1));
  return Arena(static_cast<float*>(::operator new(size, kArenaAlignment)),
               [](float* at) { ::operator delete(at, kArenaAlignment); });
}

void ChainProgram::run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs,
                       const Workers& workers, double* seconds, const StopFlag& stop) const {
  Arena arena = take_arena();
  program_.run(arena.get(), inputs, outputs, FewerWorkers(workers, threads_), seconds, stop);
  std::lock_guard<std::mutex> lock(mutex_);
  if (free_.size() < kMaxArenas) free_.push_back(std::move(arena));
}

Chain::Chain(std::vector<Conversion> entries, std::vector<ChainLayer> layers,
             std::vector<ChainPort> exits)
    : entries_(std::move(entries)), layers_(std::move(layers)), exits_(std::move(exits)) {
  for (const Conversion& entry : entries_) check_conversion(entry);
  const auto check = [](bool holds) {
    if (!holds) throw std::invalid_argument("a layer takes a value that is not there, or not its type");
  };
  int64_t given = static_cast<int64_t>(entries_.size());
  for (const ChainLayer& layer : layers_) {
    check(layer.x >= 0 && layer.x < given && type_of(layer.x) == layer.type());
    check(layer.z < given && (layer.z < 0 || type_of(layer.z) == layer.type()));
    ++given;
  }
  for (const ChainPort& exit : exits_) {
    check(exit.value >= 0 && exit.value < given && type_of(exit.value) == exit.conversion.inside);
    check_conversion(exit.conversion);
  }
}

ElementType Chain::type_of(int64_t value) const {
  const auto entries = static_cast<int64_t>(entries_.size());
  return value < entries ? entries_[value].inside : layers_[value - entries].type();
}

std::vector<ImageShape> Chain::infer_shapes(const std::vector<ImageShape>& entering) const {
  if (entering.size() != entries_.size()) throw std::invalid_argument("wrong number of inputs");
  std::vector<ImageShape> shapes = entering;
  for (const ImageShape& shape : entering) check_image(shape);
  for (const ChainLayer& layer : layers_) {
    const ImageShape& x = shapes[layer.x];
    try {
      if (!layer.is_pool()) check_channels(layer.params, x.channels);
      const ConvShape s = conv_shape(layer.params, layer.padding, x);
      const int64_t channels = layer.is_pool() ? x.channels : layer.params.out_channels;
      const ImageShape y = {x.batch, channels, s.out_h, s.out_w};
      if (layer.z >= 0 && !is_same(shapes[layer.z], y))
        throw std::invalid_argument("the residual has shape " + text(shapes[layer.z]) +
                                    ", expected " + text(y));
      check_image(y);
      shapes.push_back(y);
    } catch (const std::invalid_argument& error) {
      throw ShapeError(layer.label + ": " + error.what());
    }
  }
  return shapes;
}

// Time: all inputs are converted, then layers run one by one, then outputs are converted.
std::vector<Buffer> Chain::lifetimes() const {
  std::vector<Buffer> buffers(entries_.size(), Buffer{0, -1, -1});
  const auto end = static_cast<int64_t>(layers_.size());
  for (int64_t time = 0; time < end; ++time) {
    buffers.push_back({0, time, time});
    buffers[layers_[time].x].last = time;
    if (layers_[time].z >= 0) buffers[layers_[time].z].last = time;
  }
  for (const ChainPort& exit : exits_) buffers[exit.value].last = end;
  return buffers;
}

std::shared_ptr<const ChainProgram> Chain::make(const std::vector<ImageShape>& entering,
                                                int threads, const Approve& approve) const {
  const std::vector<ImageShape> shapes = infer_shapes(entering);
  std::vector<int64_t> bytes;
  for (size_t i = 0; i < shapes.size(); ++i)
    bytes.push_back(4 * floats_of(shapes[i], type_of(static_cast<int64_t>(i)), 1));
  const Passes passes = plan_passes(shapes, bytes, threads);
  std::vector<Buffer> buffers = lifetimes();
  for (size_t i = 0; i < shapes.size(); ++i)
    buffers[i].size = floats_of(shapes[i], type_of(static_cast<int64_t>(i)), passes.images);
  const Placement at = place_buffers(buffers);
  int64_t results = 0;
  for (const ChainPort& exit : exits_)
    results = checked_sum(results, Program::Port{shapes[exit.value], exit.conversion.outside}.bytes());
  const auto approved = [&](int64_t size) {
    if (approve) approve(checked_sum(size, results));
  };
  approved(checked_product({4, at.size, passes.at_once}));

  Program program(passes.batch, passes.images);
  for (size_t i = 0; i < entries_.size(); ++i)
    program.add_nchw_to_nhwc(static_cast<int64_t>(i), entries_[i], shapes[i], at.offsets[i]);
  for (size_t i = 0; i < layers_.size(); ++i) {
    const ChainLayer& layer = layers_[i];
    const size_t y = entries_.size() + i;
    const ConvShape shape = conv_shape(layer.params, layer.padding, shapes[layer.x]);
    const int64_t from = at.offsets[layer.x], to = at.offsets[y];
    const int64_t residual = layer.z < 0 ? -1 : at.offsets[layer.z];
    if (layer.conv)
      program.add_adder_conv(layer.conv, shape, from, residual, to);
    else if (layer.qconv)
      program.add_qadder_conv(layer.qconv, shape, from, residual, to);
    else
      program.add_max_pool(with_channels(layer.params, shapes[layer.x].channels), shape, from, to);
  }
  for (size_t i = 0; i < exits_.size(); ++i) {
    const ChainPort& exit = exits_[i];
    program.add_nhwc_to_nchw(at.offsets[exit.value], shapes[exit.value], static_cast<int64_t>(i),
                             exit.conversion);
  }
  auto made = std::make_shared<const ChainProgram>(std::move(program), entering, threads);
  approved(made->run_bytes());
  return made;
}

std::shared_ptr<const ChainProgram> Chain::program(const std::vector<ImageShape>& entering,
                                                   int threads, const Approve& approve) const {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = std::find_if(kept_.begin(), kept_.end(), [&](const auto& kept) {
      return kept->threads() == threads && are_same(kept->inputs(), entering);
    });
    if (found != kept_.end()) {
      std::rotate(kept_.begin(), found, found + 1);
      return kept_.front();
    }
  }
  auto made = make(entering, threads, approve);
  std::lock_guard<std::mutex> lock(mutex_);
  kept_.insert(kept_.begin(), made);
  if (kept_.size() > kMaxPrograms) kept_.pop_back();
  return made;
}

std::vector<std::shared_ptr<const ChainProgram>> Chain::programs() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return {kept_.rbegin(), kept_.rend()};
}

}  // namespace adder_onnx
