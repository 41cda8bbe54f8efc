// grad_norm and adamw on a GPU (formulas: optimizer.cpp). One launch for all of a flat array: a model's
// parameters lie in one. grad_norm: a block of threads for each block of elements, then one block that adds
// them in order, so bits do not depend on the device. adamw reads and writes every array once.
#include "ops/loss_rows.cuh"
#include "ops/optimizer_math.h"

namespace sdpo {
namespace {

constexpr int kThreads = 256;

int64_t elements(const sdpo_tensor& x) {
  int64_t n = 1;
  for (int32_t i = 0; i < x.rank; i++) n *= x.shape[i];
  return n;
}

struct Squares {
  double sum = 0, unfinished = 0;

  DEV_INLINE void merge(const Squares& other, float) {
    sum += other.sum;
    unfinished += other.unfinished;
  }
  DEV_INLINE Squares of_lane(int mask) const {
    Squares other;
    other.sum = __shfl_xor_sync(~0u, sum, mask);
    other.unfinished = __shfl_xor_sync(~0u, unfinished, mask);
    return other;
  }
};

__global__ void __launch_bounds__(kThreads)
    norm_of_blocks(const float* x, int64_t n, bool aligned, Squares* sums) {
  SHARED(Squares, warps, kThreads / 32);
  const int64_t begin = blockIdx.x * kNormBlock;
  const int count = int(n - begin < kNormBlock ? n - begin : kNormBlock);
  const Slice slice{begin, 0, (count + kGroup - 1) / kGroup, count, aligned};
  Squares mine;
  for (int group = threadIdx.x; group < slice.groups; group += kThreads) {
    float g[kGroup];
    read_group(x, slice, group, g);
    for (int j = 0; j < kGroup && kGroup * group + j < count; j++) {
      mine.sum += double(g[j]) * g[j];
      if (!isfinite(g[j])) mine.unfinished++;
    }
  }
  const Squares total = merge_team(mine, &warps[0], Team{0, 1}, 0);
  if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

__global__ void __launch_bounds__(kThreads) norm_of_sums(const Squares* sums, int64_t blocks, float* norm) {
  SHARED(Squares, warps, kThreads / 32);
  Squares mine;
  for (int64_t i = threadIdx.x; i < blocks; i += kThreads) mine.merge(sums[i], 0);
  const Squares total = merge_team(mine, &warps[0], Team{0, 1}, 0);
  if (threadIdx.x) return;
  norm[0] = float(sqrt(total.sum));
  norm[1] = float(total.unfinished);
}

void launch_grad_norm(const GpuCall& call) {
  const int64_t n = elements(call.in(0)), blocks = norm_blocks(n);
  const Logits gradient = logits_of(call.in(0));
  Squares* sums = static_cast<Squares*>(call.scratch());
  if (blocks)
    launch(norm_of_blocks, dim3(unsigned(blocks)), dim3(kThreads), 0, call.stream(),
           static_cast<const float*>(gradient.data), n, gradient.aligned, sums);
  launch(norm_of_sums, dim3(1), dim3(kThreads), 0, call.stream(), sums, blocks, call.out_as<float>(0));
}

struct AdamwArrays {
  Logits parameter, gradient, first, second, master, ema;
  const float* norm;
};

// A group of an array; the rounding by chance takes 16 bits an element.
template <int word>
DEV_INLINE void put_group(const Logits& m, const Slice& slice, const AdamwSettings& s, float (&x)[kGroup]) {
  if (m.is_bf16 && s.stochastic) {
    for (int j = 0; j < kGroup; j++)
      x[j] = to_f32(bf16{round_by_chance(x[j], adamw_bits(s, slice.origin + j)[word])});
  }
  write_group(m, slice, 0, x);
}

__global__ void __launch_bounds__(kThreads, 4) adamw_groups(AdamwArrays a, AdamwSettings s, int64_t n) {
  const int64_t begin = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * kGroup;
  const float scale = adamw_scale(s, a.norm);
  if (begin >= n || isnan(scale)) return;
  const Slice slice{begin, 0, 1, int(n - begin < kGroup ? n - begin : kGroup), true};
  float g[kGroup], m[kGroup], v[kGroup], theta[kGroup];
  read_group(a.gradient, slice, 0, g);
  read_group(a.first, slice, 0, m);
  read_group(a.second, slice, 0, v);
  read_group(a.master.data ? a.master : a.parameter, slice, 0, theta);
  for (int j = 0; j < kGroup; j++) {
    const float scaled = g[j] * scale;
    m[j] = m[j] * s.beta1 + scaled * s.rest1;
    v[j] = v[j] * s.beta2 + scaled * scaled * s.rest2;
    theta[j] = theta[j] * s.decay - m[j] * s.rate / (sqrtf(v[j]) * s.second_scale + s.epsilon);
  }
  put_group<1>(a.first, slice, s, m);
  put_group<2>(a.second, slice, s, v);
  if (a.master.data) write_group(a.master, slice, 0, theta);
  float stored[kGroup];
  for (int j = 0; j < kGroup; j++) stored[j] = theta[j];
  put_group<0>(a.parameter, slice, s, stored);
  if (!a.ema.data) return;
  float ema[kGroup];
  read_group(a.ema, slice, 0, ema);
  for (int j = 0; j < kGroup; j++) {
    const float follows = a.master.data || !a.parameter.is_bf16 ? theta[j] : to_f32(to_bf16(stored[j]));
    ema[j] = ema[j] * (1 - s.ema_rate) + follows * s.ema_rate;
  }
  put_group<3>(a.ema, slice, s, ema);
}

void launch_adamw(const GpuCall& call) {
  const AdamwSettings settings(call.attributes(), &call.in(0));
  const int64_t n = elements(call.in(kParameter));
  if (n == 0) return;
  const auto array = [&](AdamwInput i) { return logits_of(call.in(i)); };
  const AdamwArrays arrays{array(kParameter), array(kGradient), array(kFirst),           array(kSecond),
                           array(kMaster),    array(kEma),      call.in_as<float>(kNorm)};
  const int64_t blocks = (n + kThreads * kGroup - 1) / (kThreads * kGroup);
  launch(adamw_groups, dim3(unsigned(blocks)), dim3(kThreads), 0, call.stream(), arrays, settings, n);
}

SDPO_KERNEL(grad_norm, launch_grad_norm);
SDPO_KERNEL(adamw, launch_adamw);

}  // namespace
}  // namespace sdpo
