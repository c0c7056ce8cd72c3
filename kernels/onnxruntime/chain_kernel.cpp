#include "onnxruntime/chain_kernel.h"

#include <stdexcept>

namespace adder_onnx {

void run_chain(const Chain& chain, const Call& call) {
  std::vector<OrtTensor> images;
  for (size_t i = 0; i < chain.entries().size(); ++i) images.push_back(call.input(i));
  run_chain(chain, call, images);
}

void run_chain(const Chain& chain, const Call& call, const std::vector<OrtTensor>& images) {
  std::vector<ImageShape> shapes;
  std::vector<const void*> from;
  for (size_t i = 0; i < images.size(); ++i) {
    if (to_element_type(images[i].type) != chain.entries()[i].outside)
      throw std::invalid_argument("an image has another type than the chain takes");
    shapes.push_back(to_image(images[i]));
    from.push_back(images[i].data);
  }
  const SessionWorkers workers(call);
  const auto program = chain.program(shapes, workers.count());
  std::vector<void*> to;
  for (size_t i = 0; i < program->outputs().size(); ++i)
    to.push_back(call.output(i, program->outputs()[i].shape));
  program->run(from, to, workers);
}

}  // namespace adder_onnx
