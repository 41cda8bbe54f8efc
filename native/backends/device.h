// A device: a backend's handle, its memory counters and a small cache of freed blocks. One stream; calls on
// a device are serial (the binding gives each device a work thread of its own).
#pragma once
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "backends/abi.h"
#include "core/error.h"

namespace sdpo {

const sdpo_backend* cpu_backend();
std::vector<std::string> cpu_kernel_names();

struct MemoryInfo {
  uint64_t current, peak, reserved;  // bytes: in live tensors; the most of that; held from the system
};

class Device : public std::enable_shared_from_this<Device> {
 public:
  // "cpu", "simt", "cuda", "cuda:1", "auto". Throws Error with the reason. "auto" takes cuda where it runs
  // every op that the CPU runs, else the CPU; description() then says why.
  static std::shared_ptr<Device> open(const std::string& name);
  ~Device();

  const sdpo_backend& backend() const { return *backend_; }
  sdpo_device* handle() const { return handle_; }
  const std::string& name() const { return name_; }
  bool is_cpu() const { return backend_ == cpu_backend(); }
  bool supports(const std::string& op) const;  // has it a kernel for this op?
  std::string description() const;

  void* allocate(uint64_t bytes);
  void release(void* pointer, uint64_t bytes);
  MemoryInfo memory() const;
  void reset_peak();
  void trim();  // gives cached blocks back to the system

 private:
  static std::shared_ptr<Device> open_best();
  Device(const sdpo_backend* backend, sdpo_device* handle, std::string name)
      : backend_(backend), handle_(handle), name_(std::move(name)), exact_(name_ == "simt") {}
  uint64_t block_bytes(uint64_t bytes) const;

  const sdpo_backend* backend_;
  sdpo_device* handle_;
  std::string name_, chosen_;  // chosen_: why "auto" took this device
  const bool exact_;           // blocks of the size asked for, never used again: bounds are checked there
  mutable std::mutex mutex_;
  std::multimap<uint64_t, void*> cache_;
  uint64_t current_ = 0, peak_ = 0, reserved_ = 0;
};

constexpr uint64_t kMessageBytes = 512;

// Calls a backend function that ends in an sdpo_message and throws what it reports.
template <class Call>
void checked(const char* what, Call call) {
  char text[kMessageBytes] = "";
  const int status = call(sdpo_message{text, sizeof text});
  if (status == SDPO_OK) return;
  throw Error(status == SDPO_OUT_OF_MEMORY ? "ERR_SDPO_MEMORY" : "ERR_SDPO_DEVICE", str(what, ": ", text));
}

// Where and why a backend is or is not there, for `doctor`.
struct BackendReport {
  std::string name;
  bool available;
  std::string detail;
};
std::vector<BackendReport> backend_reports();

}  // namespace sdpo
