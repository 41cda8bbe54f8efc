// The SIMT machine behind the backend interface: host memory, immediate execution.
// SDPO_SIMT_ARCH (90, or 80: no clusters, less shared memory) and SDPO_SIMT_ORDER (forward, or reverse:
// blocks, threads and copies the other way round) are read when a device is opened.
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "backends/plugin.h"
#include "backends/simt/checker.h"
#include "backends/simt/runtime.h"

struct sdpo_device {
  sdpo::DeviceProperties properties;
};

namespace sdpo::simt {
namespace {

// The value of an environment variable, which must be one of two; the first is the default.
bool is_second(const char* variable, const char* first, const char* second) {
  const char* value = std::getenv(variable);
  if (!value || !*value || !std::strcmp(value, first)) return false;
  if (!std::strcmp(value, second)) return true;
  throw Error("ERR_SDPO_DEVICE", str(variable, ": expected ", first, " or ", second, ", got '", value, "'"));
}

int device_count(int* count, sdpo_message) {
  *count = 1;
  return SDPO_OK;
}

int open_device(int, sdpo_device** device, sdpo_message message) {
  return guarded(message, [&] {
    static sdpo_device the_machine;
    machine.arch = is_second("SDPO_SIMT_ARCH", "90", "80") ? 80 : 90;
    machine.reverse = is_second("SDPO_SIMT_ORDER", "forward", "reverse");
    the_machine.properties = machine.arch == 90 ? DeviceProperties{90, 132, 227 << 10, 228 << 10, 50 << 20}
                                                : DeviceProperties{80, 108, 163 << 10, 164 << 10, 40 << 20};
    *device = &the_machine;
  });
}

void close_device(sdpo_device*) {}

int describe(sdpo_device* device, sdpo_message text) {
  say(text, str("simt: CUDA kernels on one processor core, as sm_", device->properties.arch, ", ",
                machine.reverse ? "reverse" : "forward", " order, ", SDPO_SIMT_VARIANT)
                .c_str());
  return SDPO_OK;
}

int allocate_memory(sdpo_device*, uint64_t bytes, void** pointer, sdpo_message message) {
  *pointer = allocate(bytes);
  if (*pointer) return SDPO_OK;
  say(message, "the system has no memory left");
  return SDPO_OUT_OF_MEMORY;
}

void release_memory(sdpo_device*, void* pointer, uint64_t) { release(pointer); }

int copy_in(sdpo_device*, void* to, const void* from, uint64_t bytes, void*, sdpo_message) {
  if (bytes) std::memcpy(to, from, bytes);
  checker::set(to, bytes, checker::Bytes::Defined);
  return SDPO_OK;
}

int copy_out(sdpo_device*, void* to, const void* from, uint64_t bytes, void*, sdpo_message) {
  if (bytes) std::memcpy(to, from, bytes);
  return SDPO_OK;
}

int fill_zero(sdpo_device*, void* to, uint64_t bytes, void*, sdpo_message) {
  if (bytes) std::memset(to, 0, bytes);
  checker::set(to, bytes, checker::Bytes::Defined);
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

int run(sdpo_device* device, const sdpo_kernel* kernel, const sdpo_op_call* call) {
  return run_kernel(device->properties, kernel, call);
}

constexpr sdpo_backend kBackend = {SDPO_ABI_VERSION,
                                   "simt",
                                   device_count,
                                   open_device,
                                   close_device,
                                   describe,
                                   allocate_memory,
                                   release_memory,
                                   copy_in,
                                   copy_out,
                                   copy_in,
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
}  // namespace sdpo::simt

extern "C" __attribute__((visibility("default"))) const sdpo_backend* sdpo_backend_get(uint32_t abi_version) {
  return abi_version == SDPO_ABI_VERSION ? &sdpo::simt::kBackend : nullptr;
}
