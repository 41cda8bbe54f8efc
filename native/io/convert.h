// Element formats of model files, and their conversion to f32 or bf16.
// Source: the block layouts of ggml (Q8_0 ... Q6_K) and IEEE 754. bf16 rounds to nearest even; NaN stays NaN.
// Deterministic: a quantised value has one inexact operation at most, so fused multiply-add changes nothing.
#pragma once
#include <cstdint>
#include <string>

#include "core/dtype.h"

namespace sdpo {

enum class SourceType { F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K };

// The type of that name ("F32", "Q4_K", ...); throws ERR_SDPO_FILE for any other.
SourceType source_type(const std::string& name);
const char* source_name(SourceType type);
int64_t source_block_elements(SourceType type);

// Bytes of that many elements; throws ERR_SDPO_FILE unless they are whole blocks and their bytes fit 63 bits.
int64_t source_bytes(SourceType type, int64_t elements);

// Converts `elements` (whole blocks) from src, which needs no alignment, to out of dtype F32 or BF16.
void convert(SourceType type, const uint8_t* src, int64_t elements, DType dst, void* out);

}  // namespace sdpo
