// What a warp does together when its last lane has arrived.
#include <cstring>

#include "backends/device.cuh"

namespace sdpo::simt {

void vote_lanes(uint32_t lanes, void* const* values) {
  uint32_t votes = 0;
  for (unsigned lane = 0; lane < 32; lane++)
    if (lanes >> lane & 1 && static_cast<Vote*>(values[lane])->in) votes |= 1u << lane;
  for (unsigned lane = 0; lane < 32; lane++)
    if (lanes >> lane & 1) static_cast<Vote*>(values[lane])->out = votes;
}

void meet_lanes(uint32_t, void* const*) {}

namespace {

float half(const uint32_t* registers, int i) { return __uint_as_float(registers[i / 2] >> i % 2 * 16 << 16); }

}  // namespace

// Fragments as the PTX manual lays them out: a 16 x 16, b 16 x 8, c 16 x 8.
void mma_lanes(uint32_t, void* const* values) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < 32; lane++) {
    const auto& own = *static_cast<Product*>(values[lane]);
    for (int i = 0; i < 8; i++)
      a[lane / 4 + i / 2 % 2 * 8][lane % 4 * 2 + i % 2 + i / 4 * 8] = half(own.a, i);
    for (int i = 0; i < 4; i++) b[lane % 4 * 2 + i % 2 + i / 2 * 8][lane / 4] = half(own.b, i);
  }
  for (int lane = 0; lane < 32; lane++) {
    const auto& own = *static_cast<Product*>(values[lane]);
    for (int i = 0; i < 4; i++) {
      const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      float sum = own.c[i];
      for (int k = 0; k < 16; k++) sum += a[row][k] * b[k][column];
      own.c[i] = sum;
    }
  }
}

// Lane 8 m + r gives the address of row r of 8 x 8 matrix m; every lane gets two elements of each.
void ldmatrix_lanes(uint32_t, void* const* values) {
  uint16_t matrices[4][8][8];
  for (int lane = 0; lane < 32; lane++) {
    const auto& own = *static_cast<MatrixLoad*>(values[lane]);
    check_aligned(own.row, "ldmatrix_x4", own.site);
    checker::access(own.row, 16, checker::Access::Read, own.site);
    std::memcpy(matrices[lane / 8][lane % 8], own.row, 16);
  }
  for (int lane = 0; lane < 32; lane++) {
    const auto& own = *static_cast<MatrixLoad*>(values[lane]);
    for (int m = 0; m < 4; m++) {
      uint32_t pair = 0;
      for (int i = 0; i < 2; i++) {
        const int row = lane / 4, column = lane % 4 * 2 + i;
        pair |= uint32_t(own.transposed ? matrices[m][column][row] : matrices[m][row][column]) << 16 * i;
      }
      own.to[m] = pair;
    }
  }
}

}  // namespace sdpo::simt
