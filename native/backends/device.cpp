#include "backends/device.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "core/error.h"

namespace sdpo {
namespace {

// The folder of the shared object that holds this code: plugins lie beside it.
std::string plugin_folder() {
  Dl_info info;
  if (!dladdr(reinterpret_cast<void*>(&plugin_folder), &info) || !info.dli_fname) return ".";
  const std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

// The CUDA plugin starts without a driver and then fails call by call: one message before that is better.
void require_driver() {
  if (!dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL))
    throw Error("ERR_SDPO_DEVICE", str("device 'cuda': this system has no NVIDIA driver: ", dlerror()));
}

// Libraries of one device: SDPO_SIMT_VARIANT=checked or asan takes an instrumented SIMT build.
std::string library_name(const std::string& name) {
  const char* variant = name == "simt" ? std::getenv("SDPO_SIMT_VARIANT") : nullptr;
  return str("libsdpo_", name, variant && *variant ? "_" : "", variant ? variant : "", ".so");
}

// Loads the device's library and asks it for its backend. Loaded plugins stay loaded.
const sdpo_backend* load_plugin(const std::string& name) {
  const std::string path = plugin_folder() + "/" + library_name(name);
  if (name == "cuda") require_driver();
  if (access(path.c_str(), F_OK) != 0)
    throw Error("ERR_SDPO_DEVICE", str("device '", name, "': this build has no such backend: there is no ",
                                       path, "; `npx sdpo doctor` says how to build it"));
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library)
    throw Error("ERR_SDPO_DEVICE", str("device '", name, "': cannot load ", path, ": ", dlerror()));
  auto get = reinterpret_cast<sdpo_backend_get_fn>(dlsym(library, "sdpo_backend_get"));
  const sdpo_backend* backend = get ? get(SDPO_ABI_VERSION) : nullptr;
  if (!backend)
    throw Error("ERR_SDPO_DEVICE",
                str("device '", name, "': ", path, " does not speak backend interface version ",
                    SDPO_ABI_VERSION, "; rebuild it with `npm run build`"));
  return backend;
}

const sdpo_backend* find_backend(const std::string& name) {
  return name == "cpu" ? cpu_backend() : load_plugin(name);
}

int count_devices(const sdpo_backend* backend) {
  int count = 0;
  checked("device count", [&](sdpo_message m) { return backend->device_count(&count, m); });
  return count;
}

// "cuda:1" -> ("cuda", 1). Throws on anything else than NAME or NAME:INDEX.
std::pair<std::string, int> parse_name(const std::string& text) {
  const size_t colon = text.find(':');
  const std::string name = text.substr(0, colon);
  int index = 0;
  bool good = name == "cpu" || name == "cuda" || name == "simt";
  if (good && colon != std::string::npos) {
    const std::string digits = text.substr(colon + 1);
    good = !digits.empty() && digits.size() < 4 && std::all_of(digits.begin(), digits.end(), ::isdigit);
    if (good) index = std::stoi(digits);
  }
  if (!good)
    throw Error("ERR_SDPO_DEVICE",
                str("device '", text, "': expected auto, cpu, cuda, cuda:<index> or simt"));
  return {name, index};
}

// Large blocks are rounded up to an eighth of their power of two, so that freed ones fit again.
uint64_t rounded_bytes(uint64_t bytes) {
  uint64_t step = 64;
  while (step * 16 <= bytes) step *= 2;
  return (std::max<uint64_t>(bytes, 1) + step - 1) / step * step;
}

// "no kernel for 3 of 31 ops (add, bias_add, ...)"; empty where the device runs all that the CPU runs.
std::string missing_kernels(const Device& device) {
  const std::vector<std::string> ops = cpu_kernel_names();
  std::string first;
  size_t missing = 0;
  for (const std::string& op : ops)
    if (!device.supports(op) && ++missing <= 3) first += str(first.empty() ? "" : ", ", op);
  if (!missing) return "";
  return str("device 'cuda' has no kernel for ", missing, " of ", ops.size(), " ops (", first,
             missing > 3 ? ", ...)" : ")");
}

}  // namespace

std::shared_ptr<Device> Device::open_best() {
  std::string reason;
  try {
    std::shared_ptr<Device> device = open("cuda");
    reason = missing_kernels(*device);
    if (reason.empty()) return device;
  } catch (const Error& error) {
    reason = error.what();
  }
  std::shared_ptr<Device> device = open("cpu");
  device->chosen_ = reason;
  return device;
}

std::shared_ptr<Device> Device::open(const std::string& text) {
  if (text == "auto") return open_best();
  const auto [name, index] = parse_name(text);
  const sdpo_backend* backend = find_backend(name);
  const int count = count_devices(backend);
  if (index >= count)
    throw Error("ERR_SDPO_DEVICE",
                str("device '", text, "': this machine has ", count, " device(s) of kind ", name));
  sdpo_device* handle = nullptr;
  checked("open device", [&](sdpo_message m) { return backend->open(index, &handle, m); });
  return std::shared_ptr<Device>(new Device(backend, handle, index ? text : name));
}

Device::~Device() {
  trim();
  backend_->close(handle_);
}

std::string Device::description() const {
  char text[kMessageBytes] = "";
  backend_->describe(handle_, sdpo_message{text, sizeof text});
  return chosen_.empty() ? text : str(text, "; chosen because ", chosen_);
}

bool Device::supports(const std::string& op) const { return backend_->find_kernel(op.c_str()) != nullptr; }

uint64_t Device::block_bytes(uint64_t bytes) const { return exact_ ? bytes : rounded_bytes(bytes); }

void* Device::allocate(uint64_t bytes) {
  bytes = block_bytes(bytes);
  std::unique_lock<std::mutex> lock(mutex_);
  void* pointer = nullptr;
  auto cached = cache_.find(bytes);
  if (cached != cache_.end()) {
    pointer = cached->second;
    cache_.erase(cached);
  } else {
    char text[kMessageBytes] = "";
    int status = backend_->allocate(handle_, bytes, &pointer, sdpo_message{text, sizeof text});
    if (status == SDPO_OUT_OF_MEMORY && !cache_.empty()) {
      lock.unlock();
      trim();
      lock.lock();
      status = backend_->allocate(handle_, bytes, &pointer, sdpo_message{text, sizeof text});
    }
    if (status != SDPO_OK)
      throw Error("ERR_SDPO_MEMORY", str("device '", name_, "': cannot allocate ", bytes, " bytes: ", text));
    reserved_ += bytes;
  }
  current_ += bytes;
  peak_ = std::max(peak_, current_);
  return pointer;
}

void Device::release(void* pointer, uint64_t bytes) {
  bytes = block_bytes(bytes);
  std::unique_lock<std::mutex> lock(mutex_);
  current_ -= bytes;
  if (exact_) {
    reserved_ -= bytes;
    return backend_->release(handle_, pointer, bytes);
  }
  cache_.emplace(bytes, pointer);
  // The cache never holds more than is in use, or 256 MiB: sizes that do not return are given back.
  const uint64_t limit = std::max<uint64_t>(peak_ - std::min(peak_, current_), 256u << 20);
  while (reserved_ - current_ > limit && !cache_.empty()) {
    auto largest = std::prev(cache_.end());
    backend_->release(handle_, largest->second, largest->first);
    reserved_ -= largest->first;
    cache_.erase(largest);
  }
}

void Device::trim() {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& [bytes, pointer] : cache_) {
    backend_->release(handle_, pointer, bytes);
    reserved_ -= bytes;
  }
  cache_.clear();
}

MemoryInfo Device::memory() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return {current_, peak_, reserved_};
}

void Device::reset_peak() {
  std::lock_guard<std::mutex> lock(mutex_);
  peak_ = current_;
}

std::vector<BackendReport> backend_reports() {
  std::vector<BackendReport> reports;
  for (const char* name : {"cpu", "cuda", "simt"}) {
    try {
      reports.push_back({name, true, Device::open(name)->description()});
    } catch (const Error& error) {
      reports.push_back({name, false, error.what()});
    }
  }
  return reports;
}

}  // namespace sdpo
