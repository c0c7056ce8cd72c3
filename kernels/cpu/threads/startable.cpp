#include "threads/startable.h"

#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace adder_onnx {

int startable_threads(int wanted) {
  std::mutex mutex;
  std::condition_variable wake;
  bool counted = false;
  std::vector<std::thread> threads;
  try {
    threads.reserve(wanted);
    while (static_cast<int>(threads.size()) < wanted)
      threads.emplace_back([&] {
        std::unique_lock<std::mutex> lock(mutex);
        wake.wait(lock, [&] { return counted; });
      });
  } catch (const std::system_error&) {
  } catch (const std::bad_alloc&) {
  }
  {
    std::lock_guard<std::mutex> lock(mutex);
    counted = true;
  }
  wake.notify_all();
  for (std::thread& thread : threads) thread.join();
  return static_cast<int>(threads.size());
}

}  // namespace adder_onnx
