// The thread pool, whoever calls it and whatever happens.
#include <atomic>
#include <new>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <vector>

#include "tests.h"
#include "threads/thread_pool.h"

// The thread sanitizer does not follow threads after a fork, and Windows has none.
#if !defined(_WIN32) && !defined(__SANITIZE_THREAD__)
#define ADDER_ONNX_FORKS
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

using namespace adder_onnx;

namespace {

// Phases of any size, empty ones among them, follow each other, whoever calls.
void test_phases() {
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller)
    callers.emplace_back([caller] {
      for (int round = 0; round < 200; ++round) {
        const int64_t counts[] = {0, 1 + round % 5, 0, 7, 1, 0};
        int64_t made[6] = {};
        std::vector<int64_t> marks(32);
        std::atomic<bool> in_order{true};
        run_phases(counts, 6, PoolWorkers(1 + (round + caller) % 4), [&](int64_t phase, int64_t i) {
          // What the phase before wrote is there.
          if (phase == 3)
            for (int64_t k = 0; k < counts[1]; ++k)
              if (marks[k] != k + 1) in_order = false;
          if (phase == 1) marks[i] = i + 1;
          if (phase == 4) made[4] = 1;
        });
        expect(in_order && made[4] == 1, "phases in order");
      }
    });
  for (std::thread& caller : callers) caller.join();
}

// What a task throws is thrown by the call, whichever thread had it; the pool goes on.
void test_what_tasks_throw() {
  for (int threads = 1; threads <= 4; ++threads)
    for (int64_t last : {0, 1, 50, 99}) {
      std::atomic<int> later{0};
      bool is_thrown = false;
      try {
        const int64_t counts[] = {100, 100};
        run_phases(counts, 2, PoolWorkers(threads), [&](int64_t phase, int64_t i) {
          if (phase == 0 && i == last) throw std::bad_alloc();
          if (phase == 1) ++later;
        });
      } catch (const std::bad_alloc&) {
        is_thrown = true;
      }
      expect(is_thrown && later == 0, "what a task throws");
    }
  std::atomic<int> made{0};
  parallel_for(100, 4, [&](int64_t) { ++made; });
  expect(made == 100, "a call after one that has failed");
}

void test_limits_of_the_pool() {
  std::atomic<int> made{0};
  parallel_for(5, 2147483647, [&](int64_t) { ++made; });
  expect(made == 5, "more threads than there are tasks");
  bool is_refused = false;
  try {
    parallel_for(kMaxTasks, 2, [&](int64_t) { ++made; });
  } catch (const std::invalid_argument&) {
    is_refused = true;
  }
  expect(is_refused && made == 5, "too many tasks");
}

#if defined(ADDER_ONNX_FORKS)
// Runs `f` in a forked child; whether it gives true.
template <typename F>
bool holds_in_child(const F& f) {
  const pid_t child = fork();
  if (child == 0) _exit(f() ? 0 : 1);
  int status = 1;
  waitpid(child, &status, 0);
  return status == 0;
}

bool is_sum_right() {
  std::atomic<int> sum{0};
  parallel_for(100, 3, [&](int64_t i) { sum += static_cast<int>(i); });
  return sum == 4950;
}

// A forked child has none of its parent's workers.
void test_fork() { expect(holds_in_child(is_sum_right), "after a fork"); }

bool can_start_thread() {
  try {
    std::thread([] {}).join();
    return true;
  } catch (const std::system_error&) {
    return false;
  }
}

// Where the system gives no threads, the caller does all work; and has helpers as soon as there are.
void test_without_threads() {
  expect(holds_in_child([] {
           rlimit limit{};
           getrlimit(RLIMIT_NPROC, &limit);
           const rlim_t before = limit.rlim_cur;
           limit.rlim_cur = 0;
           setrlimit(RLIMIT_NPROC, &limit);
           // The limit does not hold for root.
           if (geteuid() == 0 && setuid(65534) != 0) return true;
           if (can_start_thread()) return true;
           if (!is_sum_right() || !is_sum_right()) return false;
           limit.rlim_cur = before;
           setrlimit(RLIMIT_NPROC, &limit);
           if (!can_start_thread()) return true;
           // Two tasks that wait for each other need two threads.
           std::atomic<int> begun{0};
           parallel_for(2, 2, [&](int64_t) {
             ++begun;
             while (begun < 2) std::this_thread::yield();
           });
           return is_sum_right();
         }),
         "without threads");
}
#endif

}  // namespace

void test_pool([[maybe_unused]] bool can_fork) {
  test_phases();
  test_what_tasks_throw();
  test_limits_of_the_pool();
#if defined(ADDER_ONNX_FORKS)
  if (!can_fork) return;
  test_fork();
  test_without_threads();
#endif
}
