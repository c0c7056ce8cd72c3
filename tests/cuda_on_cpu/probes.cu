// Kernels that go right or wrong in one known way, for test_cuda_stand_in.py: what a GPU may do must
// be seen here. A block of 32 threads copies 2 * 32 pieces of 16 bytes and stores what it has seen.
#include "common/async.cuh"
#include "common/params.cuh"
#include "common/split.cuh"

enum Way {
  kRight,
  kNoWait,
  kOneGroupWaited,
  kNoBarrierAfter,
  kNoBarrierBefore,
  kNotCommitted,
  kNotThere,
};

template <Way way>
__global__ void copies(const LayoutArgs a) {
  __shared__ uint4 pieces[2][32];
  const uint4* from = static_cast<const uint4*>(a.from);
  uint4* to = static_cast<uint4*>(a.to);
  const unsigned thread = threadIdx.x, other = 31 - thread;
  for (int i = 0; i < 2; ++i) pieces[i][thread] = make_uint4(7, 7, 7, 7);
  __syncthreads();
  to[64 + thread] = pieces[0][other];
  if (way != kNoBarrierBefore) __syncthreads();
  for (int i = 0; i < 2; ++i) {
    copy_async<16>(&pieces[i][thread], from + i * 32 + thread, way != kNotThere);
    if (way != kNotCommitted) commit_copies();
  }
  if (way == kOneGroupWaited)
    wait_for_copies<1>();
  else if (way != kNoWait)
    wait_for_copies<0>();
  if (way != kNoBarrierAfter) __syncthreads();
  for (int i = 0; i < 2; ++i) to[i * 32 + other] = pieces[i][other];
}

// Tile x of three blocks each: their numbers, and which of them came last.
__global__ void arrivals(const LayoutArgs a) {
  void* scratch = const_cast<void*>(a.from);
  const Partials mine(scratch, blockIdx.x, 3, blockIdx.y, 1, 32);
  mine.store(0, make_uint4(blockIdx.x, blockIdx.y, threadIdx.x, 1));
  if (!is_last_block(scratch, blockIdx.x, 3)) return;
  uint4* to = static_cast<uint4*>(a.to) + blockIdx.x * 32 + threadIdx.x;
  uint4 sum = make_uint4(0, 0, 0, 0);
  for (int split = 0; split < 3; ++split) {
    const uint4 one = Partials(scratch, blockIdx.x, 3, split, 1, 32).load(0);
    sum = make_uint4(sum.x + one.x, sum.y * 10 + one.y, sum.z + one.z, sum.w + one.w);
  }
  to->x += sum.x, to->y += sum.y, to->z += sum.z, to->w += sum.w;
}
