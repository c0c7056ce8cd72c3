// How taps come into shared memory, a stage at a time: `begin` before the arithmetic of the stage
// before, `finish` behind it. Asynchronous copies go straight there; where there are none, values
// wait in registers in between.
#pragma once

#include "common/async.cuh"
#include "common/params.cuh"
#include "float/tile.cuh"

// So many bytes on their way.
template <bool kAsync, int kBytes = 16>
struct Transfer {
  __device__ void begin(void* to, const void* from, bool there = true) {
    copy_async<kBytes>(to, from, there);
  }
  __device__ void finish(void*) const {}
};
template <>
struct Transfer<false, 16> {
  uint4 value;

  __device__ void begin(void*, const void* from, bool there = true) {
    value = load_now(static_cast<const uint4*>(from), there);
  }
  __device__ void finish(void* to) const { *static_cast<uint4*>(to) = value; }
};
template <>
struct Transfer<false, 4> {
  unsigned value;

  __device__ void begin(void*, const void* from) {
    value = load_now(static_cast<const unsigned*>(from));
  }
  __device__ void finish(void* to) const { *static_cast<unsigned*>(to) = value; }
};

// A thread's share of the weights. Those of a stage are contiguous, and all threads take part.
template <typename Tile>
class WeightFetch {
  using Stage = typename Tile::Stage;
  static constexpr int kStageBytes = Tile::kDepth * Tile::kFilters * 4;
  static constexpr int kBytes = kStageBytes < 16 * Tile::kThreads ? 4 : 16;  // at a time
  static constexpr int kStep = kBytes * Tile::kThreads, kCopies = kStageBytes / kStep;
  static_assert(kStageBytes % kStep == 0, "every thread fetches as much");

 public:
  // `tile`: of all filters, group by group.
  __device__ WeightFetch(const ConvArgs& a, int tile, int first_word)
      : to_(keep(threadIdx.x * kBytes)),
        from_(static_cast<const char*>(a.weights) + threadIdx.x * kBytes +
              (static_cast<long long>(tile) * a.weight_words + first_word) * Tile::kFilters * 4) {}

  // Stage `number` of the turn; kStages is the first one of the next.
  __device__ void begin(Stage& stage, int number) {
#pragma unroll
    for (int i = 0; i < kCopies; ++i)
      copies_[i].begin(to(stage, i), from_ + number * kStageBytes + i * kStep);
  }
  __device__ void finish(Stage& stage) const {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) copies_[i].finish(to(stage, i));
  }
  __device__ void next_turn() { from_ += Tile::kStages * kStageBytes; }

 private:
  __device__ char* to(Stage& stage, int i) const {
    return reinterpret_cast<char*>(stage.w) + i * kStep + to_;
  }

  unsigned to_;
  const char* from_;
  Transfer<kAsyncCopies, kBytes> copies_[kCopies];
};

// Four words at one kernel position, as an entry of ConvArgs::pieces. Addresses are in units of 16
// bytes.
struct alignas(16) Piece {
  int row;        // of the image, from the first one of the kernel
  int offset;     // units from that row's first pixel under the kernel
  unsigned need;  // bits of its kernel row and column, see Origin; one that is never set: no taps
  int unused;
};

// A thread's share of x, by pieces: one of pixel `pixel`, and of kStep pixels further on.
template <typename Tile>
class PieceFetch {
  using Stage = typename Tile::Stage;
  static constexpr int kStep = Tile::kThreads / Tile::kPieces;
  static constexpr int kCopies = Tile::kPixels / kStep;
  static_assert(Tile::kPixels % kStep == 0 && kStep % 8 == 0, "whole lines");

  // Where the kernel lies for an output pixel.
  struct Origin {
    int address;    // units from the beginning of x, which may be outside of it
    unsigned have;  // bit i: its row i is inside of the image; bit 16 + i: its column i
  };

 public:
  struct Shared {
    Origin origins[Tile::kPixels];
  };

  // A barrier must follow.
  __device__ PieceFetch(const ConvArgs& a, Shared& shared, int group, int first_pixel,
                        int first_word)
      : x_(static_cast<const uint4*>(a.x)),
        pixel_(threadIdx.x / Tile::kPieces) {
    const int piece = threadIdx.x % Tile::kPieces;
    to_ = keep(Tile::offset(pixel_, piece));
    row_step_ = a.in_w * units(a.x_row);
    pieces_ = static_cast<const uint4*>(a.pieces) + first_word / kPieceWords + piece;
    for (int i = 0; i < 2; ++i) pieces_ahead_[i] = load(i);
    for (int p = threadIdx.x; p < Tile::kPixels; p += Tile::kThreads)
      shared.origins[p] = origin(a, group, first_pixel + p);
  }

  // After the barrier.
  __device__ void start(const Shared& shared) {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) origins_[i] = shared.origins[pixel_ + i * kStep];
  }
  // The same: the stage that follows the one which began last.
  __device__ void begin(Stage& stage, int number) {
    const Piece piece = pieces_ahead_[number % 2];
    pieces_ahead_[number % 2] = load(number + 2);
    const int tap = piece.row * row_step_ + piece.offset;
#pragma unroll
    for (int i = 0; i < kCopies; ++i)
      copies_[i].begin(to(stage, i), x_ + (origins_[i].address + tap),
                       (piece.need & ~origins_[i].have) == 0);
  }
  __device__ void finish(Stage& stage) const {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) copies_[i].finish(to(stage, i));
  }
  __device__ void next_turn() { pieces_ += Tile::kStages * Tile::kPieces; }

 private:
  __device__ static int units(int channels) {
    return channels * static_cast<int>(sizeof(typename Tile::Scalar)) / 16;
  }

  __device__ static Origin origin(const ConvArgs& a, int group, int pixel) {
    const int image = a.out_h * a.out_w, n = pixel / image, rest = pixel % image;
    const int h = rest / a.out_w * a.stride_h - a.pad_top;
    const int w = rest % a.out_w * a.stride_w - a.pad_left;
    unsigned have = 0;
    if (pixel < a.pixels) {
      for (int i = 0; i < a.kernel_h; ++i)
        if (static_cast<unsigned>(h + i * a.dilation_h) < static_cast<unsigned>(a.in_h))
          have |= 1u << i;
      for (int i = 0; i < a.kernel_w; ++i)
        if (static_cast<unsigned>(w + i * a.dilation_w) < static_cast<unsigned>(a.in_w))
          have |= 0x10000u << i;
    }
    const int first = (n * a.in_h + h) * a.in_w + w;
    return {first * units(a.x_row) + group * units(a.group_in), have};
  }

  __device__ char* to(Stage& stage, int i) const {
    return reinterpret_cast<char*>(stage.x[i * kStep]) + to_;
  }

  // That of a stage; the table goes on two stages beyond the last.
  __device__ Piece load(int number) const {
    const uint4 bits = load_now(pieces_ + number * Tile::kPieces);
    return {static_cast<int>(bits.x), static_cast<int>(bits.y), bits.z, 0};
  }

  Origin origins_[kCopies];
  const uint4* x_;
  const uint4* pieces_;
  Piece pieces_ahead_[2];  // of the next two stages, by their numbers
  unsigned to_;
  int pixel_, row_step_;
  Transfer<kAsyncCopies> copies_[kCopies];
};
