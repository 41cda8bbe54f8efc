// The CPU behind the backend interface: host memory, immediate execution, kernels from a table that the op
// registry fills at start-up.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <new>
#include <string>

#include "backends/cpu/gemm.h"
#include "backends/cpu/kernels.h"
#include "backends/device.h"
#include "core/cpu.h"
#include "core/error.h"
#include "core/parallel.h"

struct sdpo_device {};
struct sdpo_kernel {
  sdpo::CpuFunction function;
};

namespace sdpo {
namespace {

std::map<std::string, sdpo_kernel>& kernels() {
  static auto* table = new std::map<std::string, sdpo_kernel>;
  return *table;
}

void say(sdpo_message m, const std::string& text) {
  if (m.text && m.bytes) std::snprintf(m.text, m.bytes, "%s", text.c_str());
}

int device_count(int* count, sdpo_message) {
  *count = 1;
  return SDPO_OK;
}

int open_device(int, sdpo_device** device, sdpo_message) {
  static sdpo_device the_processor;
  *device = &the_processor;
  return SDPO_OK;
}

void close_device(sdpo_device*) {}

int describe(sdpo_device*, sdpo_message text) {
  say(text, str("cpu: ", isa_name(current_isa()), ", ", thread_count(), " threads, GEMM ", gemm_name()));
  return SDPO_OK;
}

int allocate(sdpo_device*, uint64_t bytes, void** pointer, sdpo_message m) {
  *pointer = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (*pointer) return SDPO_OK;
  say(m, "the system has no memory left");
  return SDPO_OUT_OF_MEMORY;
}

void release(sdpo_device*, void* pointer, uint64_t) { std::free(pointer); }

int copy(sdpo_device*, void* to, const void* from, uint64_t bytes, void*, sdpo_message) {
  if (bytes) std::memcpy(to, from, bytes);
  return SDPO_OK;
}

int fill_zero(sdpo_device*, void* to, uint64_t bytes, void*, sdpo_message) {
  if (bytes) std::memset(to, 0, bytes);
  return SDPO_OK;
}

int stream_create(sdpo_device*, void** stream, sdpo_message) {
  *stream = nullptr;
  return SDPO_OK;
}

void stream_destroy(sdpo_device*, void*) {}
int synchronize(sdpo_device*, void*, sdpo_message) { return SDPO_OK; }

using Clock = std::chrono::steady_clock;

int event_create(sdpo_device*, void** event, sdpo_message) {
  *event = new Clock::time_point;
  return SDPO_OK;
}

void event_destroy(sdpo_device*, void* event) { delete static_cast<Clock::time_point*>(event); }

int event_record(sdpo_device*, void* event, void*, sdpo_message) {
  *static_cast<Clock::time_point*>(event) = Clock::now();
  return SDPO_OK;
}

int event_milliseconds(sdpo_device*, void* from, void* to, float* milliseconds, sdpo_message) {
  const auto span = *static_cast<Clock::time_point*>(to) - *static_cast<Clock::time_point*>(from);
  *milliseconds = std::chrono::duration<float, std::milli>(span).count();
  return SDPO_OK;
}

const sdpo_kernel* find_kernel(const char* op) {
  auto found = kernels().find(op);
  return found == kernels().end() ? nullptr : &found->second;
}

int run(sdpo_device*, const sdpo_kernel* kernel, const sdpo_op_call* call) {
  try {
    kernel->function(*call);
    return SDPO_OK;
  } catch (const std::bad_alloc&) {
    say({call->message, call->message_bytes}, "the system has no memory left");
    return SDPO_OUT_OF_MEMORY;
  } catch (const std::exception& error) {
    say({call->message, call->message_bytes}, error.what());
    return SDPO_FAILED;
  }
}

constexpr sdpo_backend kBackend = {SDPO_ABI_VERSION,
                                   "cpu",
                                   device_count,
                                   open_device,
                                   close_device,
                                   describe,
                                   allocate,
                                   release,
                                   copy,
                                   copy,
                                   copy,
                                   fill_zero,
                                   stream_create,
                                   stream_destroy,
                                   synchronize,
                                   event_create,
                                   event_destroy,
                                   event_record,
                                   event_milliseconds,
                                   find_kernel,
                                   run,
                                   nullptr,
                                   nullptr,
                                   nullptr,
                                   nullptr};

}  // namespace

void add_cpu_kernel(const char* op, CpuFunction function) { kernels()[op] = sdpo_kernel{function}; }

std::vector<std::string> cpu_kernel_names() {
  std::vector<std::string> names;
  for (const auto& entry : kernels()) names.push_back(entry.first);
  return names;
}

const sdpo_backend* cpu_backend() { return &kBackend; }

}  // namespace sdpo
