// How taps of x come into shared memory one by one, where the channels of a group are not whole
// pieces: each is looked up by itself. An asynchronous copy takes 4 bytes at least, a float; halves
// go through registers.
#pragma once

#include "common/image.cuh"
#include "float/fetch.cuh"

template <typename Tile>
class TapFetch {
  using Stage = typename Tile::Stage;
  using Scalar = typename Tile::Scalar;
  static constexpr int kPerWord = Taps<Scalar>::kPerWord;
  static constexpr bool kAsync = kAsyncCopies && kPerWord == 1;
  static constexpr int kStep = Tile::kThreads / Tile::kPieces;
  static constexpr int kCopies = Tile::kPixels / kStep;
  static_assert(Tile::kPixels % kStep == 0 && kStep % 8 == 0, "whole lines");

 public:
  struct Shared {
    Origin origins[Tile::kPixels];
  };

  // A barrier must follow.
  __device__ TapFetch(const ConvArgs& a, Shared& shared, int group, int first_pixel, int first_word)
      : a_(a),
        origins_(shared.origins),
        pixel_(threadIdx.x / Tile::kPieces),
        first_channel_(group * a.group_in) {
    const int piece = threadIdx.x % Tile::kPieces;
    to_ = Tile::offset(pixel_, piece);
    word_ = first_word + piece * kPieceWords;
    for (int p = threadIdx.x; p < Tile::kPixels; p += Tile::kThreads)
      shared.origins[p] = origin_of<Scalar>(a, first_pixel + p);
  }

  __device__ void start(const Shared&) {}
  __device__ void begin(Stage& stage, int number) {
    Origin origins[kCopies];
#pragma unroll
    for (int j = 0; j < kCopies; ++j) origins[j] = origins_[pixel_ + j * kStep];
#pragma unroll
    for (int i = 0; i < kPieceWords; ++i) {
      const Position at(a_, word_ + number * Tile::kDepth + i, kPerWord, first_channel_);
#pragma unroll
      for (int j = 0; j < kCopies; ++j) {
        const Scalar* from = address<Scalar>(a_, origins[j], at);
        if constexpr (kAsync) {
          copy_async<4>(to(stage, j) + i * 4, from);  // a word is one tap, none is beyond
        } else {
          Scalar taps[kPerWord];
#pragma unroll
          for (int k = 0; k < kPerWord; ++k)
            taps[k] = at.channel + k < a_.group_in ? __ldg(from + k) : from_float<Scalar>(0);
          fours_[j].words[i] = Taps<Scalar>::word(taps);
        }
      }
    }
  }
  __device__ void finish(Stage& stage) const {
    if constexpr (!kAsync) {
#pragma unroll
      for (int j = 0; j < kCopies; ++j)
        *reinterpret_cast<uint4*>(to(stage, j)) = fours_[j].bits;
    }
  }
  __device__ void next_turn() { word_ += kTurn; }

 private:
  __device__ char* to(Stage& stage, int j) const {
    return reinterpret_cast<char*>(stage.x[j * kStep]) + to_;
  }

  const ConvArgs& a_;
  const Origin* origins_;
  int pixel_, word_, first_channel_;
  unsigned to_;
  Four<typename Tile::Word> fours_[kCopies];
};
