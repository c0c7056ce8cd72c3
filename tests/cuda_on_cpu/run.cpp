// A shared library with the kernels and a function that launches one of them by its name.
// KERNEL_UNIT has their sources. KERNEL_TABLE, a file made for the build, lists them as KERNEL(structure, template instance).
#include <setjmp.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <vector>

#include "cuda_stand_in.h"
#include KERNEL_UNIT

thread_local Index3 threadIdx, blockIdx, blockDim, gridDim;

namespace {

std::map<uintptr_t, uintptr_t> arrays;  // first byte, and the one behind the last
// ctypes lets go of Python's lock: while one thread's kernel looks something up in `arrays`, other
// threads take and free arrays.
std::shared_mutex arrays_mutex;

constexpr size_t kStack = 256 << 10;

// An asynchronous copy on its way into shared memory.
struct Copy {
  void* to;
  const void* from;  // null: zeros
  size_t size;
};

struct Fibre {
  ucontext_t context;  // in which it begins
  bool has_begun = false;
  jmp_buf place;  // where it goes on
  std::unique_ptr<char[]> stack{new char[kStack]};
  bool ended;
  std::vector<Copy> begun;              // of no group yet
  std::deque<std::vector<Copy>> groups;  // not waited for
};

thread_local Fibre* current;
thread_local jmp_buf scheduler;
thread_local void (*body)(const void*);
thread_local const void* body_args;

// swapcontext would call the kernel each time, for the signal mask.
void leave() {
  if (_setjmp(current->place) == 0) _longjmp(scheduler, 1);
}

void enter(Fibre& fibre) {
  current = &fibre;
  if (_setjmp(scheduler) != 0) return;
  if (fibre.has_begun) _longjmp(fibre.place, 1);
  fibre.has_begun = true;
  setcontext(&fibre.context);
}

// A thread of one block after the other.
void start() {
  for (;;) {
    body(body_args);
    current->ended = true;
    leave();
  }
}

void prepare(Fibre& fibre) {
  getcontext(&fibre.context);
  fibre.context.uc_stack.ss_sp = fibre.stack.get();
  fibre.context.uc_stack.ss_size = kStack;
  fibre.context.uc_link = nullptr;
  makecontext(&fibre.context, start, 0);
}

// Between two barriers the threads run one after the other, first the last one if `backwards`:
// what depends on their order lacks a barrier. Blocks come in the same order.
void run_block(std::vector<Fibre>& fibres, bool backwards) {
  for (Fibre& fibre : fibres) {
    fibre.ended = false;
    fibre.begun.clear();
    fibre.groups.clear();
  }
  const unsigned threads = static_cast<unsigned>(fibres.size());
  for (unsigned ended = 0; ended < threads;) {
    ended = 0;
    for (unsigned i = 0; i < threads; ++i) {
      const unsigned thread = backwards ? threads - 1 - i : i;
      if (!fibres[thread].ended) {
        threadIdx = {thread, 0, 0};
        enter(fibres[thread]);
      }
      ended += fibres[thread].ended;
    }
  }
}

template <typename Args, void (*kernel)(const Args)>
void call(const void* args) {
  kernel(*static_cast<const Args*>(args));
}

struct Entry {
  const char* name;
  size_t args_size;
  void (*call)(const void*);
};

const Entry kTable[] = {
#define KERNEL(Args, ...) {#__VA_ARGS__, sizeof(Args), call<Args, __VA_ARGS__>},
#include KERNEL_TABLE
#undef KERNEL
};

}  // namespace

void check_read(const void* from, size_t size) {
  const uintptr_t first = reinterpret_cast<uintptr_t>(from);
  {
    const std::shared_lock<std::shared_mutex> lock(arrays_mutex);
    auto array = arrays.upper_bound(first);
    if (array != arrays.begin() && first + size <= (--array)->second) return;
  }
  std::fprintf(stderr, "block (%u, %u, %u), thread %u reads %zu bytes outside of any array\n",
               blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, size);
  std::abort();
}

extern "C" void add_array(uintptr_t first, size_t size) {
  const std::lock_guard<std::shared_mutex> lock(arrays_mutex);
  arrays[first] = first + size;
}
extern "C" void remove_array(uintptr_t first) {
  const std::lock_guard<std::shared_mutex> lock(arrays_mutex);
  arrays.erase(first);
}

void begin_copy(void* to, const void* from, size_t size, bool there) {
  if (there) check_read(from, size);
  if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(there ? from : to)) % size) {
    std::fprintf(stderr, "a copy of %zu bytes is not aligned\n", size);
    std::abort();
  }
  std::memset(to, 0xff, size);
  current->begun.push_back({to, there ? from : nullptr, size});
}

void commit_copies() {
  current->groups.push_back(std::move(current->begun));
  current->begun.clear();
}

void wait_for_all_but(int groups) {
  for (; current->groups.size() > static_cast<size_t>(groups); current->groups.pop_front())
    for (const Copy& copy : current->groups.front()) {
      if (copy.from != nullptr)
        std::memcpy(copy.to, copy.from, copy.size);
      else
        std::memset(copy.to, 0, copy.size);
    }
}

void __syncthreads() {
  const Index3 thread = threadIdx;
  leave();
  threadIdx = thread;
}

// Returns 0, or 1 where no kernel has that name and that size of arguments.
extern "C" int launch(const char* name, unsigned x, unsigned y, unsigned z, unsigned threads,
                      const void* args, size_t args_size, int backwards) {
  for (const Entry& entry : kTable) {
    if (std::strcmp(entry.name, name) != 0 || entry.args_size != args_size) continue;
    std::vector<Fibre> fibres(threads);
    for (Fibre& fibre : fibres) prepare(fibre);
    body = entry.call;
    body_args = args;
    gridDim = {x, y, z};
    blockDim = {threads, 1, 1};
    for (unsigned k = 0; k < z; ++k)
      for (unsigned j = 0; j < y; ++j)
        for (unsigned i = 0; i < x; ++i) {
          blockIdx = {i, j, k};
          if (backwards != 0) blockIdx = {x - 1 - i, y - 1 - j, z - 1 - k};
          run_block(fibres, backwards != 0);
        }
    return 0;
  }
  return 1;
}
