// A tensor of a model file, read and converted in parallel.
#pragma once
#include "io/convert.h"
#include "io/mapped_file.h"

namespace sdpo {

// Where a row-major [rows, columns] tensor lies in its file; a row is whole blocks of the source type.
struct TensorSource {
  SourceType type;
  int64_t offset, bytes, rows, columns;
  // Not 0: rows are in pairs (x0, y0, x1, y1, ...) within each head of this many rows, as GGUF stores the
  // query and key projections of llama, and are put in halves (x0, x1, ..., y0, y1, ...), as Hugging Face has
  // them.
  int64_t paired_head_dim = 0;
};

// Fills out, rows * columns elements of dtype F32 or BF16. Throws ERR_SDPO_FILE where sizes do not agree.
// Deterministic whatever the number of threads.
void read_tensor(const MappedFile& file, const TensorSource& source, DType dst, void* out);

}  // namespace sdpo
