// What the attention ops share: the segment table of a packed batch, checked.
// A segment is a row (start, length, parent or -1, position of the first token). Its tokens are rows
// [start, start + length); they see the tokens of the segment's ancestors and, up to themselves, those of the
// segment. Parents come before their children; every row is in one segment.
#pragma once
#include <cstdint>
#include <vector>

#include "ops/schema.h"

namespace sdpo {

struct Segment {
  int64_t start, length, parent, position;
};

// Throws Error with the segment and what is wrong with it: rows outside [0, rows), rows in two segments or
// in none, a parent that does not come before, a position that does not continue the parent's.
std::vector<Segment> read_segments(const sdpo_tensor& table, int64_t rows);

// H, K and E are at least 1 and H is a multiple of K; throws Error.
void check_attention_sizes(const Dims& dims);

// The attribute `scale`: null means 1 / sqrt(E).
float attention_scale(const Call& call, int attribute, int64_t width);

// The segment's ancestors, root first, and the segment itself.
std::vector<int64_t> segment_chain(const std::vector<Segment>& segments, int64_t index);

// Segments by tree: those with the same root, in order.
std::vector<std::vector<int64_t>> segment_trees(const std::vector<Segment>& segments);

}  // namespace sdpo
