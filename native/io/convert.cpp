// One decoder for each format turns blocks into floats; `convert` runs it and stores f32 or bf16.
#include "io/convert.h"

#include <algorithm>
#include <iterator>
#include <limits>

#include "core/error.h"

namespace sdpo {
namespace {

constexpr int64_t kChunk = 256;  // the largest block

template <class T>
T load(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

float f16_to_f32(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, fraction = h & 0x3ffu;
  if (exponent == 0) {
    const float magnitude = float(fraction) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  const uint32_t bits = exponent == 31 ? sign | 0x7f800000u | (fraction << 13)
                                       : sign | ((exponent + 112u) << 23) | (fraction << 13);
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

float half_at(const uint8_t* p) { return f16_to_f32(load<uint16_t>(p)); }

void f32_block(const uint8_t* p, float* y) { std::memcpy(y, p, 4); }
void f16_block(const uint8_t* p, float* y) { *y = half_at(p); }
void bf16_block(const uint8_t* p, float* y) { *y = bf16_to_f32(load<uint16_t>(p)); }

// f16 d, 32 int8
void q8_0_block(const uint8_t* p, float* y) {
  const float d = half_at(p);
  for (int i = 0; i < 32; i++) y[i] = d * float(int8_t(p[2 + i]));
}

// f16 d, 32 x 4 bits: low halves are elements 0..15
void q4_0_block(const uint8_t* p, float* y) {
  const float d = half_at(p);
  for (int i = 0; i < 16; i++) {
    y[i] = d * float((p[2 + i] & 15) - 8);
    y[i + 16] = d * float((p[2 + i] >> 4) - 8);
  }
}

// f16 d, f16 minimum, 32 x 4 bits
void q4_1_block(const uint8_t* p, float* y) {
  const float d = half_at(p), m = half_at(p + 2);
  for (int i = 0; i < 16; i++) {
    y[i] = d * float(p[4 + i] & 15) + m;
    y[i + 16] = d * float(p[4 + i] >> 4) + m;
  }
}

// As Q4_0 and Q4_1, with 4 bytes of fifth bits before the 16 of low bits.
void five_bits(const uint8_t* p, float d, int center, float m, float* y) {
  const uint32_t high = load<uint32_t>(p);
  for (int i = 0; i < 16; i++) {
    y[i] = d * float((int(p[4 + i] & 15) | int((high >> i) & 1) << 4) - center) + m;
    y[i + 16] = d * float((int(p[4 + i] >> 4) | int((high >> (i + 16)) & 1) << 4) - center) + m;
  }
}
void q5_0_block(const uint8_t* p, float* y) { five_bits(p + 2, half_at(p), 16, -0.0f, y); }
void q5_1_block(const uint8_t* p, float* y) { five_bits(p + 4, half_at(p), 0, half_at(p + 2), y); }

// The scale and minimum (6 bits each) of group j of 8, packed in 12 bytes.
void k_scale(const uint8_t* p, int j, int& scale, int& minimum) {
  if (j < 4) {
    scale = p[j] & 63;
    minimum = p[j + 4] & 63;
  } else {
    scale = (p[j + 4] & 15) | ((p[j - 4] >> 6) << 4);
    minimum = (p[j + 4] >> 4) | ((p[j] >> 6) << 4);
  }
}

// f16 d, f16 dmin, 12 bytes of scales, then (Q5_K: 32 bytes of fifth bits and) 128 bytes of 4 bits, in 8
// groups of 32: x = d scale q - dmin minimum.
void k_block(const uint8_t* p, const uint8_t* high, const uint8_t* low, float* y) {
  const float d = half_at(p), dmin = half_at(p + 2);
  for (int group = 0; group < 8; group++) {
    int scale, minimum;
    k_scale(p + 4, group, scale, minimum);
    const float a = d * float(scale), b = dmin * float(minimum);
    const uint8_t* q = low + group / 2 * 32;
    for (int i = 0; i < 32; i++) {
      int value = group % 2 ? q[i] >> 4 : q[i] & 15;
      if (high) value |= ((high[i] >> group) & 1) << 4;
      y[group * 32 + i] = a * float(value) - b;
    }
  }
}

void q4_k_block(const uint8_t* p, float* y) { k_block(p, nullptr, p + 16, y); }
void q5_k_block(const uint8_t* p, float* y) { k_block(p, p + 16, p + 48, y); }

// 128 bytes of low 4 bits, 64 of high 2 bits, 16 int8 scales, f16 d; x = d scale (q - 32)
void q6_k_block(const uint8_t* p, float* y) {
  const float d = half_at(p + 208);
  for (int half = 0; half < 2; half++) {
    const uint8_t *low = p + half * 64, *high = p + 128 + half * 32, *scales = p + 192 + half * 8;
    for (int i = 0; i < 128; i++) {
      const int quarter = i / 32, column = i % 32;
      const uint8_t byte = low[column + quarter % 2 * 32];
      const int nibble = quarter < 2 ? byte & 15 : byte >> 4;
      const int value = nibble | (((high[column] >> (2 * quarter)) & 3) << 4);
      y[half * 128 + i] = d * float(int8_t(scales[i / 16])) * float(value - 32);
    }
  }
}

struct Format {
  const char* name;
  int64_t elements, bytes;  // of a block
  void (*decode)(const uint8_t*, float*);
};

constexpr Format kFormats[] = {
    {"F32", 1, 4, f32_block},       {"F16", 1, 2, f16_block},       {"BF16", 1, 2, bf16_block},
    {"Q8_0", 32, 34, q8_0_block},   {"Q4_0", 32, 18, q4_0_block},   {"Q4_1", 32, 20, q4_1_block},
    {"Q5_0", 32, 22, q5_0_block},   {"Q5_1", 32, 24, q5_1_block},   {"Q4_K", 256, 144, q4_k_block},
    {"Q5_K", 256, 176, q5_k_block}, {"Q6_K", 256, 210, q6_k_block},
};

const Format& format_of(SourceType type) { return kFormats[size_t(type)]; }

}  // namespace

SourceType source_type(const std::string& name) {
  for (size_t i = 0; i < std::size(kFormats); i++)
    if (name == kFormats[i].name) return SourceType(i);
  throw Error("ERR_SDPO_FILE",
              str("cannot read tensors of type ", name,
                  "; supported: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K"));
}

const char* source_name(SourceType type) { return format_of(type).name; }

int64_t source_block_elements(SourceType type) { return format_of(type).elements; }

int64_t source_bytes(SourceType type, int64_t elements) {
  const Format& format = format_of(type);
  if (elements < 0 || elements % format.elements != 0)
    throw Error("ERR_SDPO_FILE",
                str(elements, " elements are not whole ", format.name, " blocks of ", format.elements));
  const int64_t blocks = elements / format.elements;
  if (blocks > std::numeric_limits<int64_t>::max() / format.bytes)
    throw Error("ERR_SDPO_FILE", str(elements, " elements of ", format.name, " are too many"));
  return blocks * format.bytes;
}

void convert(SourceType type, const uint8_t* src, int64_t elements, DType dst, void* out) {
  const int64_t bytes = source_bytes(type, elements);
  if (dst != DType::F32 && dst != DType::BF16)
    throw Error("ERR_SDPO_ARGUMENT",
                str("cannot convert weights to ", dtype_name(dst), "; expected f32 or bf16"));
  const bool same =
      (type == SourceType::F32 && dst == DType::F32) || (type == SourceType::BF16 && dst == DType::BF16);
  if (same) {
    if (bytes) std::memcpy(out, src, size_t(bytes));
    return;
  }
  const Format& format = format_of(type);
  float chunk[kChunk];
  for (int64_t done = 0; done < elements; done += kChunk) {
    const int64_t count = std::min(kChunk, elements - done);
    float* y = dst == DType::F32 ? static_cast<float*>(out) + done : chunk;
    for (int64_t i = 0; i < count; i += format.elements, src += format.bytes) format.decode(src, y + i);
    if (dst == DType::BF16) std::transform(y, y + count, static_cast<uint16_t*>(out) + done, f32_to_bf16);
  }
}

}  // namespace sdpo
