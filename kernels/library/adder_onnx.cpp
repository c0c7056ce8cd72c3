#include "library/adder_onnx.h"

#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "chain/chain.h"
#include "library/chain_file.h"
#include "threads/workers.h"

using adder_onnx::Chain;
using adder_onnx::ElementType;
using adder_onnx::ImageShape;

struct adder_chain {
  std::shared_ptr<const Chain> chain;
};

namespace {

thread_local std::string last_error;

// What `work` throws becomes a message and a status.
template <typename Work>
int guarded(const Work& work) noexcept {
  try {
    try {
      work();
      return 0;
    } catch (const std::bad_alloc&) {
      last_error = "there is not enough memory";
    } catch (const std::exception& error) {
      last_error = error.what();
    }
  } catch (...) {  // no memory for the message
  }
  return 1;
}

void check_given(const void* argument) {
  if (argument == nullptr) throw std::invalid_argument("an argument is null");
}

ImageShape to_image(const adder_shape& s) { return {s.batch, s.channels, s.height, s.width}; }
adder_shape from_image(const ImageShape& s) { return {s.batch, s.channels, s.height, s.width}; }

void check_image_is(const adder_image& image, ElementType type, const ImageShape& shape) {
  check_given(image.data);
  const ImageShape given = to_image(image.shape);
  if (static_cast<int>(image.type) != static_cast<int>(type) || given.batch != shape.batch ||
      given.channels != shape.channels || given.height != shape.height || given.width != shape.width)
    throw std::invalid_argument("an image has another type or shape than the chain gives or takes");
}

// Threads of a caller.
class CallersWorkers final : public adder_onnx::Workers {
 public:
  explicit CallersWorkers(const adder_threads& threads) : threads_(threads) {}
  int count() const override { return threads_.count; }
  void run(int helpers, Work work, void* call) const override {
    Call both = {work, call};
    threads_.parallel_for(
        threads_.self, static_cast<size_t>(helpers) + 1,
        [](void* argument, size_t) {
          const Call* begun = static_cast<const Call*>(argument);
          begun->work(begun->call);
        },
        &both);
  }

 private:
  struct Call {
    Work work;
    void* call;
  };
  const adder_threads& threads_;
};

void run(const adder_chain* chain, const adder_image* inputs, const adder_image* outputs,
         const adder_onnx::Workers& workers) {
  check_given(chain);
  check_given(inputs);
  check_given(outputs);
  const Chain& own = *chain->chain;
  std::vector<ImageShape> shapes;
  std::vector<const void*> from;
  for (size_t i = 0; i < own.entries().size(); ++i) {
    shapes.push_back(to_image(inputs[i].shape));
    check_image_is(inputs[i], own.entries()[i].outside, shapes.back());
    from.push_back(inputs[i].data);
  }
  const auto program = own.program(shapes, workers.count());
  std::vector<void*> to;
  for (size_t i = 0; i < own.exits().size(); ++i) {
    const auto& port = program->outputs()[i];
    check_image_is(outputs[i], port.type, port.shape);
    to.push_back(outputs[i].data);
  }
  program->run(from, to, workers);
}

template <typename Open>
int open_chain(adder_chain** chain, const Open& open) {
  return guarded([&] {
    check_given(chain);
    *chain = nullptr;
    *chain = new adder_chain{open()};
  });
}

}  // namespace

int adder_abi(void) { return ADDER_ONNX_ABI; }

const char* adder_error(void) { return last_error.c_str(); }

int adder_open_file(const char* path, adder_chain** chain) {
  return open_chain(chain, [&] {
    check_given(path);
    return adder_onnx::read_chain_file(std::string(path));
  });
}

int adder_open(const void* bytes, size_t size, adder_chain** chain) {
  return open_chain(chain, [&] {
    check_given(bytes);
    return adder_onnx::read_chain_file(bytes, size);
  });
}

void adder_close(adder_chain* chain) { delete chain; }

size_t adder_input_count(const adder_chain* chain) { return chain->chain->entries().size(); }

size_t adder_output_count(const adder_chain* chain) { return chain->chain->exits().size(); }

adder_type adder_input_type(const adder_chain* chain, size_t number) {
  return static_cast<adder_type>(chain->chain->entries()[number].outside);
}

adder_type adder_output_type(const adder_chain* chain, size_t number) {
  return static_cast<adder_type>(chain->chain->exits()[number].conversion.outside);
}

int64_t adder_input_channels(const adder_chain* chain, size_t number) {
  return chain->chain->input_channels(number);
}

int adder_output_shapes(const adder_chain* chain, const adder_shape* inputs,
                        adder_shape* outputs) {
  return guarded([&] {
    check_given(chain);
    check_given(inputs);
    check_given(outputs);
    const Chain& own = *chain->chain;
    std::vector<ImageShape> entering;
    for (size_t i = 0; i < own.entries().size(); ++i) entering.push_back(to_image(inputs[i]));
    const std::vector<ImageShape> all = own.infer_shapes(entering);
    for (size_t i = 0; i < own.exits().size(); ++i) outputs[i] = from_image(all[own.exits()[i].value]);
  });
}

int adder_run(const adder_chain* chain, const adder_image* inputs, const adder_image* outputs,
              int threads) {
  return guarded([&] { run(chain, inputs, outputs, adder_onnx::PoolWorkers(threads)); });
}

int adder_run_on(const adder_chain* chain, const adder_image* inputs, const adder_image* outputs,
                 const adder_threads* threads) {
  return guarded([&] {
    check_given(threads);
    if (threads->parallel_for == nullptr) throw std::invalid_argument("parallel_for is null");
    run(chain, inputs, outputs, CallersWorkers(*threads));
  });
}
