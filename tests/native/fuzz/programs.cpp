// Valid programs: chains of convolutions and poolings with residuals, in place or not, and
// conversions of every kind around them. Each is run twice, at another level, with other threads,
// passes and places in memory, and both results are compared with the definition, to the bit: float
// values are so few binary digits that all sums of them are exact. Some programs have values of any
// bits instead; then both results must be the same.
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>

#include "few_levels.h"
#include "fuzz/bytes.h"
#include "fuzz/shapes.h"
#include "program/program.h"

namespace fuzz {
namespace {

// A tensor of the program in (N, C, H, W): what it must be. Integers are kept as floats, too.
struct Value {
  ImageShape shape;
  ElementType type;  // inside
  std::vector<float> v;
  double most = 0;  // bound on its size, and
  int digits = 0;   // of its binary digits behind the point
  int last_use = -1;

  float at(int64_t n, int64_t c, int64_t y, int64_t x) const {
    return v[((n * shape.channels + c) * shape.height + y) * shape.width + x];
  }
};

struct Port {
  Conversion conversion;
  size_t value;
  std::vector<uint8_t> bytes;
};

struct Layer {
  Geometry g;
  size_t x, y;
  int64_t z = -1;  // a value
  bool is_pool = false;
  std::vector<float> weights, scale, bias;
  std::vector<uint8_t> byte_weights;
  uint8_t zero_point = 0;
  Clip clip{};
  Q8Activation activation{};
  Form form = Form::kMax;
};

// How a program is run; it must not matter.
struct Way {
  Isa isa;
  int threads;
  int64_t pass;
  bool in_place, is_timed;
};

class Case {
 public:
  explicit Case(Bytes& bytes) : bytes_(bytes), random_(bytes.random()), is_wild_(bytes.chance(15)), is_infinite_(bytes.chance(20)) {}

  void run() {
    batch_ = bytes_.from(0, 5);
    const int64_t inputs = bytes_.from(1, 3);
    for (int64_t i = 0; i < inputs; ++i) add_input();
    const int64_t layers = bytes_.from(0, 5);
    for (int64_t i = 0; i < layers; ++i) add_layer();
    const int64_t outputs = bytes_.from(1, 2);
    for (int64_t i = 0; i < outputs; ++i) add_output();
    const auto first = results(choose_way()), second = results(choose_way());
    for (size_t i = 0; i < outputs_.size(); ++i) {
      compare(first[i], second[i], outputs_[i], "two ways to run a program differ");
      if (!is_wild_ || outputs_[i].value < inputs_.size())  // of others only layers know
        compare(first[i], outputs_[i].bytes, outputs_[i], "a program's output");
    }
  }

 private:
  float random_float() {
    if (!is_wild_) return static_cast<float>(static_cast<int>(random_() % 17) - 8) * 0.5f;
    const uint32_t kind = random_() % 16;
    if (kind == 2) return 65500 + static_cast<float>(random_() % 400) / 8;  // the largest half is 65504
    if (kind > 1) return static_cast<float>(static_cast<int>(random_() % 4001) - 2000) / 997;
    const uint32_t bits = kind == 0 ? 0x7f800000 | (random_() & 0x80400000) : random_();
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
  }

  // Of an input: in some programs it may be infinite, which no sum hides.
  float random_value() {
    if (!is_infinite_ || random_() % 64 > 0) return random_float();
    return random_() % 2 == 0 ? INFINITY : -INFINITY;
  }

  // Of a quantization.
  float random_scale() {
    return bytes_.pick({0.5f, 0.037f, 1.0f, 0.1f, 3e-4f, 7e12f, 0.1f, 1e-44f, 1e37f, 3e38f});
  }

  Conversion choose_conversion(ElementType inside) {
    using T = ElementType;
    if (inside == T::kFloat32)
      return {bytes_.pick({T::kFloat32, T::kFloat16}), inside, 1, 0, 255};
    if (bytes_.chance(50)) return {T::kUint8, inside, 1, 0, 255};
    return {T::kFloat32, inside, random_scale(), static_cast<int32_t>(bytes_.from(0, 255)),
            static_cast<int32_t>(bytes_.from(0, 255))};
  }

  size_t add_value(const ImageShape& shape, ElementType type) {
    Value value;
    value.shape = shape;
    value.type = type;
    value.v.resize(shape.nchw_size());
    values_.push_back(std::move(value));
    return values_.size() - 1;
  }

  void use(size_t value) { values_[value].last_use = step_; }

  void add_input();
  void add_layer();
  void add_output();
  bool choose_residual(Layer& layer);
  bool make_float_layer(Layer& layer);
  void make_byte_layer(Layer& layer);
  void define_float(const Layer& layer);
  void define_bytes(const Layer& layer);
  void define_pool(const Layer& layer);
  Way choose_way();
  std::vector<Exact<uint8_t>> results(const Way& way);
  void compare(const Exact<uint8_t>& a, const std::vector<uint8_t>& b, const Port& port,
               const char* what) const;

  Bytes& bytes_;
  std::mt19937 random_;
  bool is_wild_, is_infinite_;
  int64_t batch_ = 0;
  int step_ = 0;
  std::vector<Value> values_;
  std::vector<Port> inputs_, outputs_;
  std::vector<Layer> layers_;
};

float half_to_float(uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 0x3ff;
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 31)
    return static_cast<float>(mantissa ? std::numeric_limits<double>::quiet_NaN() : sign * INFINITY);
  return static_cast<float>(sign * (exponent == 0 ? std::ldexp(mantissa, -24)
                                                  : std::ldexp(1024 + mantissa, exponent - 25)));
}

// The nearest half, of even bits where there are two.
uint16_t float_to_half(float value) {
  if (std::isnan(value)) return 0x7e00;
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double size = std::fabs(static_cast<double>(value));
  uint16_t best = 0;
  for (int shift = 14; shift >= 0; --shift) {
    const auto next = static_cast<uint16_t>(best | 1 << shift);
    if (next <= 0x7bff && static_cast<double>(half_to_float(next)) <= size) best = next;
  }
  if (best == 0x7bff) return sign | (size >= 65520 ? 0x7c00 : best);
  const double low = static_cast<double>(half_to_float(best));
  const double high = static_cast<double>(half_to_float(static_cast<uint16_t>(best + 1)));
  const bool is_up = size - low > high - size || (size - low == high - size && best % 2 == 1);
  return static_cast<uint16_t>(sign | (best + (is_up ? 1 : 0)));
}

float quantized(float v, const Conversion& c) {
  const float zero = static_cast<float>(c.zero_point), quotient = v / c.scale;
  if (std::isnan(quotient)) return 0;
  return std::min(std::max(std::nearbyint(quotient) + zero, 0.0f), static_cast<float>(c.top));
}

void Case::add_input() {
  const ImageShape shape = {batch_, bytes_.pick<int64_t>({1, 2, 3, 8, 9, 15, 16, 17, 24, 33}),
                            bytes_.from(1, 9), bytes_.from(1, 12)};
  const ElementType inside = bytes_.pick({ElementType::kFloat32, ElementType::kUint8});
  const size_t at = add_value(shape, inside);
  Value& value = values_[at];
  Port port = {choose_conversion(inside), at, {}};
  Conversion& c = port.conversion;
  if (inside == ElementType::kUint8 && c.outside == ElementType::kFloat32 && bytes_.chance(40)) {
    std::vector<uint8_t> bytes(ByteTable::kSize);
    const int64_t run = bytes_.pick<int64_t>({1, 1, 7, 17, 40, 256});  // of equal entries
    for (size_t i = 0; i < bytes.size(); ++i)
      bytes[i] = i % static_cast<size_t>(run) != 0 ? bytes[i - 1] : static_cast<uint8_t>(random_());
    c.table = std::make_shared<const ByteTable>(bytes.data());
  }
  port.bytes.resize(shape.nchw_size() * size_of(c.outside));
  value.most = 4;
  value.digits = 1;
  for (int64_t i = 0; i < shape.nchw_size(); ++i) {
    if (c.outside == ElementType::kUint8) {
      value.v[i] = port.bytes[i] = static_cast<uint8_t>(random_());
    } else if (c.outside == ElementType::kFloat16) {
      uint16_t half = float_to_half(random_value());
      if (is_wild_) half = static_cast<uint16_t>(random_());
      std::memcpy(&port.bytes[2 * i], &half, 2);
      value.v[i] = half_to_float(half);
    } else {
      const float f = inside == ElementType::kUint8 && !is_wild_
                          ? static_cast<float>(static_cast<int>(random_() % 600) - 200) * 0.5f * c.scale
                          : random_value();
      std::memcpy(&port.bytes[4 * i], &f, 4);
      value.v[i] = inside == ElementType::kUint8 ? quantized(f, c) : f;
      if (c.table) value.v[i] = c.table->bytes()[static_cast<uint8_t>(value.v[i])];
    }
  }
  inputs_.push_back(std::move(port));
  use(at);
  ++step_;
}

bool Case::choose_residual(Layer& layer) {
  const ImageShape& y = values_[layer.y].shape;
  for (size_t i = 0; i < values_.size() - 1; ++i) {
    const ImageShape& z = values_[i].shape;
    if (values_[i].type == values_[layer.y].type && z.channels == y.channels &&
        z.height == y.height && z.width == y.width && bytes_.chance(60)) {
      layer.z = static_cast<int64_t>(i);
      return true;
    }
  }
  return false;
}

// Whether all of its sums are exact.
bool Case::make_float_layer(Layer& layer) {
  const Geometry& g = layer.g;
  const Value& x = values_[layer.x];
  Value& y = values_[layer.y];
  const int scale_digits = static_cast<int>(bytes_.from(0, 2));
  const int digits = std::max(x.digits, 1);
  const double sum = static_cast<double>(g.taps()) * (x.most + 4);
  y.digits = digits + scale_digits;
  double most = 2 * sum + 4;
  if (layer.z >= 0) {
    y.digits = std::max(y.digits, values_[layer.z].digits);
    most += values_[layer.z].most;
  }
  if (!is_wild_ && most * std::exp2(y.digits + 1) >= 0x1p24) return false;
  layer.weights.resize(g.a.out_channels * g.taps());
  layer.scale.resize(g.a.out_channels);
  layer.bias.resize(g.a.out_channels);
  for (auto* floats : {&layer.weights, &layer.bias})
    for (float& f : *floats) f = random_float();
  for (float& f : layer.scale) {
    f = std::exp2(static_cast<float>(-scale_digits)) * (random_() % 4 == 0 ? -1.0f : 1.0f);
    if (is_wild_ && random_() % 4 == 0) f = random_float();
  }
  layer.clip = bytes_.pick({Clip{-64, 64}, Clip{0, 64}, Clip{0, 6}});
  if (is_wild_) layer.clip = {-std::numeric_limits<float>::infinity(), random_float()};
  layer.form = bytes_.pick({Form::kMax, Form::kDirect});
  y.most = 64;
  return true;
}

void Case::define_float(const Layer& layer) {
  const Geometry& g = layer.g;
  const Value& x = values_[layer.x];
  Value& y = values_[layer.y];
  int64_t at = 0;
  for (int64_t n = 0; n < g.s.batch; ++n)
    for (int64_t m = 0; m < g.a.out_channels; ++m)
      for (int64_t oy = 0; oy < g.s.out_h; ++oy)
        for (int64_t ox = 0; ox < g.s.out_w; ++ox, ++at) {
          double sum = 0;
          const int64_t first = m / g.a.group_out() * g.a.group_in();
          for_taps(g, oy, ox, g.a.group_in(), [&](int64_t c, int64_t k, int64_t h, int64_t w) {
            const float tap = is_inside(g.s, h, w) ? x.at(n, first + c, h, w) : 0.0f;
            const float weight = layer.weights[m * g.taps() + c * g.a.kernel_size() + k];
            sum += std::fabs(static_cast<double>(tap) - static_cast<double>(weight));
          });
          double v = static_cast<double>(layer.bias[m]) - static_cast<double>(layer.scale[m]) * sum;
          if (layer.z >= 0) v += static_cast<double>(values_[layer.z].v[at]);
          v = std::min(std::max(v, static_cast<double>(layer.clip.min)),
                       static_cast<double>(layer.clip.max));
          y.v[at] = static_cast<float>(v);
        }
}

void Case::make_byte_layer(Layer& layer) {
  const Geometry& g = layer.g;
  const auto taps = static_cast<float>(g.taps());
  layer.byte_weights.resize(g.a.out_channels * g.taps());
  for (uint8_t& w : layer.byte_weights) w = static_cast<uint8_t>(random_());
  layer.zero_point = static_cast<uint8_t>(random_());
  layer.scale.resize(g.a.out_channels);
  layer.bias.resize(g.a.out_channels);
  const float y_scale = random_scale();
  for (int64_t m = 0; m < g.a.out_channels; ++m) {
    layer.scale[m] = static_cast<float>(random_() % 1000) / 30000 * y_scale;
    layer.bias[m] = layer.scale[m] * taps * static_cast<float>(random_() % 200);
    if (is_wild_ && random_() % 4 == 0) layer.bias[m] = random_float();
    if (is_wild_ && random_() % 4 == 0) layer.scale[m] = random_float();
  }
  const int bits = static_cast<int>(bytes_.from(2, 8));
  layer.activation = {random_scale(), static_cast<int32_t>(bytes_.from(0, 255)), y_scale,
                      static_cast<int32_t>(bytes_.from(0, 255)),
                      bytes_.pick({0.0f, -std::numeric_limits<float>::infinity()}),
                      (1 << bits) - 1,
                      bytes_.chance(35) ? some_levels(random_, (1 << bits) - 1)
                                        : std::vector<uint8_t>{}};
}

void Case::define_bytes(const Layer& layer) {
  const Geometry& g = layer.g;
  const Value& x = values_[layer.x];
  const Q8Activation& act = layer.activation;
  Value& y = values_[layer.y];
  int64_t at = 0;
  for (int64_t n = 0; n < g.s.batch; ++n)
    for (int64_t m = 0; m < g.a.out_channels; ++m)
      for (int64_t oy = 0; oy < g.s.out_h; ++oy)
        for (int64_t ox = 0; ox < g.s.out_w; ++ox, ++at) {
          int32_t sum = 0;
          const int64_t first = m / g.a.group_out() * g.a.group_in();
          for_taps(g, oy, ox, g.a.group_in(), [&](int64_t c, int64_t k, int64_t h, int64_t w) {
            const int tap = is_inside(g.s, h, w) ? static_cast<int>(x.at(n, first + c, h, w))
                                                 : layer.zero_point;
            sum += std::abs(tap - layer.byte_weights[m * g.taps() + c * g.a.kernel_size() + k]);
          });
          float v = static_cast<float>(sum) * -layer.scale[m];
          v = v + layer.bias[m];
          if (layer.z >= 0)
            v = v + (values_[layer.z].v[at] - static_cast<float>(act.z_zero_point)) * act.z_scale;
          y.v[at] = requantized(v, act);
        }
}

void Case::define_pool(const Layer& layer) {
  const Geometry& g = layer.g;
  const Value& x = values_[layer.x];
  Value& y = values_[layer.y];
  int64_t at = 0;
  for (int64_t n = 0; n < g.s.batch; ++n)
    for (int64_t m = 0; m < g.a.out_channels; ++m)
      for (int64_t oy = 0; oy < g.s.out_h; ++oy)
        for (int64_t ox = 0; ox < g.s.out_w; ++ox, ++at)
          for_taps(g, oy, ox, 1, [&](int64_t, int64_t, int64_t h, int64_t w) {
            if (is_inside(g.s, h, w)) y.v[at] = std::max(y.v[at], x.at(n, m, h, w));
          });
}

void Case::add_layer() {
  Layer layer{};
  layer.x = static_cast<size_t>(bytes_.from(0, static_cast<int64_t>(values_.size()) - 1));
  const ElementType type = values_[layer.x].type;
  const ImageShape in = values_[layer.x].shape;
  layer.is_pool = type == ElementType::kUint8 && bytes_.chance(25);
  layer.g = choose_geometry(bytes_, batch_, in.channels, in.height, in.width, layer.is_pool);
  const Geometry& g = layer.g;
  if (g.outputs() * g.taps() > 2'000'000 || g.s.out_h > 20 || g.s.out_w > 20) return;
  layer.y = add_value({batch_, g.a.out_channels, g.s.out_h, g.s.out_w}, type);
  if (!layer.is_pool) choose_residual(layer);
  if (layer.is_pool) {
    define_pool(layer);
  } else if (type == ElementType::kUint8) {
    make_byte_layer(layer);
    if (!is_wild_) define_bytes(layer);
  } else if (make_float_layer(layer)) {
    if (!is_wild_) define_float(layer);
  } else {
    values_.pop_back();
    return;
  }
  use(layer.x);
  if (layer.z >= 0) use(static_cast<size_t>(layer.z));
  use(layer.y);
  ++step_;
  layers_.push_back(std::move(layer));
}

void Case::add_output() {
  const auto at = static_cast<size_t>(bytes_.chance(60) ? static_cast<int64_t>(values_.size()) - 1
                                                        : bytes_.from(0, static_cast<int64_t>(values_.size()) - 1));
  const Value& value = values_[at];
  Port port = {choose_conversion(value.type), at, {}};
  const Conversion& c = port.conversion;
  port.bytes.resize(value.v.size() * size_of(c.outside));
  for (size_t i = 0; i < value.v.size(); ++i) {
    if (c.outside == ElementType::kUint8) {
      port.bytes[i] = static_cast<uint8_t>(value.v[i]);
    } else if (c.outside == ElementType::kFloat16) {
      const uint16_t half = float_to_half(value.v[i]);
      std::memcpy(&port.bytes[2 * i], &half, 2);
    } else {
      const float f = value.type == ElementType::kUint8
                          ? (value.v[i] - static_cast<float>(c.zero_point)) * c.scale
                          : value.v[i];
      std::memcpy(&port.bytes[4 * i], &f, 4);
    }
  }
  outputs_.push_back(std::move(port));
  values_[at].last_use = std::numeric_limits<int>::max();
}

Way Case::choose_way() {
  return {choose_isa(bytes_), static_cast<int>(bytes_.from(1, 3)), bytes_.from(1, 7),
          bytes_.chance(50), bytes_.chance(20)};
}

// Places in memory, the first that is free from step to step.
class Places {
 public:
  int64_t take(int64_t size, int gap, int last_use, int step) {
    int64_t offset = gap;
    for (bool is_free = false; !is_free;) {
      is_free = true;
      for (const Place& p : places_)
        if (p.last_use >= step && offset < p.offset + p.size && p.offset < offset + size) {
          offset = p.offset + p.size + gap;
          is_free = false;
        }
    }
    keep(offset, size, last_use);
    return offset;
  }

  void keep(int64_t offset, int64_t size, int last_use) {
    places_.push_back({offset, size, last_use});
  }

 private:
  struct Place {
    int64_t offset, size;
    int last_use;
  };
  std::vector<Place> places_;
};

std::vector<Exact<uint8_t>> Case::results(const Way& way) {
  Program program(batch_, way.pass);
  Places places;
  std::vector<int64_t> offsets(values_.size());
  int step = 0;
  const auto place = [&](size_t value) {
    const Value& v = values_[value];
    ImageShape shape = v.shape;
    shape.batch = std::min(shape.batch, way.pass);
    const int64_t size = Tensor{0, shape, v.type}.size();
    offsets[value] = places.take(size, bytes_.pick({0, 0, 1, 5}), v.last_use, step);
  };
  for (size_t i = 0; i < inputs_.size(); ++i, ++step) {
    const Port& port = inputs_[i];
    place(port.value);
    program.add_nchw_to_nhwc(static_cast<int64_t>(i), port.conversion, values_[port.value].shape,
                             offsets[port.value]);
  }
  for (const Layer& layer : layers_) {
    if (way.in_place && layer.z >= 0 && values_[layer.z].last_use == step &&
        layer.x != static_cast<size_t>(layer.z)) {
      // The same place, for longer.
      offsets[layer.y] = offsets[layer.z];
      ImageShape shape = values_[layer.y].shape;
      shape.batch = std::min(shape.batch, way.pass);
      places.keep(offsets[layer.y], Tensor{0, shape, values_[layer.y].type}.size(),
                  values_[layer.y].last_use);
    } else {
      place(layer.y);
    }
    ++step;
    const int64_t x = offsets[layer.x], y = offsets[layer.y];
    const int64_t z = layer.z < 0 ? -1 : offsets[layer.z];
    if (layer.is_pool) {
      program.add_max_pool(layer.g.a, layer.g.s, x, y);
    } else if (values_[layer.x].type == ElementType::kUint8) {
      program.add_qadder_conv(
          std::make_shared<QAdderConv>(layer.g.a, layer.byte_weights.data(), layer.zero_point,
                                       layer.scale.data(), layer.bias.data(), layer.activation,
                                       way.isa),
          layer.g.s, x, z, y);
    } else {
      program.add_adder_conv(
          std::make_shared<AdderConv>(layer.g.a, layer.weights.data(), layer.scale.data(),
                                      layer.bias.data(), layer.clip, layer.form, way.isa),
          layer.g.s, x, z, y);
    }
  }
  Exact<float> arena;
  std::vector<Exact<uint8_t>> results;
  std::vector<const void*> from;
  std::vector<void*> to;
  for (size_t i = 0; i < outputs_.size(); ++i) {
    const Port& port = outputs_[i];
    program.add_nhwc_to_nchw(offsets[port.value], values_[port.value].shape,
                             static_cast<int64_t>(i), port.conversion);
    results.emplace_back(port.bytes.size(), 0xaa);
  }
  for (Port& port : inputs_) from.push_back(port.bytes.data());
  for (Exact<uint8_t>& result : results) to.push_back(result.data());
  arena.assign(program.arena_size(way.threads), std::numeric_limits<float>::quiet_NaN());
  std::vector<double> seconds(program.step_count());
  program.run(arena.data(), from, to, PoolWorkers(way.threads), way.is_timed ? seconds.data() : nullptr);
  return results;
}

// Any NaN is as good as another.
void Case::compare(const Exact<uint8_t>& a, const std::vector<uint8_t>& b, const Port& port,
                   const char* what) const {
  const int64_t width = size_of(port.conversion.outside);
  for (size_t i = 0; i < a.size(); i += width) {
    if (std::memcmp(&a[i], &b[i], width) == 0) continue;
    if (width == 4) {
      float x, y;
      std::memcpy(&x, &a[i], 4);
      std::memcpy(&y, &b[i], 4);
      if (x == y || (std::isnan(x) && std::isnan(y))) continue;
    }
    if (width == 2) {
      uint16_t x, y;
      std::memcpy(&x, &a[i], 2);
      std::memcpy(&y, &b[i], 2);
      const float p = half_to_float(x), q = half_to_float(y);
      if (p == q || (std::isnan(p) && std::isnan(q))) continue;
    }
    fail(std::string(what) + ": element " + std::to_string(i / width) + " of " +
         std::to_string(a.size() / width) + (is_wild_ ? ", values of any bits" : ""));
  }
}

}  // namespace

void try_program(Bytes& bytes) { Case(bytes).run(); }

}  // namespace fuzz
