#include "core/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

#include "core/error.h"

namespace sdpo {
namespace {

constexpr int kMostThreads = 256;

struct Batch {
  const std::function<void(int64_t)>* task;
  int64_t count;
  std::atomic<int64_t> next{0};
  std::mutex mutex;
  std::exception_ptr error;

  void work() {
    for (int64_t i; (i = next.fetch_add(1)) < count;) {
      try {
        (*task)(i);
      } catch (...) {
        std::lock_guard<std::mutex> lock(mutex);
        if (!error) error = std::current_exception();
        next = count;
      }
    }
  }
};

thread_local bool inside_task = false;

// Never destroyed: its threads may still wait when the process ends.
class Pool {
 public:
  static Pool& get() {
    static Pool* pool = new Pool;
    return *pool;
  }

  void run(Batch& batch, int helpers) {
    std::lock_guard<std::mutex> one_at_a_time(run_mutex_);
    grow(helpers);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      batch_ = &batch;
      wanted_ = helpers;
      generation_++;
    }
    wake_.notify_all();
    inside_task = true;
    batch.work();
    inside_task = false;
    std::unique_lock<std::mutex> lock(mutex_);
    wanted_ = 0;
    done_.wait(lock, [&] { return active_ == 0; });
    batch_ = nullptr;
  }

 private:
  void grow(int helpers) {
    for (; threads_ < helpers; threads_++) std::thread([this] { loop(); }).detach();
  }

  void loop() {
    inside_task = true;
    uint64_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return generation_ != seen && wanted_ > 0; });
      seen = generation_;
      wanted_--;
      active_++;
      Batch* batch = batch_;
      lock.unlock();
      batch->work();
      lock.lock();
      if (--active_ == 0) done_.notify_one();
    }
  }

  std::mutex run_mutex_, mutex_;
  std::condition_variable wake_, done_;
  Batch* batch_ = nullptr;
  uint64_t generation_ = 0;
  int threads_ = 0, wanted_ = 0, active_ = 0;
};

int processors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return int(std::max(1u, std::thread::hardware_concurrency()));
}

std::atomic<int>& threads() {
  static std::atomic<int> n([] {
    const char* wish = std::getenv("SDPO_THREADS");
    if (!wish || !*wish) return processors();
    char* end = nullptr;
    const long number = std::strtol(wish, &end, 10);
    if (*end || number < 1 || number > kMostThreads)
      throw Error("ERR_SDPO_ARGUMENT", str("SDPO_THREADS: expected 1..", kMostThreads, ", got '", wish, "'"));
    return int(number);
  }());
  return n;
}

}  // namespace

int thread_count() { return threads(); }

void set_thread_count(int n) {
  if (n < 1 || n > kMostThreads)
    throw Error("ERR_SDPO_ARGUMENT", str("threads: expected 1..", kMostThreads, ", got ", n));
  threads() = n;
}

void parallel_tasks(int64_t count, const std::function<void(int64_t)>& task) {
  const int helpers = int(std::min<int64_t>(count, thread_count())) - 1;
  if (helpers <= 0 || inside_task) {
    for (int64_t i = 0; i < count; i++) task(i);
    return;
  }
  Batch batch;
  batch.task = &task;
  batch.count = count;
  Pool::get().run(batch, helpers);
  if (batch.error) std::rethrow_exception(batch.error);
}

void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  if (n <= 0) return;
  const int64_t most = std::max<int64_t>(1, n / std::max<int64_t>(1, grain));
  const int64_t pieces = std::min<int64_t>(most, int64_t(thread_count()) * 4);
  parallel_tasks(pieces, [&](int64_t i) { body(n * i / pieces, n * (i + 1) / pieces); });
}

}  // namespace sdpo
