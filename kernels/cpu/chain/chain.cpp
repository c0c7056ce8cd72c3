#include "chain/chain.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "chain/placement.h"
#include "layers/checks.h"

namespace adder_onnx {
namespace {

constexpr size_t kMaxPlans = 16;

bool is_same(const ImageShape& a, const ImageShape& b) {
  return a.batch == b.batch && a.channels == b.channels && a.height == b.height &&
         a.width == b.width;
}

bool is_same(const ConvParams& a, const ConvParams& b) {
  const auto tied = [](const ConvParams& p) {
    return std::tie(p.in_channels, p.out_channels, p.kernel_h, p.kernel_w, p.stride_h, p.stride_w,
                    p.dilation_h, p.dilation_w, p.group);
  };
  return tied(a) == tied(b);
}

template <typename T>
bool are_same(const std::vector<T>& a, const std::vector<T>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const T& x, const T& y) { return is_same(x, y); });
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

// The sizes of all values, by number. Throws ShapeError.
std::vector<ImageShape> shapes_of(const std::vector<ChainLayer>& layers,
                                  const std::vector<ImageShape>& entering) {
  std::vector<ImageShape> shapes = entering;
  for (const ImageShape& shape : entering) check_image(shape);
  for (const ChainLayer& layer : layers) {
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

}  // namespace

Chain::Chain(std::vector<Conversion> entries, std::vector<ChainLayer> layers,
             std::vector<ChainPort> exits)
    : entries_(std::move(entries)), layers_(std::move(layers)), exits_(std::move(exits)) {
  for (const Conversion& entry : entries_) check_conversion(entry, true);
  const auto check = [](bool holds) {
    if (!holds) throw std::invalid_argument("a layer takes a value that is not there, or not its type");
  };
  int64_t given = static_cast<int64_t>(entries_.size());
  for (const ChainLayer& layer : layers_) {
    check(layer.x >= 0 && layer.x < given && type_of(layer.x) == layer.type());
    check(layer.z < given && (layer.z < 0 || type_of(layer.z) == layer.type()));
    ++given;
  }
  for (size_t i = 0; i < layers_.size(); ++i)
    if (layers_[i].unweighted) computed_.push_back(i);
  for (const ChainPort& exit : exits_) {
    check(exit.value >= 0 && exit.value < given && type_of(exit.value) == exit.conversion.inside);
    check_conversion(exit.conversion, false);
  }
}

ElementType Chain::type_of(int64_t value) const {
  const auto entries = static_cast<int64_t>(entries_.size());
  return value < entries ? entries_[value].inside : layers_[value - entries].type();
}

void Chain::check_weight_count(size_t count) const {
  if (count != computed_.size()) throw std::invalid_argument("wrong number of weights");
}

Chain::Layers Chain::weighted(const std::vector<Operand>& weights) const {
  Layers layers = layers_;
  for (size_t i = 0; i < weights.size(); ++i) {
    ChainLayer& layer = layers[computed_[i]];
    try {
      layer = with_weight(layer, weights[i]);
    } catch (const std::invalid_argument& error) {
      throw std::invalid_argument(layer.label + ": " + error.what());
    }
  }
  return layers;
}

// The parameters by which a plan depends on weights.
std::vector<ConvParams> Chain::computed_of(const Layers& layers) const {
  std::vector<ConvParams> params;
  for (size_t number : computed_) params.push_back(layers[number].params);
  return params;
}

std::vector<ImageShape> Chain::infer_shapes(const std::vector<ImageShape>& entering) const {
  if (entering.size() != entries_.size()) throw std::invalid_argument("wrong number of inputs");
  check_weight_count(0);
  return shapes_of(layers_, entering);
}

// What takes a value says how many channels it has, and so does, through a pooling, what takes that.
int64_t Chain::input_channels(size_t number) const {
  std::vector<int64_t> channels(entries_.size() + layers_.size(), -1);
  for (size_t i = layers_.size(); i-- > 0;) {
    const ChainLayer& layer = layers_[i];
    const int64_t given = channels[entries_.size() + i];
    if (layer.z >= 0) channels[layer.z] = layer.params.out_channels;
    if (!layer.is_pool())
      channels[layer.x] = layer.params.in_channels;
    else if (given >= 0)
      channels[layer.x] = given;
  }
  return channels[number];
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

ChainPlan Chain::make_plan(const Layers& layers, const std::vector<ImageShape>& entering,
                           int threads) const {
  std::vector<ImageShape> shapes = shapes_of(layers, entering);
  const auto floats = [&](size_t value, int64_t images) {
    return floats_of(shapes[value], type_of(static_cast<int64_t>(value)), images);
  };
  std::vector<int64_t> bytes;
  for (size_t i = 0; i < shapes.size(); ++i) bytes.push_back(4 * floats(i, 1));
  const Passes passes = plan_passes(shapes, bytes, threads);
  std::vector<Buffer> buffers = lifetimes();
  for (size_t i = 0; i < shapes.size(); ++i) buffers[i].size = floats(i, passes.images);
  Placement at = place_buffers(buffers);
  auto arenas = std::make_shared<Arenas>(checked_product({4, at.size, passes.at_once}));
  return {entering, threads, computed_of(layers), std::move(shapes),
          passes,   std::move(at.offsets), std::move(arenas)};
}

std::shared_ptr<const ChainProgram> Chain::assemble(const Layers& layers,
                                                    std::shared_ptr<const ChainPlan> plan) const {
  const std::vector<ImageShape>& shapes = plan->shapes;
  const std::vector<int64_t>& at = plan->offsets;
  Program program(plan->passes.batch, plan->passes.images);
  for (size_t i = 0; i < entries_.size(); ++i)
    program.add_nchw_to_nhwc(static_cast<int64_t>(i), entries_[i], shapes[i], at[i]);
  for (size_t i = 0; i < layers.size(); ++i) {
    const ChainLayer& layer = layers[i];
    const ConvShape shape = conv_shape(layer.params, layer.padding, shapes[layer.x]);
    const int64_t from = at[layer.x], to = at[entries_.size() + i];
    const int64_t residual = layer.z < 0 ? -1 : at[layer.z];
    if (layer.conv)
      program.add_adder_conv(layer.conv, shape, from, residual, to);
    else if (layer.qconv)
      program.add_qadder_conv(layer.qconv, shape, from, residual, to);
    else
      program.add_max_pool(with_channels(layer.params, shapes[layer.x].channels), shape, from, to);
  }
  for (size_t i = 0; i < exits_.size(); ++i) {
    const ChainPort& exit = exits_[i];
    program.add_nhwc_to_nchw(at[exit.value], shapes[exit.value], static_cast<int64_t>(i),
                             exit.conversion);
  }
  return std::make_shared<const ChainProgram>(std::move(plan), std::move(program));
}

int64_t Chain::result_bytes(const ChainPlan& plan) const {
  int64_t bytes = 0;
  for (const ChainPort& exit : exits_)
    bytes = checked_sum(
        bytes, Program::Port{plan.shapes[exit.value], exit.conversion.outside}.bytes());
  return bytes;
}

std::optional<Chain::Kept> Chain::find(const std::vector<ImageShape>& entering, int threads,
                                       const std::vector<ConvParams>& computed) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = std::find_if(kept_.begin(), kept_.end(), [&](const Kept& kept) {
    return kept.plan->threads == threads && are_same(kept.plan->inputs, entering) &&
           are_same(kept.plan->computed, computed);
  });
  if (found == kept_.end()) return std::nullopt;
  std::rotate(kept_.begin(), found, found + 1);
  return kept_.front();
}

std::shared_ptr<const ChainProgram> Chain::program_of(const Layers& layers,
                                                      const std::vector<ImageShape>& entering,
                                                      int threads, const Approve& approve) const {
  if (entering.size() != entries_.size()) throw std::invalid_argument("wrong number of inputs");
  if (const auto kept = find(entering, threads, computed_of(layers)))
    return kept->program ? kept->program : assemble(layers, kept->plan);
  const auto plan = std::make_shared<const ChainPlan>(make_plan(layers, entering, threads));
  const auto made = assemble(layers, plan);
  if (approve) approve(checked_sum(made->run_bytes(), result_bytes(*plan)));
  std::lock_guard<std::mutex> lock(mutex_);
  kept_.insert(kept_.begin(), {plan, computed_.empty() ? made : nullptr});
  if (kept_.size() > kMaxPlans) kept_.pop_back();
  return made;
}

std::shared_ptr<const ChainProgram> Chain::program(const std::vector<ImageShape>& entering,
                                                   int threads, const Approve& approve,
                                                   const std::vector<Operand>& weights) const {
  check_weight_count(weights.size());
  if (weights.empty()) return program_of(layers_, entering, threads, approve);
  return program_of(weighted(weights), entering, threads, approve);
}

std::vector<std::shared_ptr<const ChainPlan>> Chain::plans() const {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<std::shared_ptr<const ChainPlan>> plans;
  for (auto kept = kept_.rbegin(); kept != kept_.rend(); ++kept) plans.push_back(kept->plan);
  return plans;
}

}  // namespace adder_onnx
