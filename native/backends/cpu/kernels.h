// The CPU backend's kernel table. Ops add themselves when they are registered.
#pragma once
#include "backends/abi.h"

namespace sdpo {

using CpuFunction = void (*)(const sdpo_op_call&);
void add_cpu_kernel(const char* op, CpuFunction function);

}  // namespace sdpo
