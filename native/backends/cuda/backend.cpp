// NVIDIA GPUs behind the backend interface. Work is asynchronous on the device's own stream, or on the one
// that a call brings; copies from and to the host return when the host's memory may be used again.
#include <memory>

#include "backends/cuda/check.h"
#include "backends/gemm_library.h"
#include "backends/plugin.h"

struct sdpo_device {
  int index = 0;
  cudaStream_t stream = nullptr;
  sdpo::DeviceProperties properties;
};

namespace sdpo {
namespace {

cudaStream_t stream_of(const sdpo_device* device, void* stream) {
  return stream ? static_cast<cudaStream_t>(stream) : device->stream;
}

std::string version_text(int version) { return str(version / 1000, ".", version % 1000 / 10); }

int device_count(int* count, sdpo_message m) {
  return guarded(m, [&] {
    const cudaError_t status = cudaGetDeviceCount(count);
    if (status == cudaErrorInsufficientDriver) {
      int driver = 0;
      cudaDriverGetVersion(&driver);
      cudaGetLastError();
      const std::string has = driver ? str("supports CUDA ", version_text(driver)) : "is missing";
      throw Error("ERR_SDPO_DEVICE", str("the NVIDIA driver ", has, "; this build needs one for CUDA ",
                                         version_text(CUDART_VERSION)));
    }
    check_cuda(status, "looking for GPUs");
  });
}

void read_properties(sdpo_device& device) {
  auto get = [&](cudaDeviceAttr attribute) {
    int value = 0;
    check_cuda(cudaDeviceGetAttribute(&value, attribute, device.index), "device attribute");
    return value;
  };
  DeviceProperties& p = device.properties;
  p.arch = get(cudaDevAttrComputeCapabilityMajor) * 10 + get(cudaDevAttrComputeCapabilityMinor);
  p.multiprocessors = get(cudaDevAttrMultiProcessorCount);
  p.shared_per_block = uint64_t(get(cudaDevAttrMaxSharedMemoryPerBlockOptin));
  p.shared_per_multiprocessor = uint64_t(get(cudaDevAttrMaxSharedMemoryPerMultiprocessor));
  p.l2_bytes = uint64_t(get(cudaDevAttrL2CacheSize));
  if (p.arch < 80)
    throw Error("ERR_SDPO_DEVICE", str("GPU ", device.index, " has compute capability ", p.arch / 10, ".",
                                       p.arch % 10, "; 8.0 or newer is needed"));
}

int open_device(int index, sdpo_device** opened, sdpo_message m) {
  return guarded(m, [&] {
    auto device = std::make_unique<sdpo_device>();
    device->index = index;
    read_properties(*device);
    const CurrentDevice current(index);
    check_cuda(cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking), "stream");
    *opened = device.release();
  });
}

// What is called while objects are taken down reports nothing: a failed device has said so before.
template <class Work>
void quietly(const sdpo_device* device, Work work) {
  guarded({nullptr, 0}, [&] {
    const CurrentDevice current(device->index);
    work();
  });
  cudaGetLastError();
}

void close_device(sdpo_device* device) {
  const std::unique_ptr<sdpo_device> owned(device);
  quietly(device, [&] {
    cudaStreamSynchronize(device->stream);
    cudaStreamDestroy(device->stream);
  });
}

int describe(sdpo_device* device, sdpo_message text) {
  return guarded(text, [&] {
    cudaDeviceProp p{};
    int driver = 0;
    check_cuda(cudaGetDeviceProperties(&p, device->index), "device properties");
    check_cuda(cudaDriverGetVersion(&driver), "driver version");
    say(text, str("cuda: ", p.name, ", compute ", p.major, ".", p.minor, ", ", p.multiProcessorCount,
                  " SMs, ", p.totalGlobalMem >> 20, " MiB, driver for CUDA ", version_text(driver),
                  ", built with ", version_text(CUDART_VERSION), ", GEMM ", gemm_library_name())
                  .c_str());
  });
}

int allocate(sdpo_device* device, uint64_t bytes, void** pointer, sdpo_message m) {
  return guarded(m, [&] {
    const CurrentDevice current(device->index);
    const cudaError_t status = cudaMalloc(pointer, bytes);
    if (status == cudaErrorMemoryAllocation) {
      size_t free = 0, total = 0;
      cudaGetLastError();
      check_cuda(cudaMemGetInfo(&free, &total), "free memory");
      throw Error("ERR_SDPO_MEMORY", str(free >> 20, " of ", total >> 20, " MiB are free on the GPU"));
    }
    check_cuda(status, "memory");
  });
}

void release(sdpo_device* device, void* pointer, uint64_t) {
  quietly(device, [&] { cudaFree(pointer); });
}

// `wait`: host memory takes part, which the caller may change or free as soon as this returns.
int copy_bytes(sdpo_device* device, void* to, const void* from, uint64_t bytes, void* stream, sdpo_message m,
               cudaMemcpyKind kind, bool wait) {
  return guarded(m, [&] {
    if (!bytes) return;
    const CurrentDevice current(device->index);
    check_cuda(cudaMemcpyAsync(to, from, bytes, kind, stream_of(device, stream)), "copy");
    if (wait) check_cuda(cudaStreamSynchronize(stream_of(device, stream)), "copy, or work before it");
  });
}

int copy_in(sdpo_device* device, void* to, const void* host, uint64_t bytes, void* stream, sdpo_message m) {
  return copy_bytes(device, to, host, bytes, stream, m, cudaMemcpyHostToDevice, true);
}

int copy_out(sdpo_device* device, void* host, const void* from, uint64_t bytes, void* stream,
             sdpo_message m) {
  return copy_bytes(device, host, from, bytes, stream, m, cudaMemcpyDeviceToHost, true);
}

int copy(sdpo_device* device, void* to, const void* from, uint64_t bytes, void* stream, sdpo_message m) {
  return copy_bytes(device, to, from, bytes, stream, m, cudaMemcpyDeviceToDevice, false);
}

int fill_zero(sdpo_device* device, void* to, uint64_t bytes, void* stream, sdpo_message m) {
  return guarded(m, [&] {
    const CurrentDevice current(device->index);
    if (bytes) check_cuda(cudaMemsetAsync(to, 0, bytes, stream_of(device, stream)), "fill");
  });
}

int stream_create(sdpo_device* device, void** stream, sdpo_message m) {
  return guarded(m, [&] {
    const CurrentDevice current(device->index);
    cudaStream_t created = nullptr;
    check_cuda(cudaStreamCreateWithFlags(&created, cudaStreamNonBlocking), "stream");
    *stream = created;
  });
}

void stream_destroy(sdpo_device* device, void* stream) {
  if (stream) quietly(device, [&] { cudaStreamDestroy(static_cast<cudaStream_t>(stream)); });
}

int synchronize(sdpo_device* device, void* stream, sdpo_message m) {
  return guarded(m, [&] {
    const CurrentDevice current(device->index);
    check_cuda(cudaStreamSynchronize(stream_of(device, stream)), "waiting for the device");
  });
}

int event_create(sdpo_device* device, void** event, sdpo_message m) {
  return guarded(m, [&] {
    const CurrentDevice current(device->index);
    cudaEvent_t created = nullptr;
    check_cuda(cudaEventCreate(&created), "event");
    *event = created;
  });
}

void event_destroy(sdpo_device* device, void* event) {
  if (event) quietly(device, [&] { cudaEventDestroy(static_cast<cudaEvent_t>(event)); });
}

int event_record(sdpo_device* device, void* event, void* stream, sdpo_message m) {
  return guarded(m, [&] {
    const CurrentDevice current(device->index);
    check_cuda(cudaEventRecord(static_cast<cudaEvent_t>(event), stream_of(device, stream)), "event");
  });
}

int event_milliseconds(sdpo_device* device, void* from, void* to, float* milliseconds, sdpo_message m) {
  return guarded(m, [&] {
    const CurrentDevice current(device->index);
    check_cuda(cudaEventSynchronize(static_cast<cudaEvent_t>(to)), "event");
    check_cuda(
        cudaEventElapsedTime(milliseconds, static_cast<cudaEvent_t>(from), static_cast<cudaEvent_t>(to)),
        "event time");
  });
}

int run(sdpo_device* device, const sdpo_kernel* kernel, const sdpo_op_call* call) {
  int status = SDPO_OK;
  const int selected = guarded({call->message, call->message_bytes}, [&] {
    const CurrentDevice current(device->index);
    sdpo_op_call on_stream = *call;
    on_stream.stream = stream_of(device, call->stream);
    status = run_kernel(device->properties, kernel, &on_stream);
  });
  return selected == SDPO_OK ? status : selected;
}

constexpr sdpo_backend kBackend = {SDPO_ABI_VERSION,
                                   "cuda",
                                   device_count,
                                   open_device,
                                   close_device,
                                   describe,
                                   allocate,
                                   release,
                                   copy_in,
                                   copy_out,
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
}  // namespace sdpo

extern "C" __attribute__((visibility("default"))) const sdpo_backend* sdpo_backend_get(uint32_t abi_version) {
  return abi_version == SDPO_ABI_VERSION ? &sdpo::kBackend : nullptr;
}
