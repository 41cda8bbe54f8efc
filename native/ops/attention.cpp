#include "ops/attention.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace sdpo {
namespace {

[[noreturn]] void refuse(int64_t index, const std::string& what) {
  throw Error("ERR_SDPO_OP", str("segments[", index, "]: ", what));
}

void check(const std::vector<Segment>& segments, int64_t index, int64_t rows) {
  const Segment& s = segments[size_t(index)];
  if (s.start < 0 || s.length < 0 || s.start + s.length > rows)
    refuse(index, str("start ", s.start, ", length ", s.length, ": expected rows within the batch's ", rows));
  if (s.parent < -1 || s.parent >= index)
    refuse(index, str("parent ", s.parent, ": expected -1 or an earlier segment"));
  if (s.position < 0 || s.position + s.length > INT32_MAX)
    refuse(index, str("position ", s.position, ": expected 0 or more, the last below 2^31"));
  if (s.parent < 0) return;
  const Segment& parent = segments[size_t(s.parent)];
  const int64_t expected = parent.position + parent.length;
  if (s.position != expected)
    refuse(index, str("position ", s.position, ": expected ", expected, ", where its parent, segment ",
                      s.parent, ", ends"));
}

void check_cover(const std::vector<Segment>& segments, int64_t rows) {
  std::vector<int64_t> owner(size_t(rows), -1);
  for (size_t i = 0; i < segments.size(); i++)
    for (int64_t row = segments[i].start; row < segments[i].start + segments[i].length; row++) {
      if (owner[size_t(row)] >= 0)
        refuse(int64_t(i), str("row ", row, " is also in segment ", owner[size_t(row)]));
      owner[size_t(row)] = int64_t(i);
    }
  const auto bare = std::find(owner.begin(), owner.end(), -1);
  if (bare != owner.end())
    throw Error("ERR_SDPO_OP",
                str("segments: row ", bare - owner.begin(), " of ", rows, " is in no segment"));
}

}  // namespace

void check_attention_sizes(const Dims& dims) {
  const int64_t heads = dims.at("H"), kv_heads = dims.at("K"), width = dims.at("E");
  if (heads < 1 || kv_heads < 1 || width < 1 || heads % kv_heads)
    throw Error("ERR_SDPO_OP", str("heads H = ", heads, ", kv heads K = ", kv_heads, ", width E = ", width,
                                   ": expected at least 1 of each and H a multiple of K"));
}

float attention_scale(const Call& call, int attribute, int64_t width) {
  return call.is_null(attribute) ? 1 / std::sqrt(float(width)) : float(call.number(attribute));
}

std::vector<Segment> read_segments(const sdpo_tensor& table, int64_t rows) {
  const auto* values = static_cast<const int32_t*>(table.data);
  std::vector<Segment> segments;
  for (int64_t i = 0; i < table.shape[0]; i++, values += 4) {
    segments.push_back({values[0], values[1], values[2], values[3]});
    check(segments, i, rows);
  }
  check_cover(segments, rows);
  return segments;
}

std::vector<int64_t> segment_chain(const std::vector<Segment>& segments, int64_t index) {
  std::vector<int64_t> chain;
  for (; index >= 0; index = segments[size_t(index)].parent) chain.push_back(index);
  std::reverse(chain.begin(), chain.end());
  return chain;
}

std::vector<std::vector<int64_t>> segment_trees(const std::vector<Segment>& segments) {
  std::vector<std::vector<int64_t>> trees;
  std::vector<size_t> tree_of;
  for (size_t i = 0; i < segments.size(); i++) {
    const int64_t parent = segments[i].parent;
    tree_of.push_back(parent < 0 ? trees.size() : tree_of[size_t(parent)]);
    if (parent < 0) trees.emplace_back();
    trees[tree_of[i]].push_back(int64_t(i));
  }
  return trees;
}

}  // namespace sdpo
