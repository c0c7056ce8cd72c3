#include "thread_pool.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

namespace adder_onnx {
namespace {

// One parallel_for. It lives on the caller's stack: the caller leaves only when no worker is in it
// and it is no longer in the queue.
struct Job {
  Job(int64_t count, int seats, TaskRef task) : count(count), task(task), seats(seats) {}

  const int64_t count;
  const TaskRef task;
  std::atomic<int64_t> next{0};
  int seats;        // workers that may still join; guarded by the pool's mutex
  int working = 0;  // workers inside; guarded by the pool's mutex
  std::condition_variable done;

  void work() {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) task(i);
  }
};

class Pool {
 public:
  explicit Pool(pid_t owner) : owner(owner) {}

  const pid_t owner;

  void run(int64_t count, int threads, TaskRef task) {
    const int helpers = static_cast<int>(std::min<int64_t>(threads, count)) - 1;
    Job job(count, helpers, task);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      for (; workers_ < helpers; ++workers_) std::thread([this] { serve(); }).detach();
      queue_.push_back(&job);
    }
    for (int i = 0; i < helpers; ++i) wake_.notify_one();
    job.work();
    std::unique_lock<std::mutex> lock(mutex_);
    queue_.erase(std::remove(queue_.begin(), queue_.end(), &job), queue_.end());
    job.done.wait(lock, [&] { return job.working == 0; });
  }

 private:
  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return !queue_.empty(); });
      Job* job = queue_.front();
      if (--job->seats == 0) queue_.pop_front();
      ++job->working;
      lock.unlock();
      job->work();
      lock.lock();
      if (--job->working == 0) job->done.notify_one();
      // Its work is given out: nobody else need join it.
      queue_.erase(std::remove(queue_.begin(), queue_.end(), job), queue_.end());
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

void parallel_for(int64_t count, int threads, TaskRef task) {
  if (threads <= 1 || count <= 1) {
    for (int64_t i = 0; i < count; ++i) task(i);
    return;
  }
  pool().run(count, threads, task);
}

}  // namespace adder_onnx
