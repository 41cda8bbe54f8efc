// sample: one token for each row of logits [N,V]. With (temperature, top_p, min_p) = parameters[row]:
//   temperature 0: the largest logit, the lowest id among equals; else z = logits / temperature, of which
//   top_k (0: all), then top_p (1: all), then min_p (0: all) leave a set of the most probable tokens, the
//   lower id first among equals: top_k tokens; the fewest whose mass, among those left, reaches top_p; those
//   at least min_p times as probable as the first. One is drawn by inverse CDF in the order of ids.
// logprobs: log softmax(z) of the token before any token is left out (temperature 1 where it is 0).
// counters [N,6]: Philox key (2 words) and counter (4); the first word of the block is the uniform number.
// Each row depends on its own inputs alone. Masses are double sums of float32 weights.
// philox: the four words of each row's block.
#include "ops/sample.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/parallel.h"
#include "core/philox.h"
#include "ops/schema.h"

namespace sdpo {
namespace {

constexpr int kBands = 1024;
constexpr float kBandsPerUnit = 16;  // bands of z

struct Candidate {
  float logit, weight;
  int32_t id;
};

bool more_probable(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

struct Row {
  int64_t index, vocabulary;
  const float* logits;
  float temperature, top_p, min_p;
  int64_t top_k;
};

[[noreturn]] void refuse(const Row& row, const char* name, const std::string& what) {
  throw Error("ERR_SDPO_OP", str(name, ": row ", row.index, ": ", what));
}

void check_row(const Row& row) {
  if (!(row.temperature >= 0 && row.temperature <= std::numeric_limits<float>::max()))
    refuse(row, "parameters", str("temperature: expected a finite number from 0, got ", row.temperature));
  if (!(row.top_p > 0 && row.top_p <= 1))
    refuse(row, "parameters", str("top_p: expected a number in (0, 1], got ", row.top_p));
  if (!(row.min_p >= 0 && row.min_p <= 1))
    refuse(row, "parameters", str("min_p: expected a number in [0, 1], got ", row.min_p));
  if (row.top_k < 0) refuse(row, "top_k", str("expected at least 0, got ", row.top_k));
}

PhiloxWords philox_row(const int32_t* words) {
  const auto at = [&](int i) { return uint32_t(words[i]); };
  return philox({at(2), at(3), at(4), at(5)}, at(0), at(1));
}

double total_weight(const std::vector<Candidate>& candidates) {
  double sum = 0;
  for (const Candidate& c : candidates) sum += double(c.weight);
  return sum;
}

// Leaves the fewest most probable candidates whose weights reach `mass` (all, where they do not), the least
// probable one last: bisection with nth_element.
void keep_mass(std::vector<Candidate>& candidates, double mass) {
  auto begin = candidates.begin(), end = candidates.end();
  while (end - begin > 1) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, more_probable);
    double upper = 0;
    for (auto c = begin; c != middle; ++c) upper += double(c->weight);
    if (upper >= mass) {
      end = middle;
    } else {
      mass -= upper;
      begin = middle;
    }
  }
  candidates.erase(end, candidates.end());
}

// Working memory of a thread, for rows of one length.
class Sampler {
 public:
  explicit Sampler(int64_t vocabulary)
      : chunks_((vocabulary + kSampleChunk - 1) / kSampleChunk),
        maxima_(size_t(chunks_)),
        sums_(size_t(chunks_)),
        weights_(size_t(vocabulary)) {}

  void run(const Row& row, double uniform, int32_t* id, float* logprob) {
    const float most = largest(row);
    const bool greedy = row.temperature == 0;
    const float temperature = greedy ? 1.f : row.temperature;
    chunk_weights(row.logits, row.vocabulary, most, temperature, weights_.data(), sums_.data());
    double total = 0;
    for (double sum : sums_) total += sum;
    if (!greedy && (top_k_of(row) || row.top_p < 1 || row.min_p > 0)) truncate(row, most);
    *id = int32_t(greedy ? std::find(row.logits, row.logits + row.vocabulary, most) - row.logits
                         : draw(row, uniform));
    *logprob = float(double(row.logits[*id] - most) / double(temperature) - std::log(total));
  }

 private:
  static int64_t top_k_of(const Row& row) { return row.top_k < row.vocabulary ? row.top_k : 0; }

  float largest(const Row& row) {
    bool nan = false;
    chunk_maxima(row.logits, row.vocabulary, maxima_.data(), &nan);
    if (nan) refuse(row, "logits", "NaN");
    const float most = *std::max_element(maxima_.begin(), maxima_.end());
    if (!std::isfinite(most))
      refuse(row, "logits", str("the largest is ", most, ", expected a finite number"));
    return most;
  }

  // The top_k most probable tokens, the least probable one last.
  void keep_most_probable(const Row& row, int64_t k) {
    // k chunks have a maximum, hence the row has k logits, at least as large as the k-th largest maximum.
    float floor = -std::numeric_limits<float>::infinity();
    if (k <= chunks_) {
      std::nth_element(maxima_.begin(), maxima_.begin() + (k - 1), maxima_.end(), std::greater<float>());
      floor = maxima_[size_t(k - 1)];
    }
    for (int64_t i = 0; i < row.vocabulary; i++)
      if (row.logits[i] >= floor) candidates_.push_back({row.logits[i], weights_[size_t(i)], int32_t(i)});
    std::nth_element(candidates_.begin(), candidates_.begin() + (k - 1), candidates_.end(), more_probable);
    candidates_.resize(size_t(k));
  }

  // Of the whole row, the last tokens that top_p needs: those more probable than their band of logits all
  // stay.
  void keep_band(const Row& row, float most) {
    const float scale = std::min(kBandsPerUnit / row.temperature, std::numeric_limits<float>::max());
    const auto band = [&](float logit) {
      const float place = (most - logit) * scale;
      return place < float(kBands - 1) ? int(place) : kBands - 1;
    };
    double masses[kBands] = {};
    for (int64_t i = 0; i < row.vocabulary; i++) masses[band(row.logits[i])] += double(weights_[size_t(i)]);
    // The total of these very sums: with another rounding, no band might reach the mass.
    double mass = 0;
    for (double m : masses) mass += m;
    mass *= double(row.top_p);
    int crossing = 0;
    for (; crossing < kBands - 1 && masses[crossing] < mass; crossing++) mass -= masses[crossing];
    for (int64_t i = 0; i < row.vocabulary; i++)
      if (band(row.logits[i]) == crossing)
        candidates_.push_back({row.logits[i], weights_[size_t(i)], int32_t(i)});
    keep_mass(candidates_, mass);
  }

  // Sets the weights of what is left out to 0.
  void truncate(const Row& row, float most) {
    candidates_.clear();
    if (const int64_t k = top_k_of(row)) {
      keep_most_probable(row, k);
      if (row.top_p < 1) keep_mass(candidates_, double(row.top_p) * total_weight(candidates_));
    } else if (row.top_p < 1) {
      keep_band(row, most);
    } else {
      candidates_.push_back(
          {-std::numeric_limits<float>::infinity(), 0, std::numeric_limits<int32_t>::max()});
    }
    const Candidate& last = candidates_.back();
    cut_weights(row.logits, row.vocabulary, last.logit, last.id, row.min_p, weights_.data(), sums_.data());
  }

  int64_t draw(const Row& row, double uniform) const {
    double total = 0, passed = 0;
    for (double sum : sums_) total += sum;
    const double target = uniform * total;
    int64_t chunk = 0;
    for (; chunk < chunks_ - 1 && !(passed + sums_[chunk] > target); chunk++) passed += sums_[chunk];
    // Rounding may leave the target unreached in the chunk: then its last token with a weight is it.
    int64_t id = 0;
    const int64_t end = std::min(row.vocabulary, (chunk + 1) * kSampleChunk);
    for (int64_t i = chunk * kSampleChunk; i < end; i++) {
      if (weights_[i] == 0) continue;
      id = i;
      passed += double(weights_[i]);
      if (passed > target) break;
    }
    return id;
  }

  int64_t chunks_;
  std::vector<float> maxima_;
  std::vector<double> sums_;
  std::vector<float> weights_;
  std::vector<Candidate> candidates_;
};

void sample(const Call& call) {
  const int64_t rows = call.in(0).shape[0], vocabulary = call.in(0).shape[1];
  const float* parameters = call.in_as<float>(1);
  if (vocabulary == 0) throw Error("ERR_SDPO_OP", "logits: expected at least one column");
  parallel_for(rows, 1, [&](int64_t begin, int64_t end) {
    Sampler sampler(vocabulary);
    for (int64_t r = begin; r < end; r++) {
      const float* p = parameters + r * 3;
      const Row row{
          r, vocabulary, call.in_as<float>(0) + r * vocabulary, p[0], p[1], p[2], call.in_as<int32_t>(2)[r]};
      check_row(row);
      const double uniform = philox_uniform(philox_row(call.in_as<int32_t>(3) + r * 6)[0]);
      sampler.run(row, uniform, call.out_as<int32_t>(0) + r, call.out_as<float>(1) + r);
    }
  });
}

void philox_words(const Call& call) {
  for (int64_t r = 0; r < call.in(0).shape[0]; r++) {
    const PhiloxWords words = philox_row(call.in_as<int32_t>(0) + r * 6);
    for (int i = 0; i < 4; i++) call.out_as<int32_t>(0)[r * 4 + i] = int32_t(words[size_t(i)]);
  }
}

SDPO_OP(sample)
    .input("logits", "f32", "N,V")
    .input("parameters", "f32", "N,3")
    .input("top_k", "i32", "N")
    .input("counters", "i32", "N,6")
    .output("ids", "i32", "N")
    .output("logprobs", "f32", "N")
    .cpu<sample>();

SDPO_OP(philox).input("counters", "i32", "N,6").output("words", "i32", "N,4").cpu<philox_words>();

}  // namespace
}  // namespace sdpo
