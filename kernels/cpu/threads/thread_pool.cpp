#include "threads/thread_pool.h"

#if defined(_WIN32)
#include <process.h>
#else
#include <unistd.h>
#endif

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <new>
#include <stdexcept>
#include <system_error>
#include <thread>

namespace adder_onnx {
namespace {

constexpr int kSpins = 2000;  // some ten microseconds, before the core is offered to others

// Waits in a loop for what another thread is about to do.
class Spin {
 public:
  void wait() {
    if (++count_ < kSpins) {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#elif defined(__aarch64__)
      __asm__ volatile("yield");
#endif
    } else {
      std::this_thread::yield();
    }
  }

 private:
  int count_ = 0;
};

// The tasks of one call of run_phases.
//
// They are given out by a ticket, the phase's number above that of the next task. Whoever ends the
// last task of a phase opens the next, so that nobody waits for a thread that has no task: one that
// was woken late, or not at all, delays nothing.
class Tickets {
 public:
  Tickets(const int64_t* counts, int64_t phases, TaskRef task)
      : counts_(counts), phases_(phases), task_(task), ticket_(open(0)) {}

  void work() {
    uint64_t ticket = ticket_.fetch_add(1, std::memory_order_acq_rel);
    while (phase_of(ticket) < phases_) {
      const int64_t phase = phase_of(ticket), i = static_cast<int64_t>(ticket & 0xffffffff);
      if (i < counts_[phase]) {
        run_task(phase, i);
        if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == counts_[phase]) {
          done_.store(0, std::memory_order_relaxed);
          ticket_.store(open(phase + 1), std::memory_order_release);
        }
      } else {
        Spin spin;
        while (phase_of(ticket_.load(std::memory_order_acquire)) == phase) spin.wait();
      }
      ticket = ticket_.fetch_add(1, std::memory_order_acq_rel);
    }
  }

  // To be called when nobody is in `work` any more.
  void rethrow() const {
    if (error_ != nullptr) std::rethrow_exception(error_);
  }

 private:
  void run_task(int64_t phase, int64_t i) {
    if (has_failed_.load(std::memory_order_relaxed)) return;
    try {
      task_(phase, i);
    } catch (...) {
      if (!has_failed_.exchange(true)) error_ = std::current_exception();
    }
  }

  static int64_t phase_of(uint64_t ticket) { return static_cast<int64_t>(ticket >> 32); }

  // The first ticket of the first phase from this one on that has tasks.
  uint64_t open(int64_t phase) const {
    while (phase < phases_ && counts_[phase] == 0) ++phase;
    return static_cast<uint64_t>(phase) << 32;
  }

  const int64_t* const counts_;
  const int64_t phases_;
  const TaskRef task_;
  std::atomic<uint64_t> ticket_;
  std::atomic<int64_t> done_{0};
  std::atomic<bool> has_failed_{false};
  std::exception_ptr error_;
};

// What workers are asked to join in. It lives on the caller's stack: the caller leaves only when no
// worker is in it and it is no longer in the queue.
struct Job {
  Workers::Work work;
  void* call;
  int seats;                    // workers that may still join; guarded by the pool's mutex
  std::atomic<int> working{0};  // workers inside
};

class Pool {
 public:
  explicit Pool(int owner) : owner(owner) {}

  const int owner;  // a process

  void run(int helpers, Workers::Work work, void* call) {
    Job job{work, call, helpers};
    {
      std::lock_guard<std::mutex> lock(mutex_);
      grow(helpers);
      queue_.push_back(&job);
    }
    for (int i = 0; i < helpers; ++i) wake_.notify_one();
    work(call);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      queue_.erase(std::remove(queue_.begin(), queue_.end(), &job), queue_.end());
    }
    Spin spin;
    while (job.working.load(std::memory_order_acquire) != 0) spin.wait();
  }

 private:
  // Where the system gives no more threads, those that there are do all work.
  void grow(int helpers) {
    try {
      for (; workers_ < helpers; ++workers_) std::thread([this] { serve(); }).detach();
    } catch (const std::system_error&) {
    } catch (const std::bad_alloc&) {
    }
  }

  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return !queue_.empty(); });
      Job* job = queue_.front();
      if (--job->seats == 0) queue_.pop_front();
      job->working.fetch_add(1, std::memory_order_relaxed);
      lock.unlock();
      job->work(job->call);
      lock.lock();
      // Its work is given out: nobody else need join it.
      queue_.erase(std::remove(queue_.begin(), queue_.end(), job), queue_.end());
      job->working.fetch_sub(1, std::memory_order_release);
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job*> queue_;
  int workers_ = 0;
};

// Workers are detached and no pool is ever destroyed: at exit nothing waits for them. A forked
// child has none of its parent's threads, and perhaps a locked mutex, so it makes its own pool.
Pool& pool() {
  static std::atomic<Pool*> current{nullptr};
  Pool* pool = current.load();
  while (pool == nullptr || pool->owner != getpid()) {
    Pool* fresh = new Pool(getpid());
    if (current.compare_exchange_strong(pool, fresh)) return *fresh;
    delete fresh;
  }
  return *pool;
}

}  // namespace

void PoolWorkers::run(int helpers, Work work, void* call) const {
  pool().run(helpers, work, call);
}

void run_phases(const int64_t* counts, int64_t phases, const Workers& workers, TaskRef task) {
  const int64_t most = phases == 0 ? 0 : *std::max_element(counts, counts + phases);
  if (most >= kMaxTasks) throw std::invalid_argument("there are too many tasks");
  const int64_t threads = std::min(workers.count(), kMaxThreads);
  const int helpers = static_cast<int>(std::min(threads, most)) - 1;
  if (helpers <= 0) {
    for (int64_t phase = 0; phase < phases; ++phase)
      for (int64_t i = 0; i < counts[phase]; ++i) task(phase, i);
    return;
  }
  Tickets tickets(counts, phases, task);
  workers.run(helpers, [](void* call) { static_cast<Tickets*>(call)->work(); }, &tickets);
  tickets.rethrow();
}

}  // namespace adder_onnx
