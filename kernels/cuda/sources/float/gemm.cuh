// The adder convolution as an implicit matrix product: pixels x filters, over words of taps.
//
// Tiling
//   A block computes kPixels output pixels by kFilters filters of one group. Output pixels are
//   numbered through the whole batch, so that tiles stay full on narrow images. There is no
//   image-to-column copy: taps are gathered from the image into shared memory, kDepth words at a
//   time, zeros where they fall into the padding.
//   A thread computes 8 pixels by 4 filters. Of a warp, 8 lanes lie along the pixels and 4 along
//   the filters, so that what it reads of shared memory at a time is 128 bytes at most.
//
// Shared memory
//   x[word][pixel] and w[word][filter]. A thread fetches chunks of 8 words of one pixel and stores
//   them word by word, 4 lanes along the taps and 8 along the pixels: chunk c of pixel p goes into
//   column p ^ 8c of the 32 columns around it, which puts the 32 words that a warp stores at a time
//   into 32 different banks, and keeps together the 4 words that a thread reads at a time.
//
// One tile is in shared memory at a time: with three blocks on a multiprocessor, others compute
// while one fetches.
#pragma once

#include "float/epilogue.cuh"
#include "common/image.cuh"
#include "common/params.cuh"
#include "common/split.cuh"
#include "float/taps.cuh"

constexpr int kDepth = 32;  // words of taps in shared memory
constexpr int kChunk = 8;   // words that a thread fetches of one pixel
constexpr int kChunks = kDepth / kChunk;
constexpr int kThreadPixels = 8, kThreadFilters = 4;
constexpr int kWarpPixels = 8 * kThreadPixels, kWarpFilters = 4 * kThreadFilters;

constexpr int gemm_threads(int pixels, int filters) {
  return pixels / kThreadPixels * (filters / kThreadFilters);
}

// Four words, which move as one.
template <typename Word>
union Four {
  uint4 bits;
  Word words[4];

  __device__ Four() : bits(make_uint4(0, 0, 0, 0)) {}
  __device__ explicit Four(uint4 bits) : bits(bits) {}
  __device__ static Four load(const Word* from) {
    return Four(*reinterpret_cast<const uint4*>(from));
  }
};

// Puts a thread's share of x into shared memory: chunk `chunk` of pixels first, first + kStep, …;
// `word0` is the tile's first word of taps.
//
// Gathered: every tap is looked up by itself, for groups whose channels are not whole chunks.
template <typename Scalar, bool kVector>
struct Fetch {
  template <int kStep, int kPixels>
  __device__ static void run(const ConvArgs& a, const Origin (&origins)[kPixels], int chunk,
                             int first, int first_channel, int word0,
                             typename Taps<Scalar>::Word (&x_tile)[kDepth][kPixels]) {
    constexpr int kPerWord = Taps<Scalar>::kPerWord;
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      const int word = chunk * kChunk + i;
      const Position at(a, word0 + word, kPerWord, first_channel);
#pragma unroll
      for (int row = 0; row < kPixels; row += kStep) {
        const int pixel = row + first;
        const Scalar* from = address<Scalar>(a, origins[pixel], at);
        Scalar taps[kPerWord];
#pragma unroll
        for (int j = 0; j < kPerWord; ++j)
          taps[j] = at.channel + j < a.group_in ? __ldg(from + j) : from_float<Scalar>(0);
        x_tile[word][pixel ^ chunk * 8] = Taps<Scalar>::word(taps);
      }
    }
  }
};

// By chunks, each in one kernel position and aligned.
template <typename Scalar>
struct Fetch<Scalar, true> {
  template <int kStep, int kPixels>
  __device__ static void run(const ConvArgs& a, const Origin (&origins)[kPixels], int chunk,
                             int first, int first_channel, int word0,
                             typename Taps<Scalar>::Word (&x_tile)[kDepth][kPixels]) {
    using Word = typename Taps<Scalar>::Word;
    const Position at(a, word0 / kChunk + chunk, kChunk * Taps<Scalar>::kPerWord,
                      first_channel);
#pragma unroll
    for (int row = 0; row < kPixels; row += kStep) {
      const int pixel = row + first;
      const uint4* from = reinterpret_cast<const uint4*>(address<Scalar>(a, origins[pixel], at));
      const Four<Word> fours[2] = {Four<Word>(__ldg(from)), Four<Word>(__ldg(from + 1))};
#pragma unroll
      for (int i = 0; i < kChunk; ++i)
        x_tile[chunk * kChunk + i][pixel ^ chunk * 8] = fours[i / 4].words[i % 4];
    }
  }
};

// Adds up the sums that all blocks of a tile have made of their taps. Only in the last block to
// come: false in the others.
template <typename Sum>
__device__ bool combine(const ConvArgs& a, int tile, int split,
                        Sum (&sums)[kThreadPixels][kThreadFilters]) {
  constexpr int kPieces = kThreadPixels * Sum::kParts;
  const Partials mine(a.scratch, tile, a.splits, split, kPieces, blockDim.x);
#pragma unroll
  for (int p = 0; p < kThreadPixels; ++p)
#pragma unroll
    for (int part = 0; part < Sum::kParts; ++part) {
      Four<float> four;
#pragma unroll
      for (int f = 0; f < kThreadFilters; ++f) four.words[f] = sums[p][f].part(part);
      mine.store(p * Sum::kParts + part, four.bits);
    }
  if (!is_last_block(a.scratch, tile, a.splits)) return false;
#pragma unroll
  for (int p = 0; p < kThreadPixels; ++p)
#pragma unroll
    for (int f = 0; f < kThreadFilters; ++f) sums[p][f] = Sum();
  for (int other = 0; other < a.splits; ++other) {
    const Partials theirs(a.scratch, tile, a.splits, other, kPieces, blockDim.x);
#pragma unroll
    for (int p = 0; p < kThreadPixels; ++p) {
      Four<float> fours[Sum::kParts];
#pragma unroll
      for (int part = 0; part < Sum::kParts; ++part)
        fours[part] = Four<float>(theirs.load(p * Sum::kParts + part));
#pragma unroll
      for (int f = 0; f < kThreadFilters; ++f) {
        float parts[Sum::kParts];
#pragma unroll
        for (int part = 0; part < Sum::kParts; ++part) parts[part] = fours[part].words[f];
        sums[p][f].merge(parts);
      }
    }
  }
  return true;
}

template <typename Scalar, int kPixels, int kFilters, bool kVector>
__global__ void __launch_bounds__(gemm_threads(kPixels, kFilters),
                                  384 / gemm_threads(kPixels, kFilters))
    adder_conv_gemm(const ConvArgs a) {
  using Word = typename Taps<Scalar>::Word;
  using Sum = typename Taps<Scalar>::Sum;
  constexpr int kThreads = gemm_threads(kPixels, kFilters);
  constexpr int kWarpsAlongPixels = kPixels / kWarpPixels;
  constexpr int kWordsAtOnce = kThreads / (kFilters / 4);  // of weights, fetched by all threads
  static_assert(kPixels % kWarpPixels == 0 && kFilters % kWarpFilters == 0, "whole warps");
  static_assert(kPixels % (kThreads / kChunks) == 0 && kDepth % kWordsAtOnce == 0,
                "every thread fetches as much");

  alignas(16) __shared__ Word x_tile[kDepth][kPixels];
  alignas(16) __shared__ Word w_tile[kDepth][kFilters];
  __shared__ Origin origins[kPixels];

  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int first_pixel = blockIdx.x * kPixels, first_filter = blockIdx.y * kFilters;
  const int group = blockIdx.z / a.splits, split = blockIdx.z % a.splits;
  // Whole turns of the loop below, so that partial sums begin and end as without splits.
  const int all_turns = a.weight_words / kDepth;
  const int first_word = all_turns * split / a.splits * kDepth;
  int turns = all_turns * (split + 1) / a.splits - all_turns * split / a.splits;
  for (int p = thread; p < kPixels; p += kThreads)
    origins[p] = origin_of<Scalar>(a, first_pixel + p);

  // This thread computes pixels pixel0 + {0 … 3, 32 … 35} by filters filter0 + {0 … 3},
  const int pixel0 = warp % kWarpsAlongPixels * kWarpPixels + lane % 8 * 4;
  const int filter0 = warp / kWarpsAlongPixels * kWarpFilters + lane / 8 * kThreadFilters;
  // and fetches four filters' weights of words weight_word + i * kWordsAtOnce.
  const int weight_filter = thread % (kFilters / 4) * 4, weight_word = thread / (kFilters / 4);
  const Word* weights = static_cast<const Word*>(a.weights) + first_filter + weight_filter +
                        (static_cast<long long>(group) * a.weight_words + first_word + weight_word) *
                            a.weight_row;

  Sum sums[kThreadPixels][kThreadFilters];
  for (int word0 = first_word; turns > 0; word0 += kDepth, --turns) {
    __syncthreads();
    Fetch<Scalar, kVector>::template run<kThreads / kChunks>(
        a, origins, thread % kChunks, thread / kChunks, group * a.group_in, word0, x_tile);
#pragma unroll
    for (int i = 0; i < kDepth; i += kWordsAtOnce) {
      *reinterpret_cast<uint4*>(&w_tile[weight_word + i][weight_filter]) =
          __ldg(reinterpret_cast<const uint4*>(weights));
      weights += kWordsAtOnce * a.weight_row;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      const int column = pixel0 ^ k / kChunk * 8;
      const Four<Word> x[2] = {Four<Word>::load(&x_tile[k][column]),
                               Four<Word>::load(&x_tile[k][column + 32])};
      const Four<Word> w = Four<Word>::load(&w_tile[k][filter0]);
#pragma unroll
      for (int p = 0; p < kThreadPixels; ++p)
#pragma unroll
        for (int f = 0; f < kThreadFilters; ++f)
          sums[p][f].add(x[p / 4].words[p % 4], w.words[f], k % Sum::kPartialWords == 0);
      if ((k + 1) % Sum::kPartialWords == 0) {
#pragma unroll
        for (int p = 0; p < kThreadPixels; ++p)
#pragma unroll
          for (int f = 0; f < kThreadFilters; ++f) sums[p][f].fold();
      }
    }
  }

  if (a.splits > 1) {
    const int tile = (group * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    if (!combine(a, tile, split, sums)) return;
  }

#pragma unroll
  for (int p = 0; p < kThreadPixels; ++p) {
    const int pixel = first_pixel + pixel0 + p / 4 * 32 + p % 4;
    if (pixel < a.pixels)
      store_filters<Scalar>(a, sums[p], pixel, group, first_filter + filter0);
  }
}
