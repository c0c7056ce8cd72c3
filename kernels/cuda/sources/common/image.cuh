// Where the taps of an output pixel lie in the image.
#pragma once

#include "common/divide.cuh"
#include "common/params.cuh"

constexpr int kOutside = -(1 << 30);  // a row that is outside of any image

// The first kernel position of an output pixel: its row and column, and its address, which may lie
// outside of the tensor. A pixel beyond the last one has all its positions outside.
struct alignas(16) Origin {
  long long address;
  int h, w;
};

template <typename Scalar>
__device__ Origin origin_of(const ConvArgs& a, int pixel) {
  const int image = a.out_h * a.out_w, n = pixel / image, rest = pixel % image;
  const int h = rest / a.out_w * a.stride_h - a.pad_top;
  const int w = rest % a.out_w * a.stride_w - a.pad_left;
  const long long element = ((static_cast<long long>(n) * a.in_h + h) * a.in_w + w) * a.x_row;
  return {reinterpret_cast<long long>(a.x) + element * static_cast<long long>(sizeof(Scalar)),
          pixel < a.pixels ? h : kOutside, w};
}

// A kernel position, relative to the first, and a channel there.
struct Position {
  int h, w;
  int channel;  // of the group
  int offset;   // in elements

  __device__ Position(const ConvArgs& a, int h, int w, int channel, int first_channel)
      : h(h * a.dilation_h), w(w * a.dilation_w), channel(channel) {
    offset = (this->h * a.in_w + this->w) * a.x_row + first_channel + channel;
  }

  // By the number of a piece of so many channels among all positions' pieces, per_position each.
  // Beyond the last position all is outside.
  __device__ Position(const ConvArgs& a, unsigned number, int channels, int first_channel) {
    const unsigned position = divide(number, a.per_position_inverse);
    const unsigned row = divide(position, a.kernel_w_inverse);
    *this = Position(a, row, position - row * a.kernel_w,
                     (number - position * a.per_position) * channels, first_channel);
    if (row >= static_cast<unsigned>(a.kernel_h)) h = kOutside;
  }
};

__device__ inline bool is_inside(const ConvArgs& a, const Origin& origin, const Position& at) {
  return static_cast<unsigned>(origin.h + at.h) < static_cast<unsigned>(a.in_h) &&
         static_cast<unsigned>(origin.w + at.w) < static_cast<unsigned>(a.in_w);
}

// The address of a tap that is inside, as a number.
template <typename Scalar>
__device__ long long address_inside(const Origin& origin, const Position& at) {
  return origin.address + at.offset * static_cast<long long>(sizeof(Scalar));
}

// The address of a tap, or of zeros where it lies in the padding.
template <typename Scalar>
__device__ const Scalar* address(const ConvArgs& a, const Origin& origin, const Position& at) {
  const bool inside = is_inside(a, origin, at);
  const long long tap = address_inside<Scalar>(origin, at);
  return inside ? reinterpret_cast<const Scalar*>(tap) : static_cast<const Scalar*>(a.zeros);
}
