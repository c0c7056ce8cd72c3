// Images as a model takes them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

// The values (C, H, W) of a binary PGM or PPM file with 8 bits per value. `preprocessing` is the JSON of
// a model's metadata `ai.addernet.preprocessing`, of which the mean and the standard deviation of
// each channel are used. Throws std::runtime_error where the image has another shape (N, C, H, W).
std::vector<float> read_image(const char* path, const std::vector<int64_t>& shape,
                              const std::string& preprocessing);
