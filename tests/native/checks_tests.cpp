// What the library refuses of callers in C++, beyond what Python can ask for, of which
// tests/test_native_checks.py has the tests.
#include <functional>
#include <memory>
#include <new>
#include <stdexcept>
#include <vector>

#include "float32/input_gradient.h"
#include "program/program.h"
#include "tests.h"

using namespace adder_onnx;

namespace {

const Conversion kBytes = {ElementType::kUint8, ElementType::kUint8, 1, 0, 255};
constexpr ConvShape kShape = {1, 3, 3, 3, 3, 0, 0};

bool refuses(const std::function<void()>& call) {
  try {
    call();
    return false;
  } catch (const std::invalid_argument&) {
    return true;
  }
}

Program with_input() {
  Program program(1, 1);
  program.add_nchw_to_nhwc(0, kBytes, {1, 2, 3, 3}, 0);
  return program;
}

void test_steps() {
  Program program = with_input();
  expect(refuses([&] { program.add_adder_conv(nullptr, kShape, 0, -1, 100); }), "no convolution");
  expect(refuses([&] { program.add_qadder_conv(nullptr, kShape, 0, -1, 100); }),
         "no quantized convolution");
  const ConvParams valid = {2, 2, 1, 1, 1, 1, 1, 1, 1};
  ConvParams params = valid;
  params.out_channels = 4;
  expect(refuses([&] { program.add_max_pool(params, kShape, 0, 100); }), "a pooling of more channels");
  params = valid;
  params.group = 2;
  expect(refuses([&] { program.add_max_pool(params, kShape, 0, 100); }), "a pooling in groups");
  params.group = 0;
  expect(refuses([&] { program.add_max_pool(params, kShape, 0, 100); }), "a pooling of no group");
  const auto none = static_cast<ElementType>(7);
  for (const Conversion& wrong :
       {Conversion{ElementType::kUint8, ElementType::kFloat32, 1, 0, 255},
        Conversion{ElementType::kFloat16, ElementType::kUint8, 1, 0, 255},
        Conversion{none, ElementType::kFloat32, 1, 0, 255},
        Conversion{ElementType::kFloat32, none, 1, 0, 255}}) {
    expect(refuses([&] { program.add_nchw_to_nhwc(1, wrong, {1, 2, 3, 3}, 100); }), "a type");
    expect(refuses([&] { program.add_nhwc_to_nchw(0, {1, 2, 3, 3}, 0, wrong); }), "a type");
  }
  const std::vector<uint8_t> zeros(ByteTable::kSize);
  const auto table = std::make_shared<const ByteTable>(zeros.data());
  const Conversion looked_up = {ElementType::kFloat32, ElementType::kUint8, 1, 0, 255, table};
  expect(refuses([&] { program.add_nhwc_to_nchw(0, {1, 2, 3, 3}, 0, looked_up); }), "a table on the way out");
  for (auto type : {ElementType::kFloat32, ElementType::kUint8})
    expect(refuses([&] {
             program.add_nchw_to_nhwc(1, {type, type, 1, 0, 255, table}, {1, 2, 3, 3}, 100);
           }), "a table where nothing is quantized");
  expect(program.step_count() == 1, "nothing is added where something is wrong");
  program.add_max_pool(valid, kShape, 0, 100);
}

void test_runs() {
  Program program = with_input();
  program.add_nhwc_to_nchw(0, {1, 2, 3, 3}, 0, kBytes);
  const Program copy = program;
  const std::vector<uint8_t> x(18, 3);
  std::vector<uint8_t> y(18);
  std::vector<float> arena(program.arena_size(1));
  for (const auto& from : {std::vector<const void*>{}, {x.data(), x.data()}})
    expect(refuses([&] { program.run(arena.data(), from, {y.data()}, PoolWorkers(1)); }), "number of inputs");
  for (const auto& to : {std::vector<void*>{}, {y.data(), y.data()}})
    expect(refuses([&] { program.run(arena.data(), {x.data()}, to, PoolWorkers(1)); }), "number of outputs");
  expect(refuses([&] { program.run(arena.data(), {x.data()}, {y.data()}, PoolWorkers(0)); }), "no threads");
  program.run(arena.data(), {x.data()}, {y.data()}, PoolWorkers(1));
  expect(x == y, "a valid run after those");
  expect(refuses([&] { program.add_nchw_to_nhwc(1, kBytes, {1, 2, 3, 3}, 100); }),
         "adding to a program that has run");
  Program fresh = copy;
  fresh.add_nchw_to_nhwc(1, kBytes, {1, 2, 3, 3}, 100);
}

// Which shares no memory with anything, wherever it is.
void test_nothing() {
  Program program = with_input();
  program.add_nchw_to_nhwc(1, kBytes, {1, 0, 3, 3}, 100);
  program.add_nhwc_to_nchw(100, {1, 0, 3, 3}, 0, kBytes);
  const std::vector<uint8_t> x(18);
  std::vector<float> arena(program.arena_size(1));
  expect(!refuses([&] {
    program.run(arena.data(), {x.data(), arena.data() + 1}, {arena.data() + 2}, PoolWorkers(1));
  }),
         "arrays of nothing");
}

void test_gradient() {
  const std::vector<float> x(18), w(18);
  std::vector<float> grad_x(18);
  const auto takes = [&](ConvParams params, int threads) {
    return !refuses([&] {
      input_gradient(params, kShape, x.data(), w.data(), x.data(), grad_x.data(), Isa::kScalar,
                     threads);
    });
  };
  expect(takes({2, 2, 1, 1, 1, 1, 1, 1, 1}, 1), "a gradient");
  expect(!takes({2, 2, 1, 1, 1, 1, 1, 1, 0}, 1), "a gradient of no group");
  expect(!takes({2, 2, 1, 1, 1, 1, 1, 1, 4}, 1), "a gradient of too many groups");
  expect(!takes({2, 2, 0, 1, 1, 1, 1, 1, 1}, 1), "a gradient of no position");
  expect(!takes({2, 2, 1, 1, 0, 1, 1, 1, 1}, 1), "a gradient of no stride");
  expect(!takes({2, 2, 1, 1, 1, 1, 1, 1, 1}, 0), "a gradient by no thread");
}

}  // namespace

void test_checks() {
  test_steps();
  test_runs();
  test_nothing();
  test_gradient();
}
