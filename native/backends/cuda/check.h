// CUDA's status codes as exceptions, and the device that a call means as the thread's current one.
#pragma once
#include <cuda_runtime_api.h>

#include "core/error.h"

namespace sdpo {

inline void check_cuda(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // else the next caller in this process would be told of it again
  throw Error(status == cudaErrorMemoryAllocation ? "ERR_SDPO_MEMORY" : "ERR_SDPO_DEVICE",
              str(what, ": ", cudaGetErrorString(status), " (", cudaGetErrorName(status), ")"));
}

// The process may have another runtime with a current device of its own: it is put back.
class CurrentDevice {
 public:
  explicit CurrentDevice(int index) : index_(index) {
    check_cuda(cudaGetDevice(&before_), "current device");
    if (before_ != index_) check_cuda(cudaSetDevice(index_), "current device");
  }
  ~CurrentDevice() {
    if (before_ != index_) cudaSetDevice(before_);
  }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  int index_, before_ = 0;
};

}  // namespace sdpo
