#include "library/chain_file.h"

#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <vector>

#include "chain/description.h"
#include "isa/default.h"
#include "layers/checks.h"

namespace adder_onnx {
namespace {

constexpr char kMagic[] = {'A', 'D', 'D', 'E', 'R', 'C', 'H', '1'};
constexpr int64_t kMostDimensions = 4;

class Bytes {
 public:
  Bytes(const void* bytes, size_t size) : at_(static_cast<const char*>(bytes)), left_(size) {}

  // The next ones, whose number is what so many elements of a size take; behind them lie zeros up to a
  // multiple of eight.
  const char* take(int64_t count, int64_t size) {
    const auto bytes = static_cast<size_t>(checked_product({count, size}));
    const size_t padded = (bytes + 7) / 8 * 8;
    if (padded > left_) throw std::invalid_argument("the file of a chain ends too early");
    const char* taken = at_;
    at_ += padded;
    left_ -= padded;
    return taken;
  }
  template <typename T>
  std::vector<T> numbers(int64_t count) {
    const char* from = take(count, sizeof(T));
    std::vector<T> values(static_cast<size_t>(count));
    if (count > 0) std::memcpy(values.data(), from, values.size() * sizeof(T));
    return values;
  }
  int64_t number() { return numbers<int64_t>(1)[0]; }
  size_t left() const { return left_; }

 private:
  const char* at_;
  size_t left_;
};

// Elements are copied to where they are aligned.
struct Array {
  Operand operand;
  std::vector<float> floats;
};

Array read_array(Bytes* bytes) {
  Array array;
  const int64_t type = bytes->number(), rank = bytes->number();
  if ((type != 0 && type != 2) || rank < 0 || rank > kMostDimensions)
    throw std::invalid_argument("an array in the file of a chain is of no known type or rank");
  array.operand.type = static_cast<ElementType>(type);
  array.operand.shape = bytes->numbers<int64_t>(rank);
  const int64_t count = element_count(array.operand.shape);
  if (type == 2)
    array.operand.data = bytes->take(count, 1);
  else
    array.floats = bytes->numbers<float>(count);
  return array;
}

}  // namespace

std::shared_ptr<const Chain> read_chain_file(const void* file, size_t size) {
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "files of chains are little-endian"
#endif
  Bytes bytes(file, size);
  if (std::memcmp(bytes.take(sizeof(kMagic), 1), kMagic, sizeof(kMagic)) != 0)
    throw std::invalid_argument("this is no file of a chain, as adder-compile writes them");
  const int64_t integers = bytes.number(), floats = bytes.number(), operands = bytes.number();
  Description description;
  description.integers = bytes.numbers<int64_t>(integers);
  description.floats = bytes.numbers<float>(floats);
  std::vector<Array> arrays;
  for (int64_t i = 0; i < operands; ++i) arrays.push_back(read_array(&bytes));
  if (bytes.left() != 0) throw std::invalid_argument("the file of a chain is too long");
  std::vector<Operand> read;
  for (Array& array : arrays) {
    if (array.operand.type == ElementType::kFloat32) array.operand.data = array.floats.data();
    read.push_back(array.operand);
  }
  return read_chain(description, read, default_isa(), Form::kMax);
}

std::shared_ptr<const Chain> read_chain_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  if (!file) throw std::runtime_error("the file '" + path + "' cannot be read");
  return read_chain_file(bytes.data(), bytes.size());
}

}  // namespace adder_onnx
