// Copies from global to shared memory that go on while their thread computes.
//
//   copy_async<16>(to, from, there)  begins one; zeros instead, and nothing is read, if not `there`
//   commit_copies()                  makes a group of those begun since the last group
//   wait_for_copies<n>()             until all groups but the last n have landed
//
// What has landed is seen by the thread that began it; by others after a barrier. A copy may land
// as soon as it begins: nobody may still read what it overwrites.
//
// Compute capability 8.0 and later have them. Before, a copy takes the way through registers and
// its thread waits. Kernels that want to compute meanwhile load values themselves where
// kAsyncCopies is false, and store them later:
//
//   load_now(from, there)  begins a load where it is written, which the compiler would move to where
//                          its value is needed; zeros if not `there`
#pragma once

#ifdef __CUDACC_RTC__
constexpr bool kAsyncCopies = __CUDA_ARCH__ >= 800;
#endif  // else the compiler's stand-in has its own

#if defined(__CUDACC_RTC__) && __CUDA_ARCH__ >= 800

template <int kBytes>
__device__ void copy_async(void* to, const void* from, bool there = true) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "what the hardware copies");
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  if constexpr (kBytes == 16)  // past the first cache, which smaller ones go through
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from),
                 "r"(there ? 16 : 0)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(address), "l"(from),
                 "n"(kBytes), "r"(there ? kBytes : 0)
                 : "memory");
}

__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int kGroups>
__device__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

#elif defined(__CUDACC_RTC__)

template <int kBytes>
struct CopyUnit;
template <>
struct CopyUnit<4> {
  using Type = unsigned;
};
template <>
struct CopyUnit<8> {
  using Type = uint2;
};
template <>
struct CopyUnit<16> {
  using Type = uint4;
};

template <int kBytes>
__device__ void copy_async(void* to, const void* from, bool there = true) {
  using Unit = typename CopyUnit<kBytes>::Type;
  *static_cast<Unit*>(to) = there ? __ldg(static_cast<const Unit*>(from)) : Unit{};
}

__device__ inline void commit_copies() {}

template <int kGroups>
__device__ void wait_for_copies() {}

#endif

#ifdef __CUDACC_RTC__
__device__ inline uint4 load_now(const uint4* from, bool there = true) {
  uint4 value = make_uint4(0, 0, 0, 0);
  asm volatile(
      "{\n\t.reg .pred there;\n\t"
      "setp.ne.b32 there, %5, 0;\n\t"
      "@there ld.global.nc.v4.b32 {%0, %1, %2, %3}, [%4];\n\t}"
      : "+r"(value.x), "+r"(value.y), "+r"(value.z), "+r"(value.w)
      : "l"(from), "r"(static_cast<int>(there))
      : "memory");
  return value;
}
__device__ inline unsigned load_now(const unsigned* from) {
  unsigned value;
  asm volatile("ld.global.nc.b32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}
#else
inline unsigned load_now(const unsigned* from) { return __ldg(from); }
inline uint4 load_now(const uint4* from, bool there = true) {
  return there ? __ldg(from) : make_uint4(0, 0, 0, 0);
}
#endif
