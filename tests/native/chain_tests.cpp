// Chains, some weights of which come with each run.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "chain/description.h"
#include "isa/isa.h"
#include "tests.h"
#include "threads/workers.h"

using namespace adder_onnx;

namespace {

constexpr int64_t kChannels = 5, kLayers = 3;
const ImageShape kImage = {2, kChannels, 6, 7};

struct Weight {
  int64_t kernel;
  std::vector<float> values;

  Weight(int64_t kernel_size, int seed) : kernel(kernel_size) {
    for (int64_t i = 0; i < kChannels * kChannels * kernel * kernel; ++i)
      values.push_back(static_cast<float>((i * 37 + seed * 101) % 64) / 16 - 2);
  }
  Operand operand() const {
    return {ElementType::kFloat32, {kChannels, kChannels, kernel, kernel}, values.data()};
  }
};

const Operand kComputed = {ElementType::kFloat32, {}, nullptr, true};

std::vector<float> some_floats(int64_t count) {
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(static_cast<float>(i * 29 % 31) / 8 - 2);
  return values;
}

// Three layers, one behind the other, whose output has the size of the input: the middle one adds what
// entered. Operands are a scale, a bias, and the weights.
std::shared_ptr<const Chain> make_chain(const std::vector<Operand>& weights) {
  constexpr int64_t kSameUpper = 1;
  static const std::vector<float> scale(kChannels, 0.125f), bias(kChannels, 1.0f);
  std::vector<Operand> operands = {{ElementType::kFloat32, {kChannels}, scale.data()},
                                   {ElementType::kFloat32, {kChannels}, bias.data()}};
  operands.insert(operands.end(), weights.begin(), weights.end());
  const float infinity = std::numeric_limits<float>::infinity();
  Description d{{1, 1, kLayers, 1, 0, 0, 0, 255}, {1.0f}};
  for (int64_t i = 0; i < kLayers; ++i) {
    const int64_t numbers[] = {0, i, i == 1 ? 0 : -1, 1, 1, 1, 1, kSameUpper, 0, 0, 0, 0, 1, 2 + i, 0, 1};
    d.integers.insert(d.integers.end(), std::begin(numbers), std::end(numbers));
    d.floats.insert(d.floats.end(), {-infinity, infinity});
  }
  d.integers.insert(d.integers.end(), {kLayers, 0, 0, 0, 255});
  d.floats.push_back(1.0f);
  return read_chain(d, operands, available_isas().back(), Form::kMax);
}

std::vector<float> run(const ChainProgram& program) {
  const std::vector<float> x = some_floats(kImage.nchw_size());
  std::vector<float> y(x.size());
  program.run({x.data()}, {y.data()}, PoolWorkers(program.threads()));
  return y;
}

std::vector<float> run(const Chain& chain, const std::vector<Operand>& weights) {
  return run(*chain.program({kImage}, 2, {}, weights));
}

template <typename Work>
bool is_refused(const Work& work, const std::string& part) {
  try {
    work();
  } catch (const std::invalid_argument& error) {
    return std::string(error.what()).find(part) != std::string::npos;
  }
  return false;
}

// Whichever weight is computed, and whatever it is, the results are those of a chain of constants.
void test_results() {
  const Weight constants[] = {Weight(3, 1), Weight(1, 2), Weight(3, 3)};
  for (int64_t at = 0; at < kLayers; ++at) {
    std::vector<Operand> all;
    for (const Weight& weight : constants) all.push_back(weight.operand());
    std::vector<Operand> open = all;
    open[at] = kComputed;
    const auto chain = make_chain(open);
    for (int seed = 0; seed < 6; ++seed) {
      Weight weight(seed % 3 + 1, seed);
      if (seed == 4) weight.values[3] = std::numeric_limits<float>::infinity();  // in the other form
      all[at] = weight.operand();
      expect(run(*chain, {weight.operand()}) == run(*make_chain(all), {}), "a computed weight");
    }
    expect(chain->plans().size() == 3, "a plan for each size of the computed weight");
  }
}

void test_all_are_computed() {
  const Weight a(3, 1), b(1, 2), c(2, 3);
  const auto chain = make_chain({kComputed, kComputed, kComputed});
  const std::vector<Operand> abc = {a.operand(), b.operand(), c.operand()};
  const std::vector<Operand> cba = {c.operand(), b.operand(), a.operand()};
  for (const auto& weights : {abc, cba, abc})
    expect(run(*chain, weights) == run(*make_chain(weights), {}), "all weights are computed");
  expect(chain->plans().size() == 2, "sizes of computed weights in another order");
}

// All programs share the layers with constant weights, and none keeps a computed one.
void test_constants_are_packed_once() {
  const Weight constant(3, 1);
  const auto chain = make_chain({constant.operand(), kComputed, constant.operand()});
  const auto uses = [&](size_t layer) { return chain->layers()[layer].conv.use_count(); };
  std::vector<std::shared_ptr<const ChainProgram>> programs;
  for (int seed = 0; seed < 4; ++seed) {
    const Weight weight(3, seed);
    programs.push_back(chain->program({kImage}, 1, {}, {weight.operand()}));
    run(*programs.back());
    expect(uses(0) == seed + 2 && uses(2) == seed + 2, "a constant layer is shared");
  }
  const auto plans = chain->plans();
  expect(plans.size() == 1 && plans[0].use_count() == 2 + static_cast<long>(programs.size()),
         "programs with other weights share their plan");
  expect(plans[0]->arenas->kept() == 1, "runs with other weights share their arena");
  programs.clear();
  expect(uses(0) == 1 && uses(2) == 1, "no program is kept with a computed weight");
}

void test_what_is_taken_is_approved_once() {
  const Weight constant(3, 1), small(1, 2), large(3, 3);
  const auto chain = make_chain({constant.operand(), kComputed, constant.operand()});
  std::vector<int64_t> approved;
  const auto approve = [&](int64_t size) { approved.push_back(size); };
  for (const Weight* weight : {&small, &small, &large, &small, &large})
    chain->program({kImage}, 1, approve, {weight->operand()});
  expect(approved.size() == 2, "approved once for each plan");
  const auto fixed = make_chain({constant.operand(), small.operand(), constant.operand()});
  for (int i = 0; i < 2; ++i) fixed->program({kImage}, 1, approve);
  expect(approved.size() == 3 && approved[2] == approved[0], "as much as with constant weights");
}

void test_threads_with_weights_of_their_own() {
  const Weight constant(3, 1);
  const auto chain = make_chain({constant.operand(), kComputed, constant.operand()});
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      const Weight weight(t % 2 + 2, t);
      const auto right =
          run(*make_chain({constant.operand(), weight.operand(), constant.operand()}), {});
      for (int i = 0; i < 50; ++i) wrong[t] += run(*chain, {weight.operand()}) != right;
    });
  for (std::thread& thread : threads) thread.join();
  expect(wrong == std::vector<int>(4), "several threads, each with its weight");
}

void test_weights_that_do_not_fit() {
  const Weight w(3, 1);
  const auto chain = make_chain({w.operand(), kComputed, w.operand()});
  const auto refuses = [&](const std::vector<Operand>& weights, const std::string& part) {
    expect(is_refused([&] { chain->program({kImage}, 1, {}, weights); }, part), part);
  };
  const auto shaped = [&](std::vector<int64_t> shape) {
    return Operand{ElementType::kFloat32, std::move(shape), w.values.data()};
  };
  refuses({}, "wrong number of weights");
  refuses({w.operand(), w.operand()}, "wrong number of weights");
  refuses({{ElementType::kUint8, {5, 5, 3, 3}, w.values.data()}}, "layer 1: an array of the chain has");
  refuses({shaped({5, 5, 3})}, "layer 1: a weight has not four dimensions");
  refuses({shaped({4, 5, 3, 3})}, "layer 1: scale and bias must have one value per filter");
  refuses({shaped({5, 4, 3, 3})}, "layer 1: weight of shape [5, 4, 3, 3]");
  refuses({shaped({5, 5, int64_t{1} << 60, 3})}, "layer 1: ");
  expect(is_refused([&] { make_chain({w.operand(), w.operand(), w.operand()})
                              ->program({kImage}, 1, {}, {w.operand()}); },
                    "wrong number of weights"),
         "a chain of constants takes no weights");
  expect(is_refused([&] { chain->infer_shapes({kImage}); }, "wrong number of weights"),
         "shapes without all weights");
}

// Only the weight of an AdderConv may be computed.
void test_what_must_be_constant() {
  const std::vector<float> floats(kChannels, 1.0f);
  const Operand values = {ElementType::kFloat32, {1}, floats.data()};
  const uint8_t byte = 1;
  const Operand integers = {ElementType::kUint8, {1, 1, 1, 1}, &byte};
  Operand computed_integers = integers;
  computed_integers.is_computed = true;
  const auto refuses = [&](const Description& d, const std::vector<Operand>& operands) {
    const auto read = [&] { read_chain(d, operands, Isa::kScalar, Form::kMax); };
    expect(is_refused(read, "computed that must be constant"), "what must be constant");
  };
  const Description floats_only{{1, 1, 1, 1, 0, 0, 0, 255, 0, 0, -1, 1, 1, 1, 1, 0, 0, 0, 0, 0,
                                 1, 0, 1, 2, 1, 0, 0, 0, 255},
                                {1, 0, 1, 1}};
  const Operand weight = {ElementType::kFloat32, {1, 1, 1, 1}, floats.data()};
  refuses(floats_only, {weight, kComputed, values});
  refuses(floats_only, {weight, values, kComputed});
  const Description quantized{{1, 1, 1, 1, 2, 2, 0, 255, 1, 0, -1, 1, 1, 1, 1, 0, 0, 0, 0, 0,
                               1, 0, 1, 2, 0, 0, 0, 8, 1, 2, 2, 0, 255},
                              {1, 1, 1, 0, 1}};
  read_chain(quantized, {integers, values, values}, Isa::kScalar, Form::kMax);
  refuses(quantized, {computed_integers, values, values});
  refuses(quantized, {integers, kComputed, values});
}

// Of a chain of one integer layer with the last numbers of a version; bits are 3.
void test_levels_of_outputs() {
  const std::vector<float> floats(1, 1.0f);
  const uint8_t byte = 1;
  const std::vector<Operand> operands = {{ElementType::kUint8, {1, 1, 1, 1}, &byte},
                                         {ElementType::kFloat32, {1}, floats.data()},
                                         {ElementType::kFloat32, {1}, floats.data()}};
  const auto read = [&](int64_t version, std::initializer_list<int64_t> levels) {
    Description d{{version, 1, 1, 1, 2, 2, 0, 255, 1, 0, -1, 1, 1, 1, 1, 0, 0, 0, 0, 0,
                   1, 0, 1, 2, 0, 0, 0, 3},
                  {1, 1, 1, 0, 1}};
    if (version > 1) d.integers.insert(d.integers.begin() + 8, -1);
    d.integers.insert(d.integers.end(), levels);
    d.integers.insert(d.integers.end(), {1, 2, 2, 0, 255});
    return read_chain(d, operands, Isa::kScalar, Form::kMax);
  };
  const auto levels_of = [&](int64_t version, std::initializer_list<int64_t> levels) {
    return read(version, levels)->layers()[0].qconv->levels();
  };
  expect(levels_of(1, {}).empty(), "without levels, as it was first written");
  expect(levels_of(2, {0}).empty(), "no levels");
  expect(levels_of(2, {3, 0, 2, 7}) == std::vector<uint8_t>{0, 2, 7}, "levels of a description");
  for (auto levels : std::initializer_list<std::initializer_list<int64_t>>{
           {2, 0, 8}, {2, 3, 3}, {2, 3, 2}, {1, 3}})
    expect(is_refused([&] { read(2, levels); }, "levels must be 2 to 16"), "levels out of order");
  for (auto levels : std::initializer_list<std::initializer_list<int64_t>>{
           {17}, {-1}, {2, 0, 256}, {2, -1, 3}, {2, 0, int64_t{1} << 32}})
    expect(is_refused([&] { read(2, levels); }, "out of range"), "levels out of range");
  expect(is_refused([&] { read(1, {0}); }, ""), "levels of the first version");
  expect(is_refused([&] { read(2, {}); }, ""), "no number of levels");
  for (int64_t version : {0, 3})
    expect(is_refused([&] { read(version, {0}); }, "another version"), "another version");
}

// Of a chain that only takes floats in and gives the integers that they become.
void test_tables_of_entries() {
  std::vector<uint8_t> bytes(256);
  for (int i = 0; i < 256; ++i) bytes[i] = static_cast<uint8_t>(7 * i + 3);
  const std::vector<float> floats(256);
  const std::vector<Operand> operands = {{ElementType::kUint8, {256}, bytes.data()},
                                         {ElementType::kUint8, {255}, bytes.data()},
                                         {ElementType::kUint8, {16, 16}, bytes.data()},
                                         {ElementType::kFloat32, {256}, floats.data()},
                                         {ElementType::kUint8, {}, nullptr, true}};
  const auto read = [&](int64_t table, int64_t outside = 0, int64_t inside = 2) {
    const Description d = {{2, 1, 0, 1, outside, inside, 4, 200, table, 0, inside, inside, 0, 255}, {0.5f, 1}};
    return read_chain(d, operands, Isa::kScalar, Form::kMax);
  };
  const auto results = [&](int64_t table) {
    std::vector<float> x(1000);
    for (int i = 0; i < 1000; ++i) x[i] = 0.25f * static_cast<float>(i - 400);
    std::vector<uint8_t> y(x.size());
    const auto program = read(table)->program({{1, 10, 10, 10}}, 1, [](int64_t) {});
    program->run({x.data()}, {y.data()}, PoolWorkers(1));
    return y;
  };
  const std::vector<uint8_t> plain = results(-1), looked_up = results(0);
  expect(*std::max_element(plain.begin(), plain.end()) == 200, "integers without a table");
  bool is_right = true;
  for (size_t i = 0; i < plain.size(); ++i) is_right &= looked_up[i] == bytes[plain[i]];
  expect(is_right, "a table of an entry");
  for (int64_t number : {1, 2})
    expect(is_refused([&] { read(number); }, "256 entries"), "a table of another shape");
  expect(is_refused([&] { read(3); }, "wrong type"), "a table of floats");
  expect(is_refused([&] { read(4); }, "constant"), "a table that is computed");
  for (int64_t number : {int64_t{-2}, int64_t{5}, int64_t{1} << 62})
    expect(is_refused([&] { read(number); }, "no array"), "a table that is not there");
  expect(is_refused([&] { read(0, 0, 0); }, "becomes uint8"), "a table of floats inside");
  expect(is_refused([&] { read(0, 2, 2); }, "becomes uint8"), "a table of bytes outside");
}

}  // namespace

void test_chains() {
  test_results();
  test_all_are_computed();
  test_constants_are_packed_once();
  test_what_is_taken_is_approved_once();
  test_threads_with_weights_of_their_own();
  test_weights_that_do_not_fit();
  test_what_must_be_constant();
  test_levels_of_outputs();
  test_tables_of_entries();
}
