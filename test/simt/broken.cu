// Kernels with one mistake each, which `bug` turns on. The line that must be named (one of them, where there
// are two sides) ends in `// BUG <kernel>`. Without it every kernel writes 1 to out[0 .. threads of the
// grid).
#include "backends/device.cuh"
#include "broken.h"

namespace sdpo {
namespace {

constexpr int N = 256;

__global__ void missing_barrier(float* out, const float*, bool bug) {
  Smem smem;
  float* a = smem.take<float>(N);
  const int i = threadIdx.x;
  a[i] = 1;
  if (!bug) __syncthreads();
  out[i] = a[(i + 32) % N];  // BUG missing_barrier
}

__global__ void missing_barrier_before_reuse(float* out, const float*, bool bug) {
  Smem smem;
  float* a = smem.take<float>(N / 32);
  const int i = threadIdx.x;
  float sum = 0;
  for (int round = 0; round < 2; round++) {
    if (i % 32 == 0) a[i / 32] = 0.5f;  // BUG missing_barrier_before_reuse
    __syncthreads();
    sum += a[(i / 32 + 1) % (N / 32)];  // BUG missing_barrier_before_reuse
    if (!bug) __syncthreads();
  }
  out[i] = sum;
}

__global__ void shared_race(float* out, const float*, bool bug) {
  Smem smem;
  float* a = smem.take<float>(N);
  const int i = threadIdx.x;
  a[bug ? i % 128 : i] = 1;  // BUG shared_race
  __syncthreads();
  out[i] = a[bug ? i % 128 : i];
}

__global__ void missing_syncwarp(float* out, const float*, bool bug) {
  Smem smem;
  float* a = smem.take<float>(N);
  const int i = threadIdx.x;
  a[i] = 1;
  if (bug)
    __shfl_sync(~0u, i, 0);  // orders no memory
  else
    __syncwarp();
  out[i] = a[i ^ 1];  // BUG missing_syncwarp
}

__global__ void global_race(float* out, const float*, bool bug) {
  out[bug ? threadIdx.x : blockIdx.x * N + threadIdx.x] = 1;  // BUG global_race
}

__global__ void global_race_read(float* out, const float*, bool bug) {
  const int i = blockIdx.x * N + threadIdx.x;
  out[i] = 1;                                                                   // BUG global_race_read
  if (bug && blockIdx.x == gridDim.x - 1 && out[threadIdx.x] == 0) out[i] = 2;  // BUG global_race_read
  if (bug && blockIdx.x == 0 && out[(gridDim.x - 1) * N] == 0) out[i] = 2;      // BUG global_race_read
}

__global__ void atomic_and_plain(float* out, const float*, bool bug) {
  Smem smem;
  int* count = smem.take<int>(1);
  const int i = threadIdx.x;
  if (i == 0) *count = 1;
  __syncthreads();
  if (i != 7) atomicAdd(count, 1);  // BUG atomic_and_plain
  if (!bug) __syncthreads();
  const int seen = i == 7 ? *count : N;  // BUG atomic_and_plain
  out[i] = bug ? seen >= 1 : seen == N;
}

__global__ void shared_overrun(float* out, const float*, bool bug) {
  Smem smem;
  float* a = smem.take<float>(N);
  float* b = smem.take<float>(N);
  const int i = threadIdx.x;
  a[i] = 1;
  b[i] = 1;
  if (bug && i == 0) a[N] = 1;  // BUG shared_overrun
  out[i] = a[i] * b[i];
}

__global__ void static_overrun(float* out, const float*, bool bug) {
  SHARED(float, a, N);
  const int i = threadIdx.x;
  float* p = a;
  p[bug ? i + 1 : i] = 1;  // BUG static_overrun
  out[i] = 1;
}

__global__ void global_overrun_read(float* out, const float* in, bool bug) {
  const int i = threadIdx.x;
  out[i] = in[bug ? i + 1 : i];  // BUG global_overrun_read
}

__global__ void global_overrun_write(float* out, const float*, bool bug) {
  const int i = threadIdx.x;
  out[i] = 1;
  if (bug && i == N - 1) out[gridDim.x * N] = 1;  // BUG global_overrun_write
}

__global__ void full_mask_of_half_a_warp(float* out, const float*, bool bug) {
  const int i = threadIdx.x;
  float sum = 1;
  if (i % 32 < 16)
    sum = 0.5f + __shfl_xor_sync(bug ? ~0u : 0xffffu, 0.5f, 8);  // BUG full_mask_of_half_a_warp
  out[i] = sum;
}

__global__ void lane_outside_its_mask(float* out, const float*, bool bug) {
  const int i = threadIdx.x;
  float sum = 1;
  if (i % 32 < 16) sum = __shfl_xor_sync(bug ? 0xffu : 0xffffu, 1.f, 4);  // BUG lane_outside_its_mask
  out[i] = sum;
}

__global__ void lane_that_takes_no_part(float* out, const float*, bool bug) {
  const int i = threadIdx.x;
  float sum = 1;
  if (i % 32 < 16) sum = __shfl_xor_sync(0xffffu, 1.f, bug ? 16 : 8);  // BUG lane_that_takes_no_part
  out[i] = sum;
}

__global__ void divergent_barrier(float* out, const float*, bool bug) {
  if (bug && threadIdx.x < 128)
    __syncthreads();  // BUG divergent_barrier
  else
    __syncthreads();  // BUG divergent_barrier
  out[threadIdx.x] = 1;
}

__global__ void early_return(float* out, const float*, bool bug) {
  const int i = threadIdx.x;
  out[i] = 1;
  if (bug && i >= 200) return;
  __syncthreads();  // BUG early_return
}

__global__ void uninitialised_shared(float* out, const float*, bool bug) {
  Smem smem;
  float* a = smem.take<float>(N);
  const int i = threadIdx.x;
  if (!bug || i < 128) a[i] = 0;
  __syncthreads();
  out[i] = fmaxf(a[i], 0.f) + 1;  // BUG uninitialised_shared
}

__global__ void uninitialised_global(float* out, const float*, bool bug) {
  const int i = threadIdx.x;
  if (!bug) out[i] = 0;
  out[i] = fmaxf(out[i], 0.f) + 1;  // BUG uninitialised_global
}

__global__ void misaligned_load(float* out, const float* in, bool bug) {
  const int i = threadIdx.x;
  const float4 four = ld16(reinterpret_cast<const float4*>(in + (bug ? 1 : 0)));  // BUG misaligned_load
  out[i] = four.x;
}

__global__ void misaligned_array(float* out, const float*, bool bug) {
  Smem smem;
  float* a = bug ? smem.take<float>(4 * N, 8) : smem.take<float>(4 * N, 16);
  const int i = threadIdx.x;
  st16(reinterpret_cast<float4*>(a) + i, float4{1, 1, 1, 1});  // BUG misaligned_array
  out[i] = a[4 * i];
}

__global__ void missing_bulk_wait(float* out, const float* in, bool bug) {
  Smem smem;
  float* a = smem.take<float>(N, 128);
  uint64_t* barrier = smem.take<uint64_t>(1);
  const int i = threadIdx.x;
  if (i == 0) mbar_init(barrier, 1);
  __syncthreads();
  if (i == 0) {
    mbar_expect(barrier, N * 4);
    bulk_load(a, in, N * 4, barrier);
  }
  if (!bug) mbar_wait(barrier, 0);
  __syncthreads();
  out[i] = a[i];  // BUG missing_bulk_wait
}

__global__ void missing_copy_wait(float* out, const float* in, bool bug) {
  Smem smem;
  float* a = smem.take<float>(4 * N);
  const int i = threadIdx.x;
  copy16_async(a + 4 * i, in);
  copy_commit();
  if (!bug) copy_wait<0>();
  out[i] = a[4 * i];  // BUG missing_copy_wait
  copy_wait<0>();
}

__global__ void overwritten_while_stored(float* out, const float*, bool bug) {
  Smem smem;
  float* a = smem.take<float>(N, 128);
  const int i = threadIdx.x;
  a[i] = 1;
  bulk_fence();
  __syncthreads();
  if (i == 0) {
    bulk_store(out, a, N * 4);
    bulk_commit();
    if (!bug) bulk_wait<0>();
    a[1] = 2;  // BUG overwritten_while_stored
    bulk_wait<0>();
  }
}

__global__ void wrong_bytes_expected(float* out, const float* in, bool bug) {
  Smem smem;
  float* a = smem.take<float>(N, 128);
  uint64_t* barrier = smem.take<uint64_t>(1);
  const int i = threadIdx.x;
  if (i == 0) mbar_init(barrier, 1);
  __syncthreads();
  if (i == 0) {
    mbar_expect(barrier, N * 4 + (bug ? 16 : 0));
    bulk_load(a, in, N * 4, barrier);
  }
  mbar_wait(barrier, 0);  // BUG wrong_bytes_expected
  out[i] = a[i];
}

__global__ void cluster_read_too_early(float* out, const float*, bool bug) {
  Smem smem;
  float* a = smem.take<float>(N);
  const int i = threadIdx.x;
  const unsigned rank = cluster_rank();
  a[i] = 1;
  if (bug)
    __syncthreads();
  else
    cluster_sync();
  const float peer = *cluster_map(&a[i], (rank + 1) % 4);  // BUG cluster_read_too_early
  cluster_sync();
  out[rank * N + i] = peer;
}

__global__ void cluster_peer_has_ended(float* out, const float*, bool bug) {
  Smem smem;
  float* a = smem.take<float>(N);
  const int i = threadIdx.x;
  const unsigned rank = cluster_rank();
  a[i] = 1;
  cluster_sync();
  out[rank * N + i] = *cluster_map(&a[i], (rank + 1) % 4);  // BUG cluster_peer_has_ended
  if (!bug) cluster_sync();
}

__global__ void too_much_shared_memory(float* out, const float*, bool bug) {
  Smem smem;
  float* a = smem.take<float>(bug ? 64 * N : N);  // BUG too_much_shared_memory
  a[threadIdx.x] = 1;
  out[threadIdx.x] = a[threadIdx.x];
}

}  // namespace

#define BROKEN(name, blocks, cluster) {#name, name, blocks, cluster}
static const std::vector<BrokenKernel> all = {
    BROKEN(missing_barrier, 1, 1),
    BROKEN(missing_barrier_before_reuse, 1, 1),
    BROKEN(shared_race, 1, 1),
    BROKEN(missing_syncwarp, 1, 1),
    BROKEN(global_race, 2, 1),
    BROKEN(global_race_read, 2, 1),
    BROKEN(atomic_and_plain, 1, 1),
    BROKEN(shared_overrun, 1, 1),
    BROKEN(static_overrun, 1, 1),
    BROKEN(global_overrun_read, 1, 1),
    BROKEN(global_overrun_write, 1, 1),
    BROKEN(full_mask_of_half_a_warp, 1, 1),
    BROKEN(lane_outside_its_mask, 1, 1),
    BROKEN(lane_that_takes_no_part, 1, 1),
    BROKEN(divergent_barrier, 1, 1),
    BROKEN(early_return, 1, 1),
    BROKEN(uninitialised_shared, 1, 1),
    BROKEN(uninitialised_global, 1, 1),
    BROKEN(misaligned_load, 1, 1),
    BROKEN(misaligned_array, 1, 1),
    BROKEN(missing_bulk_wait, 1, 1),
    BROKEN(missing_copy_wait, 1, 1),
    BROKEN(overwritten_while_stored, 1, 1),
    BROKEN(wrong_bytes_expected, 1, 1),
    BROKEN(cluster_read_too_early, 4, 4),
    BROKEN(cluster_peer_has_ended, 4, 4),
    BROKEN(too_much_shared_memory, 1, 1),
};

const std::vector<BrokenKernel>& broken_kernels() { return all; }

void launch_broken(const BrokenKernel& kernel, float* out, const float* in, bool bug) {
  launch_cluster(kernel.run, dim3(kernel.blocks), dim3(N), 4 * N * 4 + 512, kernel.cluster, nullptr, out, in,
                 bug);
}

}  // namespace sdpo
