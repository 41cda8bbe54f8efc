// parallel_for over a thread pool shared by the process. Each task index runs exactly once; which thread
// runs it is not determined, so a task must not depend on the others. The first exception is rethrown.
#pragma once
#include <cstdint>
#include <functional>

namespace sdpo {

int thread_count();            // SDPO_THREADS, else the processors this process may use
void set_thread_count(int n);  // 1..256; for tests and embedders

void parallel_tasks(int64_t count, const std::function<void(int64_t)>& task);

// Cuts [0, n) into ranges of at least `grain` and calls body(begin, end) for each.
void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

}  // namespace sdpo
