// Rows are independent: each thread converts a range of them.
#include "io/read_tensor.h"

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "core/parallel.h"

namespace sdpo {
namespace {

constexpr int64_t kGrainElements = 65536;

// The row of the file that holds row `row` of the result.
int64_t stored_row(int64_t row, int64_t head_dim) {
  if (head_dim == 0) return row;
  const int64_t within = row % head_dim, half = head_dim / 2;
  return row - within + within % half * 2 + within / half;
}

void check(const MappedFile& file, const TensorSource& s) {
  const bool overflow = s.columns > 0 && s.rows > std::numeric_limits<int64_t>::max() / s.columns;
  if (s.rows < 0 || s.columns < 0 || overflow)
    throw Error("ERR_SDPO_FILE",
                str(file.path(), ": no tensor has the shape [", s.rows, ", ", s.columns, "]"));
  source_bytes(s.type, s.columns);
  const int64_t bytes = source_bytes(s.type, s.rows * s.columns);
  if (bytes != s.bytes)
    throw Error("ERR_SDPO_FILE", str(file.path(), ": ", source_name(s.type), " [", s.rows, ", ", s.columns,
                                     "] is ", bytes, " bytes, not ", s.bytes));
  if (s.paired_head_dim < 0 || s.paired_head_dim % 2 != 0 ||
      (s.paired_head_dim > 0 && s.rows % s.paired_head_dim != 0))
    throw Error("ERR_SDPO_FILE",
                str(file.path(), ": ", s.rows, " rows are not whole heads of ", s.paired_head_dim));
}

}  // namespace

void read_tensor(const MappedFile& file, const TensorSource& source, DType dst, void* out) {
  check(file, source);
  const uint8_t* src = file.range(source.offset, source.bytes);
  const int64_t row_bytes = source_bytes(source.type, source.columns);
  const int64_t out_row_bytes = source.columns * dtype_bytes(dst);
  const int64_t grain = std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, source.columns));
  parallel_for(source.rows, grain, [&](int64_t begin, int64_t end) {
    uint8_t* to = static_cast<uint8_t*>(out) + begin * out_row_bytes;
    if (source.paired_head_dim == 0) {
      convert(source.type, src + begin * row_bytes, (end - begin) * source.columns, dst, to);
      return;
    }
    for (int64_t row = begin; row < end; row++, to += out_row_bytes)
      convert(source.type, src + stored_row(row, source.paired_head_dim) * row_bytes, source.columns, dst,
              to);
  });
}

}  // namespace sdpo
