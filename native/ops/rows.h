// Copies and sums of whole rows by index; each index is checked.
#pragma once
#include <cstdint>

#include "core/dtype.h"

namespace sdpo {

// Throws Error "<name>: row 3: 97 is outside [0, 64)".
void check_indices(const char* name, const int32_t* index, int64_t n, int64_t size);

// y[i] = table[index[i]], rows of d elements; table float32 or bfloat16.
void copy_rows(const void* table, DType dtype, const int32_t* index, int64_t n, int64_t d, float* y);

// table[index[i]] += x[i], for each element in the order of i.
void add_rows(const float* x, const int32_t* index, int64_t n, int64_t d, float* table);

}  // namespace sdpo
