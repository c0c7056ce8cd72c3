#include "chain/description.h"

#include <set>
#include <stdexcept>
#include <utility>

#include "layers/checks.h"

namespace adder_onnx {
namespace {

constexpr int64_t kNewest = 2;  // version
constexpr int64_t kFewestOfLayer = 15;  // integers

enum Kind : int64_t { kAdderConv = 0, kQLinearAdderConv = 1, kMaxPool = 2 };

// The numbers of a description, one after the other.
template <typename T>
class Numbers {
 public:
  explicit Numbers(const std::vector<T>& numbers) : numbers_(numbers) {}

  T next() {
    if (at_ == numbers_.size()) throw std::invalid_argument("the description of a chain is too short");
    return numbers_[at_++];
  }
  // One from 0 to `most`.
  int next_of(int64_t most) {
    const T number = next();
    if (!(number >= 0 && number <= static_cast<T>(most)))
      throw std::invalid_argument("a number in the description of a chain is out of range: " +
                                  std::to_string(number));
    return static_cast<int>(number);
  }
  size_t left() const { return numbers_.size() - at_; }

 private:
  const std::vector<T>& numbers_;
  size_t at_ = 0;
};

class Reader {
 public:
  Reader(const Description& description, const std::vector<Operand>& operands, Isa isa, Form form,
         const std::vector<std::string>& labels)
      : integers_(description.integers), floats_(description.floats), operands_(operands),
        isa_(isa), form_(form), labels_(labels) {}

  std::shared_ptr<const Chain> read() {
    version_ = integers_.next();
    if (version_ < 1 || version_ > kNewest)
      throw std::invalid_argument("the description of a chain is of another version");
    const int64_t entry_count = count(4), layer_count = count(kFewestOfLayer), exit_count = count(5);
    std::vector<Conversion> entries;
    for (int64_t i = 0; i < entry_count; ++i) {
      entries.push_back(entry());
      values_.push_back(values_of(entries.back()));
    }
    std::vector<ChainLayer> layers;
    for (int64_t i = 0; i < layer_count; ++i) {
      layers.push_back(layer(i));
      values_.push_back(values_of(layers.back()));
    }
    std::vector<ChainPort> exits;
    for (int64_t i = 0; i < exit_count; ++i) {
      const int64_t value = integers_.next();
      exits.push_back({conversion(), value});
    }
    if (integers_.left() != 0 || floats_.left() != 0)
      throw std::invalid_argument("the description of a chain is too long");
    return std::make_shared<const Chain>(std::move(entries), std::move(layers), std::move(exits));
  }

 private:
  // How many there are of what takes at least `each` of the integers.
  int64_t count(int64_t each) {
    const auto most = static_cast<int64_t>(integers_.left()) / each;
    const int64_t number = integers_.next();
    if (number < 0 || number > most)
      throw std::invalid_argument("the description of a chain is too short for what it has");
    return number;
  }

  Conversion conversion() {
    const auto outside = static_cast<ElementType>(integers_.next_of(2));
    const auto inside = static_cast<ElementType>(integers_.next_of(2));
    const int zero_point = integers_.next_of(255), top = integers_.next_of(255);
    return {outside, inside, floats_.next(), zero_point, top};
  }

  Conversion entry() {
    Conversion found = conversion();
    const int64_t number = version_ < 2 ? -1 : integers_.next();
    if (number == -1) return found;
    const Operand& bytes = operand_of(number, ElementType::kUint8);
    if (bytes.shape != std::vector<int64_t>{ByteTable::kSize})
      throw std::invalid_argument("a table of the chain does not have 256 entries");
    found.table = std::make_shared<const ByteTable>(static_cast<const uint8_t*>(bytes.data));
    return found;
  }

  ChainLayer layer(int64_t number) {
    ChainLayer layer{};
    const auto at = static_cast<size_t>(number);
    layer.label = at < labels_.size() ? labels_[at] : "layer " + std::to_string(number);
    const int64_t kind = integers_.next_of(kMaxPool);
    layer.x = integers_.next();
    layer.z = integers_.next();
    ConvParams& a = layer.params;
    for (int64_t* of : {&a.stride_h, &a.stride_w, &a.dilation_h, &a.dilation_w}) *of = integers_.next();
    Padding& p = layer.padding;
    p.mode = static_cast<AutoPad>(integers_.next_of(3));
    for (int64_t* of : {&p.top, &p.left, &p.bottom, &p.right}) *of = checked_sum(integers_.next(), 0);
    try {
      if (kind == kAdderConv)
        read_conv(&layer);
      else if (kind == kQLinearAdderConv)
        read_qconv(&layer);
      else
        read_pool(&layer);
    } catch (const std::invalid_argument& error) {
      throw std::invalid_argument(layer.label + ": " + error.what());
    }
    return layer;
  }

  const Operand& operand(ElementType type, bool may_be_computed = false) {
    return operand_of(integers_.next(), type, may_be_computed);
  }

  const Operand& operand_of(int64_t number, ElementType type, bool may_be_computed = false) {
    if (number < 0 || number >= static_cast<int64_t>(operands_.size()))
      throw std::invalid_argument("the chain has no array of number " + std::to_string(number));
    const Operand& found = operands_[static_cast<size_t>(number)];
    if (found.type != type) throw std::invalid_argument("an array of the chain has the wrong type");
    if (found.is_computed && !may_be_computed)
      throw std::invalid_argument("an array of the chain is computed that must be constant");
    return found;
  }

  // One value for each filter.
  std::vector<float> per_filter() {
    const Operand& found = operand(ElementType::kFloat32);
    if (found.shape.empty() || element_count(found.shape) != found.shape[0])
      throw std::invalid_argument("scale and bias must have one value per filter");
    const auto* first = static_cast<const float*>(found.data);
    return {first, first + found.shape[0]};
  }

  void read_conv(ChainLayer* layer) {
    layer->params.group = integers_.next();
    const Operand& weight = operand(ElementType::kFloat32, true);
    std::vector<float> scale = per_filter(), bias = per_filter();
    const float low = floats_.next(), high = floats_.next();
    layer->params.out_channels = static_cast<int64_t>(scale.size());
    layer->unweighted = std::make_shared<const UnweightedConv>(
        UnweightedConv{std::move(scale), std::move(bias), Clip{low, high}, form_, isa_});
    if (!weight.is_computed) *layer = with_weight(std::move(*layer), weight);
  }

  void read_qconv(ChainLayer* layer) {
    ConvParams& a = layer->params;
    a.group = integers_.next();
    const Operand& weight = operand(ElementType::kUint8);
    a = with_weight(a, weight.shape);
    const std::vector<float> factor = per_filter(), bias = per_filter();
    check_filters(a, factor, bias);
    const int x_zero_point = integers_.next_of(255), z_zero_point = integers_.next_of(255);
    const int y_zero_point = integers_.next_of(255), bits = integers_.next_of(8);
    const float z_scale = floats_.next(), y_scale = floats_.next(), clip_min = floats_.next();
    const Q8Activation activation = {z_scale,      z_zero_point, y_scale,
                                     y_zero_point, clip_min,     (1 << bits) - 1,
                                     levels()};
    layer->qconv = std::make_shared<const QAdderConv>(
        a, static_cast<const uint8_t*>(weight.data), static_cast<uint8_t>(x_zero_point),
        factor.data(), bias.data(), activation, isa_,
        Q8Values{values_at(layer->x), values_at(layer->z), layer->z >= 0});
  }

  // All that a value holds, ascending, where they are few; else none.
  static std::vector<uint8_t> values_of(const Conversion& entry) {
    if (!entry.table) return {};
    const auto& bytes = entry.table->bytes();
    const std::set<uint8_t> values(bytes.begin(), bytes.end());
    return {values.begin(), values.end()};
  }
  std::vector<uint8_t> values_of(const ChainLayer& layer) const {
    if (layer.qconv) return layer.qconv->levels();
    std::vector<uint8_t> values = values_at(layer.x);
    // A window in the padding has 0.
    if (!values.empty() && values.front() != 0) values.insert(values.begin(), uint8_t{0});
    return values;
  }
  std::vector<uint8_t> values_at(int64_t value) const {
    const bool is_there = value >= 0 && value < static_cast<int64_t>(values_.size());
    return is_there ? values_[value] : std::vector<uint8_t>{};
  }

  std::vector<uint8_t> levels() {
    std::vector<uint8_t> found(version_ < 2 ? 0 : static_cast<size_t>(integers_.next_of(16)));
    for (uint8_t& level : found) level = static_cast<uint8_t>(integers_.next_of(255));
    return found;
  }

  void read_pool(ChainLayer* layer) {
    ConvParams& a = layer->params;
    a.kernel_h = integers_.next();
    a.kernel_w = integers_.next();
    a.group = 1;
    layer->padding.ceil = integers_.next_of(1) == 1;
    check_params(a);
    if (layer->z >= 0) throw std::invalid_argument("a pooling has no residual");
  }

  int64_t version_ = 0;
  std::vector<std::vector<uint8_t>> values_;  // by number, as values_of gives them
  Numbers<int64_t> integers_;
  Numbers<float> floats_;
  const std::vector<Operand>& operands_;
  const Isa isa_;
  const Form form_;
  const std::vector<std::string>& labels_;
};

}  // namespace

std::shared_ptr<const Chain> read_chain(const Description& description,
                                        const std::vector<Operand>& operands, Isa isa, Form form,
                                        const std::vector<std::string>& labels) {
  return Reader(description, operands, isa, form, labels).read();
}

}  // namespace adder_onnx
