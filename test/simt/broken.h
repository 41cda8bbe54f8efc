#pragma once
#include <vector>

namespace sdpo {

struct BrokenKernel {
  const char* name;
  void (*run)(float* out, const float* in, bool bug);
  unsigned blocks, cluster;
};
const std::vector<BrokenKernel>& broken_kernels();
void launch_broken(const BrokenKernel& kernel, float* out, const float* in, bool bug);

}  // namespace sdpo
