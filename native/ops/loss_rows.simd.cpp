#include "ops/loss_rows.h"

#include "core/simd.h"

namespace sdpo {
namespace SDPO_ISA {
namespace {

constexpr int64_t kSumBlock = 2048;
constexpr float kLeast = -88.f;  // exp of less is 0

inline Vec at_least(Vec x, Vec least) { return x < least ? least : x; }  // NaN stays

// log(x) for normal x > 0 within 2 ulp, finite for 0. Cephes' polynomial around 1.
inline Vec log_normal(Vec x) {
  const VecI bits = (VecI)x;
  const VecI e = (bits - 0x3f3504f3) >> 23;  // so that the mantissa lies in [sqrt(1/2), sqrt(2))
  const Vec m = (Vec)(bits - (e << 23)) - splat(1.f);
  Vec p = splat(7.0376836292e-2f);
  p = p * m + splat(-1.1514610310e-1f);
  p = p * m + splat(1.1676998740e-1f);
  p = p * m + splat(-1.2420140846e-1f);
  p = p * m + splat(1.4249322787e-1f);
  p = p * m + splat(-1.6668057665e-1f);
  p = p * m + splat(2.0000714765e-1f);
  p = p * m + splat(-2.4999993993e-1f);
  p = p * m + splat(3.3333331174e-1f);
  const Vec z = m * m;
  const Vec ef = __builtin_convertvector(e, Vec);
  Vec y = m * z * p + ef * splat(-2.12194440e-4f);
  y = y - splat(0.5f) * z;
  return m + y + ef * splat(0.693359375f);
}

struct DoubleSum {
  double total = 0;
  Vec lanes = splat(0.f);
  void flush() {
    double sum = 0;
    for (int i = 0; i < kLanes; i++) sum += double(lanes[i]);
    total += sum;
    lanes = splat(0.f);
  }
};

// Calls body(position, lanes in use) for each vector of the row, flush() after each block.
template <class Body, class Flush>
inline void for_blocks(int64_t n, Body body, Flush flush) {
  for (int64_t begin = 0; begin < n; begin += kSumBlock) {
    const int64_t end = begin + kSumBlock < n ? begin + kSumBlock : n;
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) body(i, kLanes);
    if (i < end) body(i, int(end - i));
    flush();
  }
}

inline Vec get(const float* p, int lanes, float fill) {
  return lanes == kLanes ? load(p) : load_part(p, lanes, fill);
}
inline void put(float* p, Vec v, int lanes) {
  if (lanes == kLanes)
    store(p, v);
  else
    store_part(p, v, lanes);
}

// Moves the exponentials of the positions left out of [i, i + lanes) to their place; returns the others.
inline Vec leave_out(const LeftOut& left_out, int64_t* next, int64_t i, int lanes, Vec e) {
  float lane[kLanes];
  store(lane, e);
  for (; *next < left_out.count && left_out.ids[*next] < i + lanes; ++*next) {
    const int at = int(left_out.ids[*next] - i);
    left_out.exponentials[*next] = lane[at];
    lane[at] = 0;
  }
  return load(lane);
}

template <Divergence kind>
inline void divergence_of(const BucketRow& row, float* c, BucketSums* sums) {
  DoubleSum loss, kl, coefficient;
  const Vec zero = splat(0.f), bound = splat(88.f), least = splat(1e-37f);
  const Vec a_scale = splat(row.a_scale), b_scale = splat(row.b_scale), shift = splat(row.shift);
  const Vec x_max = splat(row.x_max), y_max = splat(row.y_max), inv = splat(row.inv_temperature);
  const Vec alpha = splat(row.alpha), rest = splat(1.f - row.alpha), clip = splat(row.clip);
  for_blocks(
      row.n,
      [&](int64_t i, int lanes) {
        const Vec p = get(row.a + i, lanes, 0.f) * a_scale, t = get(row.b + i, lanes, 0.f) * b_scale;
        const Vec x = get(row.x + i, lanes, 0.f) - x_max, y = get(row.y + i, lanes, 0.f) - y_max;
        const Vec r = (y - x) * inv + shift;
        const Vec p_r = p > zero ? p * r : zero;
        kl.lanes -= p_r;
        Vec l, k;
        if (kind == Divergence::Forward) {
          l = t > zero ? t * r : zero;
          k = -t;
        } else if (kind == Divergence::Reverse) {
          l = -p_r;
          k = p - p_r;
        } else if (kind == Divergence::ClippedReverse) {
          const Vec cut = r < -clip ? -clip : r > clip ? clip : r;
          l = p > zero ? -p * cut : zero;
          k = l;
        } else {
          // With q the larger mass over M: log p - log M = log q - max(r, 0), and of the loss's two terms
          // only |r| times the smaller mass is left, which vanishes where that mass is no normal number.
          const Vec ratio = r > -bound ? (r < bound ? r : bound) : -bound;
          const Vec p_share = rest * p, t_share = alpha * t, mean = p_share + t_share;
          const Vec larger = p > t ? p : t;
          const Vec q = log_normal(larger / (mean < least ? least : mean));
          const Vec above = ratio > zero ? ratio : zero, below = ratio > zero ? zero : ratio;
          k = p_share * (q - above);
          l = mean * q - p_share * above + t_share * below;
        }
        loss.lanes += l;
        coefficient.lanes += k;
        put(c + i, k, lanes);
      },
      [&] {
        loss.flush();
        kl.flush();
        coefficient.flush();
      });
  *sums = {loss.total, kl.total, coefficient.total};
}

}  // namespace

void block_maxima(const float* z, int64_t n, float* maxima, float* max) {
  const float none = -__builtin_inff();
  float most = none;
  for (int64_t begin = 0; begin < n; begin += kMaximaBlock) {
    const int64_t end = begin + kMaximaBlock < n ? begin + kMaximaBlock : n;
    Vec m = splat(none);
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
      const Vec v = load(z + i);
      m = v > m ? v : m;
    }
    if (i < end) {
      const Vec v = load_part(z + i, int(end - i), none);
      m = v > m ? v : m;
    }
    const float largest = reduce_max(m);
    maxima[begin / kMaximaBlock] = largest;
    if (largest > most) most = largest;
  }
  *max = most;
}

void find_at_least(const float* z, int64_t n, float threshold, int32_t* found, int64_t* count) {
  int64_t hits = 0;
  for (int64_t i = 0; i < n; i++) {
    found[hits] = int32_t(i);
    hits += z[i] >= threshold;
  }
  *count = hits;
}

void exponentials(const LogitRow& row, const LeftOut& left_out, float* e, ExpSums* sums) {
  DoubleSum sum, weighted;
  const Vec max = splat(row.max), inv = splat(row.inv_temperature);
  int64_t next = 0;
  for_blocks(
      row.n,
      [&](int64_t i, int lanes) {
        const Vec x = (get(row.z + i, lanes, -__builtin_inff()) - max) * inv;
        Vec y = vexp_below(x);
        if (e) put(e + i, y, lanes);
        weighted.lanes += y * at_least(x, splat(kLeast));
        if (next < left_out.count && left_out.ids[next] < i + lanes)
          y = leave_out(left_out, &next, i, lanes, y);
        sum.lanes += y;
      },
      [&] {
        sum.flush();
        weighted.flush();
      });
  *sums = {sum.total, weighted.total};
}

void divergence(const BucketRow& row, float* c, BucketSums* sums) {
  switch (row.kind) {
    case Divergence::Forward:
      return divergence_of<Divergence::Forward>(row, c, sums);
    case Divergence::Reverse:
      return divergence_of<Divergence::Reverse>(row, c, sums);
    case Divergence::Jsd:
      return divergence_of<Divergence::Jsd>(row, c, sums);
    case Divergence::ClippedReverse:
      return divergence_of<Divergence::ClippedReverse>(row, c, sums);
  }
}

void combine(const float* c, float c_factor, const float* e, float e_factor, int64_t n, float* out) {
  const Vec cf = splat(c_factor), ef = splat(e_factor);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Vec scaled = load(e + i) * ef;
    store(out + i, c ? load(c + i) * cf - scaled : -scaled);
  }
  for (; i < n; i++) out[i] = (c ? c[i] * c_factor : 0.f) - e[i] * e_factor;
}

void mix_rows(const float* a, const float* b, float rate, int64_t n, float* out) {
  const float rest = 1.f - rate;
  for (int64_t i = 0; i < n; i++) out[i] = rest * a[i] + rate * b[i];
}

void widen_row(const uint16_t* bf16, int64_t n, float* out) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, load_bf16(bf16 + i));
  for (; i < n; i++) {
    const uint32_t bits = uint32_t(bf16[i]) << 16;
    std::memcpy(out + i, &bits, 4);
  }
}

}  // namespace SDPO_ISA
}  // namespace sdpo
