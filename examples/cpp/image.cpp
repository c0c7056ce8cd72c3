#include "image.h"

#include <cstdlib>
#include <fstream>
#include <stdexcept>

// The numbers of a list such as "mean": [0.3054].
static std::vector<float> numbers(const std::string& json, const std::string& key) {
  const std::string head = '"' + key + "\": [";
  const std::size_t at = json.find(head);
  if (at == std::string::npos) throw std::runtime_error("the model does not say its " + key);
  std::vector<float> found;
  const char* text = json.c_str() + at + head.size() - 1;
  do {
    char* end = nullptr;
    found.push_back(std::strtof(text + 1, &end));
    text = end;
  } while (*text == ',');
  return found;
}

std::vector<float> read_image(const char* path, const std::vector<int64_t>& shape,
                              const std::string& preprocessing) {
  const std::size_t channels = shape[1], pixels = shape[2] * shape[3];
  const auto mean = numbers(preprocessing, "mean"), std = numbers(preprocessing, "std");
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  int64_t width = 0, height = 0, most = 0;
  file >> magic >> width >> height >> most;
  file.get();
  const bool fits = magic == (channels == 1 ? "P5" : "P6") && width == shape[3] &&
                    height == shape[2] && most == 255 && mean.size() == channels &&
                    std.size() == channels;
  std::vector<char> bytes(fits ? channels * pixels : 0);
  if (!fits || !file.read(bytes.data(), static_cast<std::streamsize>(bytes.size())))
    throw std::runtime_error(std::string(path) + " is no image that the model takes: " +
                             std::to_string(channels) + " x " + std::to_string(shape[2]) + " x " +
                             std::to_string(shape[3]));
  std::vector<float> values(bytes.size());
  for (std::size_t c = 0; c < channels; c++)
    for (std::size_t i = 0; i < pixels; i++) {
      const auto byte = static_cast<unsigned char>(bytes[i * channels + c]);
      values[c * pixels + i] = (static_cast<float>(byte) / 255 - mean[c]) / std[c];
    }
  return values;
}
