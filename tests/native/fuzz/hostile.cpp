// Programs and convolutions of any numbers at all. What the native layer refuses, it must refuse by
// std::invalid_argument; what it takes, it must be able to run within the memory that it asks for.
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>

#include "few_levels.h"
#include "fuzz/bytes.h"
#include "fuzz/shapes.h"
#include "layers/checks.h"
#include "program/program.h"

namespace fuzz {
namespace {

constexpr uint8_t kZeros[ByteTable::kSize] = {};
constexpr int64_t kMaxBytes = 1 << 20;  // of what is run, so that it does not take long

// A small number, or now and then one of those at which arithmetic breaks.
class Numbers {
 public:
  Numbers(Bytes& bytes, int percent) : bytes_(bytes), percent_(percent) {}

  int64_t operator()(int64_t first, int64_t last) {
    if (!bytes_.chance(percent_)) return bytes_.from(first, last);
    const int64_t power = int64_t{1} << bytes_.from(0, 62);
    switch (bytes_.from(0, 7)) {
      case 0: return std::numeric_limits<int64_t>::max() - bytes_.from(0, 16);
      case 1: return std::numeric_limits<int64_t>::min() + bytes_.from(0, 1);
      case 2: return -power;
      case 3: return power - 1;
      case 4: return power + bytes_.from(0, 3);
      case 5: return 0;
      case 6: return -bytes_.from(1, 64);
      default: return bytes_.from(0, 300);
    }
  }

 private:
  Bytes& bytes_;
  const int percent_;
};

float any_float(Bytes& bytes) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float kinds[] = {1.0f,     0.1f,      0.0f,  -1.0f, 1e-45f, 3e38f,
                         infinity, -infinity, std::numeric_limits<float>::quiet_NaN()};
  return kinds[bytes.from(0, 8)];
}

// Whether a product of sizes is at least 0 and at most `most`.
bool is_small(std::initializer_list<int64_t> sizes, int64_t most) {
  __int128 product = 1;
  for (int64_t size : sizes) {
    if (size < 0 || size > most) return false;
    product *= size;
    if (product > most) return false;
  }
  return true;
}

// Perhaps too many, or not in order.
std::vector<uint8_t> any_levels(Bytes& bytes) {
  std::vector<uint8_t> levels(static_cast<size_t>(bytes.from(0, 20)));
  for (uint8_t& level : levels) level = static_cast<uint8_t>(bytes.take(1));
  return levels;
}

ConvParams choose_params(Bytes& bytes, Numbers& number) {
  ConvParams a{};
  a.group = number(1, bytes.chance(30) ? 3 : 1);
  const auto times = [&](int64_t n) {
    int64_t product;
    return __builtin_mul_overflow(n, a.group, &product) ? n : product;
  };
  a.in_channels = bytes.chance(90) ? times(number(1, 20)) : number(1, 20);
  a.out_channels = bytes.chance(90) ? times(number(1, 20)) : number(1, 20);
  a.kernel_h = number(1, 3);
  a.kernel_w = number(1, 3);
  a.stride_h = number(1, 2);
  a.stride_w = number(1, 2);
  a.dilation_h = number(1, 2);
  a.dilation_w = number(1, 2);
  return a;
}

struct Convs {
  std::shared_ptr<AdderConv> floats;
  std::shared_ptr<QAdderConv> bytes;
};

// A convolution of such parameters. Where its weights would be large they are not there: then it must
// refuse before it looks at them.
Convs make_convs(Bytes& bytes, const ConvParams& a, bool is_of_bytes) {
  Convs convs;
  const bool is_valid = a.group > 0 && a.in_channels >= 0;
  const int64_t group_in = is_valid ? a.group_in() : 0;
  const bool is_there = is_small({a.out_channels, group_in, a.kernel_h, a.kernel_w}, kMaxBytes) &&
                        is_small({a.out_channels}, kMaxBytes) && is_small({a.group}, kMaxBytes);
  if (is_valid && !is_there && a.out_channels >= 0 && a.kernel_h > 0 && a.kernel_w > 0 &&
      is_small({a.out_channels, group_in, a.kernel_h, a.kernel_w}, kMaxSize))
    return convs;  // perhaps it is valid, and then too large for here
  const int64_t filters = is_there ? a.out_channels : 0;
  const int64_t weights = is_there ? filters * group_in * a.kernel_h * a.kernel_w : 0;
  std::mt19937 random = bytes.random();
  const Exact<float> scale(filters, any_float(bytes)), bias(filters, any_float(bytes));
  const Isa isa = choose_isa(bytes);
  if (!is_of_bytes) {
    Exact<float> w(weights);
    for (float& f : w) f = static_cast<float>(random() % 100) / 7;
    if (weights > 0 && bytes.chance(20)) w[random() % weights] = any_float(bytes);
    takes([&] {
      convs.floats = std::make_shared<AdderConv>(a, w.data(), scale.data(), bias.data(),
                                                 Clip{any_float(bytes), any_float(bytes)},
                                                 bytes.pick({Form::kMax, Form::kDirect}), isa);
    });
  } else {
    Exact<uint8_t> w(weights);
    for (uint8_t& byte : w) byte = static_cast<uint8_t>(random());
    Numbers number(bytes, 5);
    const Q8Activation activation = {
        any_float(bytes),
        static_cast<int32_t>(number(0, 255)),
        bytes.chance(80) ? 0.5f : any_float(bytes),
        static_cast<int32_t>(number(0, 255)),
        any_float(bytes),
        bytes.chance(90) ? 255 : static_cast<int32_t>(number(0, 255)),
        bytes.chance(60) ? std::vector<uint8_t>{}
        : bytes.chance(60) ? some_levels(random, 255)
                           : any_levels(bytes)};
    takes([&] {
      convs.bytes =
          std::make_shared<QAdderConv>(a, w.data(), static_cast<uint8_t>(random()), scale.data(),
                                       bias.data(), activation, isa);
    });
  }
  return convs;
}

// Steps that continue each other, but for numbers that are something else.
class Maker {
 public:
  Maker(Bytes& bytes, int percent)
      : bytes_(bytes), number_(bytes, percent), random_(bytes.random()) {}

  void run() {
    const int64_t batch = number_(1, 3), pass = number_(1, 3);
    std::unique_ptr<Program> program;
    if (!takes([&] { program = std::make_unique<Program>(batch, pass); })) return;
    images_in_all_ = batch;
    images_ = std::min(batch, pass);
    image_ = {batch, number_(1, 20), number_(1, 6), number_(1, 6)};
    is_of_bytes_ = bytes_.chance(50);
    add_input(*program);
    const int64_t steps = bytes_.from(0, 4);
    for (int64_t i = 0; i < steps; ++i) {
      switch (bytes_.from(0, 9)) {
        case 0: add_input(*program); break;
        case 1: add_output(*program); break;
        case 2:
        case 3: add_pool(*program); break;
        default: add_conv(*program); break;
      }
    }
    if (bytes_.chance(90)) add_output(*program);
    try_run(*program);
  }

 private:
  Conversion choose_conversion() {
    using T = ElementType;
    const T inside = is_of_bytes_ ? T::kUint8 : T::kFloat32;
    const int64_t kind = bytes_.from(0, 9);
    if (kind == 0)
      return {bytes_.pick({T::kFloat32, T::kFloat16, T::kUint8}),
              bytes_.pick({T::kFloat32, T::kFloat16, T::kUint8}), any_float(bytes_),
              static_cast<int32_t>(number_(0, 255)), static_cast<int32_t>(number_(0, 255)),
              bytes_.chance(50) ? std::make_shared<const ByteTable>(kZeros) : nullptr};
    return {kind < 3 ? T::kFloat32 : inside, inside, kind == 1 ? any_float(bytes_) : 1.0f, 0, 255};
  }

  // Behind what is there, or anywhere.
  int64_t choose_place(int64_t floats) {
    if (bytes_.chance(8)) return number_(0, 300);
    int64_t place = end_;
    if (__builtin_add_overflow(end_, std::max<int64_t>(floats, 0), &end_)) end_ = place;
    return place;
  }

  // What a tensor takes, where that is not too much for here.
  int64_t size(const ImageShape& s) const {
    if (!is_small({images_, s.height, s.width}, kMaxBytes) || !is_small({s.channels}, kMaxBytes))
      return 0;
    return images_ * s.height * s.width * padded_channels(s.channels) / (is_of_bytes_ ? 4 : 1);
  }

  ImageShape choose_image() {
    if (bytes_.chance(95)) return image_;
    return {number_(1, 3), number_(1, 20), number_(1, 6), number_(1, 6)};
  }

  void add_input(Program& program) {
    const Conversion conversion = choose_conversion();
    const ImageShape shape = choose_image();
    const int64_t to = choose_place(size(shape));
    const int64_t number = bytes_.chance(95) ? inputs_ : number_(0, 2);
    if (!takes([&] { program.add_nchw_to_nhwc(number, conversion, shape, to); })) return;
    ++inputs_;
    image_ = shape;
    at_ = to;
    is_of_bytes_ = conversion.inside == ElementType::kUint8;
  }

  void add_output(Program& program) {
    const Conversion conversion = choose_conversion();
    const ImageShape shape = choose_image();
    const int64_t from = bytes_.chance(95) ? at_ : number_(0, 300);
    const int64_t number = bytes_.chance(95) ? outputs_ : number_(0, 2);
    if (takes([&] { program.add_nhwc_to_nchw(from, shape, number, conversion); })) ++outputs_;
  }

  ConvShape choose_shape(const ConvParams& a) {
    // What fits, or more, however large: so that all else is right where one number is not.
    const auto out = [&](int64_t in, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad) {
      if (stride < 1 || bytes_.chance(5)) return number_(1, 6);
      const __int128 span = (static_cast<__int128>(kernel) - 1) * dilation + 1;
      const __int128 padded = static_cast<__int128>(in) + pad;
      const __int128 fitting = padded < span ? 0 : (padded - span) / stride + 1;
      const __int128 all = fitting + bytes_.from(fitting == 0 ? 1 : 0, 2);
      return all > std::numeric_limits<int64_t>::max() ? number_(1, 6) : static_cast<int64_t>(all);
    };
    const auto pad = [&](int64_t kernel, int64_t dilation) {
      int64_t span;
      const bool is_large = kernel < 1 || __builtin_mul_overflow(kernel - 1, dilation, &span);
      return is_large || !bytes_.chance(40) ? number_(0, 2) : span;
    };
    ConvShape s{};
    s.batch = image_.batch;
    s.in_h = image_.height;
    s.in_w = image_.width;
    s.pad_top = pad(a.kernel_h, a.dilation_h);
    s.pad_left = pad(a.kernel_w, a.dilation_w);
    s.out_h = out(s.in_h, a.kernel_h, a.stride_h, a.dilation_h, s.pad_top);
    s.out_w = out(s.in_w, a.kernel_w, a.stride_w, a.dilation_w, s.pad_left);
    return s;
  }

  void note_output(const ConvShape& s, int64_t channels, int64_t at) {
    image_ = {s.batch, channels, s.out_h, s.out_w};
    at_ = at;
  }

  void add_conv(Program& program) {
    ConvParams a = choose_params(bytes_, number_);
    if (bytes_.chance(95)) {
      a.in_channels = image_.channels;
      if (bytes_.chance(80)) a.group = 1;
    }
    const Convs convs = make_convs(bytes_, a, is_of_bytes_);
    const ConvShape s = choose_shape(a);
    const int64_t x = bytes_.chance(95) ? at_ : number_(0, 300);
    const int64_t y = choose_place(size({s.batch, a.out_channels, s.out_h, s.out_w}));
    const int64_t z = bytes_.chance(70) ? -1 : bytes_.chance(50) ? at_ : number_(0, 300);
    const bool is_taken = takes([&] {
      if (is_of_bytes_)
        program.add_qadder_conv(convs.bytes, s, x, z, y);
      else
        program.add_adder_conv(convs.floats, s, x, z, y);
    });
    if (is_taken) note_output(s, a.out_channels, y);
  }

  void add_pool(Program& program) {
    ConvParams a = choose_params(bytes_, number_);
    if (bytes_.chance(95)) {
      a.in_channels = a.out_channels = image_.channels;
      a.group = 1;
    }
    const ConvShape s = choose_shape(a);
    const int64_t y = choose_place(size({s.batch, a.in_channels, s.out_h, s.out_w}));
    if (takes([&] { program.add_max_pool(a, s, at_, y); })) note_output(s, a.in_channels, y);
  }

  void try_run(const Program& program) {
    if (images_in_all_ > kMaxBytes) return;  // of padding alone, which takes no memory but time
    const int threads = bytes_.chance(90) ? static_cast<int>(bytes_.from(1, 3))
                                          : static_cast<int>(number_(0, 3));
    int64_t floats = 0, scratch = 0;
    if (!takes([&] {
          floats = program.arena_size(threads);
          scratch = program.scratch_size(threads);
        }))
      return;
    int64_t bytes = kMaxBytes;
    const auto fits = [&](int64_t size) { return size <= bytes && (bytes -= size, true); };
    if (!fits(floats * 4 > 0 ? floats * 4 : floats) || scratch > 64 * kMaxBytes) return;
    std::vector<Exact<uint8_t>> inputs;
    for (const Program::Port& port : program.inputs()) {
      if (!fits(port.bytes())) return;
      inputs.emplace_back(port.bytes(), static_cast<uint8_t>(bytes_.take(1)));
      if (bytes_.chance(80))
        for (uint8_t& byte : inputs.back()) byte = static_cast<uint8_t>(random_() % 64);
    }
    for (const Program::Port& port : program.outputs())
      if (!fits(port.bytes())) return;
    const int fault = static_cast<int>(bytes_.from(0, 30));
    const auto first = results(program, inputs, threads, fault);
    const int others = threads == 1 ? 3 : 1;
    if (fault < 2 || first.empty() || program.arena_size(others) > kMaxBytes) return;
    if (program.scratch_size(others) > 64 * kMaxBytes) return;
    compare(program, first, results(program, inputs, others, fault));
  }

  // The outputs; none where the run is refused. A `fault` of 0 or 1 makes it one that must be.
  static std::vector<Exact<uint8_t>> results(const Program& program,
                                             const std::vector<Exact<uint8_t>>& inputs, int threads,
                                             int fault) {
    Exact<float> arena(program.arena_size(threads), std::numeric_limits<float>::quiet_NaN());
    std::vector<Exact<uint8_t>> outputs;
    std::vector<const void*> from;
    std::vector<void*> to;
    for (const Program::Port& port : program.outputs()) outputs.emplace_back(port.bytes());
    for (const auto& input : inputs) from.push_back(input.data());
    for (auto& output : outputs) to.push_back(output.data());
    if (fault == 0) to.push_back(nullptr);
    const bool is_shared = fault == 1 && !from.empty() && !inputs[0].empty() && !arena.empty();
    if (is_shared) from[0] = arena.data();
    const bool is_taken = takes([&] { program.run(arena.data(), from, to, PoolWorkers(threads)); });
    if (is_taken == (fault == 0 || is_shared)) fail("a run is taken or refused where it must not be");
    return is_taken ? outputs : std::vector<Exact<uint8_t>>{};
  }

  // What is taken has one result, but for what is not a number.
  static void compare(const Program& program, const std::vector<Exact<uint8_t>>& a,
                      const std::vector<Exact<uint8_t>>& b) {
    for (size_t i = 0; i < a.size(); ++i) {
      const bool is_float = program.outputs()[i].type == ElementType::kFloat32;
      for (size_t k = 0; k < a[i].size(); k += is_float ? 4 : 1) {
        float x = 0, y = 1;
        if (is_float) std::memcpy(&x, &a[i][k], 4);
        if (is_float) std::memcpy(&y, &b[i][k], 4);
        const bool is_same = std::memcmp(&a[i][k], &b[i][k], is_float ? 4 : 1) == 0;
        if (!is_same && x == x && y == y) fail("threads change what a hostile program gives");
      }
    }
  }

  Bytes& bytes_;
  Numbers number_;
  std::mt19937 random_;
  int64_t images_in_all_ = 0, images_ = 1;
  int64_t inputs_ = 0, outputs_ = 0;
  ImageShape image_{};  // what is at at_, if all went well
  int64_t at_ = 0, end_ = 0;
  bool is_of_bytes_ = false;
};

}  // namespace

void try_hostile_program(Bytes& bytes) {
  const int percent = static_cast<int>(bytes.pick({1, 3, 10}));
  Maker(bytes, percent).run();
}

void try_hostile_conv(Bytes& bytes) {
  Numbers number(bytes, static_cast<int>(bytes.pick({5, 20, 50})));
  make_convs(bytes, choose_params(bytes, number), bytes.chance(50));
}

}  // namespace fuzz
