#include "backends/plugin.h"

#include <cstdio>
#include <cstring>
#include <map>
#include <new>
#include <string>

struct sdpo_kernel {
  sdpo::Launcher launcher;
};

namespace sdpo {
namespace {

std::map<std::string, sdpo_kernel>& kernels() {
  static auto* table = new std::map<std::string, sdpo_kernel>;
  return *table;
}

}  // namespace

bool add_kernel(const char* op, Launcher launcher) {
  return kernels().emplace(op, sdpo_kernel{launcher}).second;
}

const sdpo_kernel* find_kernel(const char* op) {
  auto found = kernels().find(op);
  return found == kernels().end() ? nullptr : &found->second;
}

int run_kernel(const DeviceProperties& properties, const sdpo_kernel* kernel, const sdpo_op_call* call) {
  return guarded({call->message, call->message_bytes}, [&] { kernel->launcher(GpuCall(*call, properties)); });
}

void say(sdpo_message message, const char* text) {
  if (message.text && message.bytes) std::snprintf(message.text, message.bytes, "%s", text);
}

int status_of_exception(sdpo_message message) {
  try {
    throw;
  } catch (const Error& error) {
    say(message, error.what());
    return std::strcmp(error.code(), "ERR_SDPO_MEMORY") ? SDPO_FAILED : SDPO_OUT_OF_MEMORY;
  } catch (const std::bad_alloc&) {
    say(message, "the system has no memory left");
    return SDPO_OUT_OF_MEMORY;
  } catch (const std::exception& error) {
    say(message, error.what());
    return SDPO_FAILED;
  }
}

}  // namespace sdpo
