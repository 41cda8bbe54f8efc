// Runs every kernel of broken.cu whole and broken, and prints a line for each: name|whole or broken|message.
#include <cstdio>
#include <string>

#include "backends/abi.h"
#include "broken.h"

extern "C" const sdpo_backend* sdpo_backend_get(uint32_t abi_version);

int main() {
  using namespace sdpo;
  const sdpo_backend* backend = sdpo_backend_get(SDPO_ABI_VERSION);
  const sdpo_message none{nullptr, 0};
  sdpo_device* device = nullptr;
  if (backend->open(0, &device, none)) return 1;
  const std::vector<float> ones(1024, 1);
  for (const BrokenKernel& kernel : broken_kernels()) {
    for (const bool bug : {false, true}) {
      const uint64_t n = kernel.blocks * 256, bytes = n * 4, in_bytes = 256 * 4;
      void *out = nullptr, *in = nullptr;
      if (backend->allocate(device, bytes, &out, none) || backend->allocate(device, in_bytes, &in, none))
        return 1;
      backend->copy_in(device, in, ones.data(), in_bytes, nullptr, none);
      std::string message;
      const std::vector<float> zeros(n);
      if (std::string(kernel.name).rfind("uninitialised", 0) != 0)
        backend->copy_in(device, out, zeros.data(), bytes, nullptr, none);
      try {
        launch_broken(kernel, static_cast<float*>(out), static_cast<const float*>(in), bug);
        std::vector<float> got(n);
        backend->copy_out(device, got.data(), out, bytes, nullptr, none);
        message = "ok";
        for (float x : got)
          if (x != 1) message = "wrong result";
      } catch (const std::exception& error) {
        message = error.what();
      }
      std::printf("%s|%s|%s\n", kernel.name, bug ? "broken" : "whole", message.c_str());
      backend->release(device, out, bytes);
      backend->release(device, in, in_bytes);
    }
  }
}
