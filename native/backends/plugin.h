// What the GPU-like backends (cuda, simt) share: the table of kernels, a call as a launcher sees it, and the
// border where exceptions become a status with a message.
//
//   void launch_scale(const GpuCall& call) { ... launch(scale, grid, block, 0, call.stream(), ...); }
//   SDPO_KERNEL(scale_fwd, launch_scale);
//
// A launcher enqueues work on call.stream(); it never allocates, never waits and never reads device memory.
#pragma once
#include <cstdint>

#include "backends/abi.h"
#include "core/error.h"

namespace sdpo {

struct DeviceProperties {
  int arch = 0;  // 80, 90, ...
  int multiprocessors = 0;
  uint64_t shared_per_block = 0, shared_per_multiprocessor = 0, l2_bytes = 0;
};

// Tensors and attributes in the order of the op's schema.
class GpuCall {
 public:
  GpuCall(const sdpo_op_call& raw, const DeviceProperties& properties) : raw_(raw), properties_(properties) {}
  const sdpo_op_call& raw() const { return raw_; }
  const sdpo_tensor* inputs() const { return raw_.inputs; }
  const sdpo_tensor& in(int i) const { return raw_.inputs[i]; }
  const sdpo_tensor& out(int i) const { return raw_.outputs[i]; }
  bool has_in(int i) const { return raw_.inputs[i].data != nullptr; }
  bool has_out(int i) const { return raw_.outputs[i].data != nullptr; }
  template <class T>
  T* in_as(int i) const {
    return static_cast<T*>(raw_.inputs[i].data);
  }
  template <class T>
  T* out_as(int i) const {
    return static_cast<T*>(raw_.outputs[i].data);
  }
  double number(int i) const { return raw_.attributes[i]; }
  bool flag(int i) const { return raw_.attributes[i] != 0; }
  bool is_null(int i) const { return raw_.attributes[i] != raw_.attributes[i]; }
  const double* attributes() const { return raw_.attributes; }
  int64_t integer(int i) const { return int64_t(raw_.attributes[i]); }
  void* scratch() const { return raw_.scratch; }
  uint64_t scratch_bytes() const { return raw_.scratch_bytes; }
  void* stream() const { return raw_.stream; }
  const DeviceProperties& properties() const { return properties_; }

 private:
  const sdpo_op_call& raw_;
  const DeviceProperties& properties_;
};

using Launcher = void (*)(const GpuCall&);
bool add_kernel(const char* op, Launcher launcher);
#define SDPO_KERNEL(op, launcher) \
  static const bool op##_registered [[maybe_unused]] = ::sdpo::add_kernel(#op, launcher)

const sdpo_kernel* find_kernel(const char* op);  // NULL where there is none
int run_kernel(const DeviceProperties& properties, const sdpo_kernel* kernel, const sdpo_op_call* call);

void say(sdpo_message message, const char* text);
int status_of_exception(sdpo_message message);  // to be called in a catch block

// Runs `work`; what it throws becomes the message and the status.
template <class Work>
int guarded(sdpo_message message, Work work) {
  try {
    work();
    return SDPO_OK;
  } catch (...) {
    return status_of_exception(message);
  }
}

}  // namespace sdpo
