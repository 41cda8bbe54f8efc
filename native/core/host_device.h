// Marks a function that the CPU and GPU kernels share.
#pragma once

#ifdef __CUDACC__
#define SDPO_HOST_DEVICE __host__ __device__
#else
#define SDPO_HOST_DEVICE
#endif
