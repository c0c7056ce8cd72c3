// Descriptions of chains and files of them, of any numbers at all: refused by std::invalid_argument, or
// run, with one result whatever the threads, and whichever weights come with the run.
#include <cstdlib>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>

#include "chain/description.h"
#include "few_levels.h"
#include "fuzz/bytes.h"
#include "fuzz/shapes.h"
#include "library/chain_file.h"

namespace fuzz {
namespace {

using namespace adder_onnx;

constexpr int64_t kMaxBytes = 1 << 20;

// A description with its arrays, most of its numbers such as a chain has.
class Written {
 public:
  explicit Written(Bytes& bytes) : bytes_(bytes), random_(bytes.random()) {
    const int64_t entries = bytes.from(1, 2), layers = bytes.from(0, 4), exits = bytes.from(1, 2);
    add({has_levels_ ? 2 : 1, entries, layers, exits});
    for (int64_t i = 0; i < entries; ++i) entry();
    for (int64_t i = 0; i < layers; ++i) layer(entries + i);
    for (int64_t i = 0; i < exits; ++i) {
      add({bytes.from(0, entries + layers - 1)});
      conversion(is_integer_);
    }
    for (int64_t faults = bytes.from(0, 3); faults > 1; --faults) spoil();
  }

  Description description;

  std::vector<Operand> operands() const {
    std::vector<Operand> given;
    for (const Array& array : arrays_)
      given.push_back({array.type, array.shape,
                       array.type == ElementType::kFloat32
                           ? static_cast<const void*>(array.floats.data())
                           : array.bytes.data()});
    return given;
  }

  // The same, but that some arrays come with the run, mostly weights that may.
  std::vector<Operand> operands_without(Bytes& bytes) const {
    std::vector<Operand> given = operands();
    for (size_t i = 0; i < given.size(); ++i)
      if (bytes.chance(is_weight(i) ? 50 : 2)) given[i] = {given[i].type, {}, nullptr, true};
    return given;
  }

  // Whether it is the weight of an AdderConv, where nothing has been spoilt.
  bool is_weight(size_t operand) const { return !is_integer_ && arrays_[operand].shape.size() == 4; }

  // As adder-compile writes it.
  std::vector<uint8_t> file() const {
    std::vector<uint8_t> out;
    const auto put = [&](const void* from, size_t size) {
      const auto* first = static_cast<const uint8_t*>(from);
      out.insert(out.end(), first, first + size);
      out.resize((out.size() + 7) / 8 * 8);
    };
    const auto number = [&](int64_t value) { put(&value, sizeof(value)); };
    put("ADDERCH1", 8);
    number(static_cast<int64_t>(description.integers.size()));
    number(static_cast<int64_t>(description.floats.size()));
    number(static_cast<int64_t>(arrays_.size()));
    put(description.integers.data(), description.integers.size() * 8);
    put(description.floats.data(), description.floats.size() * 4);
    for (const Array& array : arrays_) {
      number(static_cast<int64_t>(array.type));
      number(static_cast<int64_t>(array.shape.size()));
      for (int64_t dim : array.shape) number(dim);
      put(array.floats.data(), array.floats.size() * 4);
      put(array.bytes.data(), array.bytes.size());
    }
    return out;
  }

 private:
  struct Array {
    ElementType type;
    std::vector<int64_t> shape;
    std::vector<float> floats;
    std::vector<uint8_t> bytes;
  };

  void add(std::initializer_list<int64_t> numbers) {
    description.integers.insert(description.integers.end(), numbers);
  }

  void conversion(bool is_integer) {
    const int64_t inside = is_integer ? 2 : 0;
    const int64_t outside = bytes_.chance(70) ? inside : is_integer ? 0 : 1;
    add({outside, inside, bytes_.from(0, 9), bytes_.from(100, 255)});
    description.floats.push_back(0.25f);
  }

  // Its table, perhaps where it must not have one, or of a wrong size.
  void entry() {
    conversion(is_integer_);
    if (!has_levels_) return;
    const bool has_table = bytes_.chance(40);
    add({has_table ? array(ElementType::kUint8, {bytes_.chance(95) ? 256 : 255}) : -1});
    if (!has_table || !are_few_) return;
    for (uint8_t& byte : arrays_.back().bytes) byte = static_cast<uint8_t>(byte % 4 * 5);
  }

  int64_t array(ElementType type, std::vector<int64_t> shape) {
    Array made{type, std::move(shape), {}, {}};
    size_t count = 1;
    for (int64_t dim : made.shape) count *= static_cast<size_t>(dim);
    if (type == ElementType::kFloat32)
      for (size_t i = 0; i < count; ++i)
        made.floats.push_back(static_cast<float>(random_() % 64) / 16 - 2);
    else
      for (size_t i = 0; i < count; ++i)
        made.bytes.push_back(static_cast<uint8_t>(random_() % (are_few_ ? 16 : 256)));
    arrays_.push_back(std::move(made));
    return static_cast<int64_t>(arrays_.size()) - 1;
  }

  void layer(int64_t values) {
    const bool is_pool = is_integer_ && bytes_.chance(30);
    const int64_t residual = !is_pool && bytes_.chance(30) ? bytes_.from(0, values - 1) : -1;
    add({is_pool ? 2 : is_integer_ ? 1 : 0, bytes_.chance(80) ? values - 1 : 0, residual});
    add({bytes_.from(1, 2), bytes_.from(1, 2), bytes_.from(1, 2), 1});
    add({bytes_.from(0, 3), bytes_.from(0, 2), 1, 1, bytes_.from(0, 1)});
    if (is_pool) return add({bytes_.from(1, 3), 2, bytes_.from(0, 1)});
    const int64_t kernel = bytes_.from(1, 3);
    const ElementType type = is_integer_ ? ElementType::kUint8 : ElementType::kFloat32;
    const int64_t weight = array(type, {channels_, channels_, kernel, kernel});
    const int64_t scale = array(ElementType::kFloat32, {channels_, 1, 1});
    const int64_t bias = array(ElementType::kFloat32, {channels_});
    add({1, weight, scale, bias});
    if (are_few_) {  // such that sums become levels of all kinds
      for (float& value : arrays_[scale].floats) value = static_cast<float>(random_() % 64) / 1024;
      for (float& value : arrays_[bias].floats) value = static_cast<float>(random_() % 256) / 8;
    }
    const float infinity = std::numeric_limits<float>::infinity();
    if (is_integer_) {
      const int64_t zero_point = are_few_ ? 0 : bytes_.from(0, 20);
      add({zero_point, 0, bytes_.from(0, 20), are_few_ ? 4 : bytes_.from(2, 8)});
    }
    if (is_integer_ && has_levels_) add_levels();
    auto& floats = description.floats;
    if (is_integer_)
      floats.insert(floats.end(), {0.5f, 0.5f, -infinity});
    else
      floats.insert(floats.end(), {0.0f, infinity});
  }

  // None, or some that perhaps do not fit the bits.
  void add_levels() {
    std::vector<uint8_t> levels;
    if (are_few_ && bytes_.chance(80))
      levels = {0, static_cast<uint8_t>(bytes_.from(1, 7)), static_cast<uint8_t>(bytes_.from(8, 15))};
    else if (bytes_.chance(50))
      levels = some_levels(random_, bytes_.pick({3, 15}));
    add({static_cast<int64_t>(levels.size())});
    description.integers.insert(description.integers.end(), levels.begin(), levels.end());
  }

  // One number of any kind in the place of another, or one too many or too few.
  void spoil() {
    std::vector<int64_t>& all = description.integers;
    const int64_t wrong = bytes_.pick<int64_t>(
        {-1, 0, 1, 3, 200, int64_t{1} << 31, int64_t{1} << 62, std::numeric_limits<int64_t>::min(),
         std::numeric_limits<int64_t>::max()});
    const auto at = static_cast<size_t>(bytes_.from(0, static_cast<int64_t>(all.size()) - 1));
    switch (bytes_.from(0, 9)) {
      case 0: all.push_back(wrong); break;
      case 1: all.resize(at + 1); break;
      case 2: description.floats.push_back(1.0f); break;
      case 3:
        description.floats[at % description.floats.size()] =
            bytes_.chance(50) ? std::numeric_limits<float>::quiet_NaN() : -1.0f;
        break;
      default: all[at] = wrong;
    }
  }

  Bytes& bytes_;
  std::mt19937 random_;
  const bool are_few_ = bytes_.chance(30);  // such values that their taps can be looked up
  const int64_t channels_ = are_few_ ? 2 * bytes_.from(1, 10) : bytes_.from(1, 20);
  const bool is_integer_ = are_few_ || bytes_.chance(50);
  const bool has_levels_ = are_few_ || bytes_.chance(50);
  std::vector<Array> arrays_;
};

std::vector<Exact<uint8_t>> results(const ChainProgram& program,
                                    const std::vector<Exact<uint8_t>>& inputs, int threads) {
  std::vector<const void*> from;
  std::vector<Exact<uint8_t>> outputs;
  std::vector<void*> to;
  for (const auto& input : inputs) from.push_back(input.data());
  for (const auto& port : program.outputs()) outputs.emplace_back(port.bytes());
  for (auto& output : outputs) to.push_back(output.data());
  program.run(from, to, PoolWorkers(threads));
  return outputs;
}

// Numbers of both signs, or all bytes; zeros in float16.
Exact<uint8_t> image(const ImageShape& shape, ElementType type) {
  Exact<uint8_t> made(shape.nchw_size() * size_of(type));
  for (int64_t i = 0; i < shape.nchw_size(); ++i) {
    const float value = static_cast<float>(i * 37 % 64) / 4 - 4;
    if (type == ElementType::kFloat32) std::memcpy(made.data() + 4 * i, &value, sizeof(value));
    if (type == ElementType::kUint8) made[i] = static_cast<uint8_t>(i * 37);
  }
  return made;
}

// The same chain without lookups, some of whose weights come with the run.
struct Open {
  std::shared_ptr<const Chain> chain;
  std::vector<Operand> weights;
};

// Those that come with the run, found among the operands of a description that was taken.
std::vector<Operand> weights_of(const Description& description, const Chain& open,
                                const std::vector<Operand>& operands) {
  std::vector<Operand> weights;
  size_t at = 4 + (description.integers[0] > 1 ? 5 : 4) * open.entries().size();
  for (const ChainLayer& layer : open.layers()) {
    if (layer.unweighted) weights.push_back(operands[description.integers[at + 13]]);
    at += layer.is_pool() ? 15 : layer.qconv ? 20 : 16;
  }
  return weights;
}

void run(Bytes& bytes, const Chain& chain, const Open& open = {}) {
  std::vector<ImageShape> shapes;
  for (size_t i = 0; i < chain.entries().size(); ++i) {
    const int64_t channels = bytes.chance(95) ? chain.input_channels(i) : bytes.from(0, 20);
    const int64_t size = bytes.chance(95) ? bytes.from(0, 9) : int64_t{1} << bytes.from(0, 62);
    shapes.push_back({bytes.from(0, 5), channels < 0 ? 3 : channels, 7, size});
    if (i > 0 && bytes.chance(80)) shapes[i] = shapes[0];
  }
  const auto approve = [](int64_t size) {
    if (size > kMaxBytes) throw std::invalid_argument("this is too much for a case");
  };
  std::vector<std::vector<Exact<uint8_t>>> answers;
  std::vector<Exact<uint8_t>> inputs;
  for (int threads : {1, 3}) {
    std::shared_ptr<const ChainProgram> program;
    if (!takes([&] { program = chain.program(shapes, threads, approve); })) return;
    for (size_t i = 0; i < shapes.size(); ++i)
      if (chain.input_channels(i) >= 0 && chain.input_channels(i) != shapes[i].channels)
        fail("a chain takes other channels than it says");
    for (size_t i = inputs.size(); i < shapes.size(); ++i)
      inputs.push_back(image(shapes[i], chain.entries()[i].outside));
    answers.push_back(results(*program, inputs, threads));
    if (chain.program(shapes, threads, approve) != program) fail("a program is not kept");
    if (open.chain == nullptr) continue;
    const auto other = open.chain->program(shapes, threads, approve, open.weights);
    if (results(*other, inputs, threads) != answers.back())
      fail("lookups, or weights that come with the run, change what a chain gives");
  }
  if (answers[0] != answers[1]) fail("threads change what a chain gives");
}

void use_lookups(const char* where) {
#if defined(_WIN32)
  _putenv_s("ADDER_ONNX_LOOKUPS", where);
#else
  setenv("ADDER_ONNX_LOOKUPS", where, 1);
#endif
}

}  // namespace

void try_chain(Bytes& bytes) {
  const Written written(bytes);
  std::shared_ptr<const Chain> chain;
  const Isa isa = bytes.pick(available_isas());
  const std::vector<Operand> operands = written.operands(), some = written.operands_without(bytes);
  use_lookups("always");
  if (takes([&] { chain = read_chain(written.description, operands, isa, Form::kMax); })) {
    Open open;
    use_lookups("never");
    if (takes([&] { open.chain = read_chain(written.description, some, isa, Form::kMax); }))
      open.weights = weights_of(written.description, *open.chain, operands);
    run(bytes, *chain, open);
  }
  std::vector<uint8_t> file = written.file();
  if (bytes.chance(50)) file.resize(static_cast<size_t>(bytes.from(0, static_cast<int64_t>(file.size()))));
  for (int64_t faults = bytes.from(0, 2); faults > 0 && !file.empty(); --faults)
    file[static_cast<size_t>(bytes.from(0, static_cast<int64_t>(file.size()) - 1))] =
        static_cast<uint8_t>(bytes.take(1));
  const Exact<uint8_t> exact(file.begin(), file.end());
  std::shared_ptr<const Chain> read;
  if (takes([&] { read = read_chain_file(exact.data(), exact.size()); })) run(bytes, *read);
}

}  // namespace fuzz
