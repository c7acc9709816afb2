// Products of matrices, C = A B, by tiles that stay in the registers.
//
// A tile is kRows rows of C and a panel of two vectors of its columns: with AVX-512 12 x 32 numbers
// in 24 of the 32 registers, which take 2 loads of B and 12 of A for 24 multiply-adds. B is packed
// panel by panel, so that a tile reads it as one stream (Goto and van de Geijn, 2008); the rows of A
// and C may lie anywhere. An element of C is summed up in the order of the depth, one multiply-add
// after the other, whatever the tile it lies in: how rows are shared out changes no digit.
//
// Sums are float32. What the factors are, A's and B's numbers, a parameter says: Floats, or the Pairs
// of matmul_bf16.h. Either come as words of 32 bits, and a depth is told in words.
#pragma once

#include <algorithm>
#include <cstdint>

#include "vector.h"

namespace seqlab {

constexpr int kRows = kRegisters == 32 ? 12 : kWidth == 8 ? 6 : 4;
constexpr int64_t kPanel = 2 * kWidth;

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

inline int64_t panels(int64_t columns) { return (columns + kPanel - 1) / kPanel; }

// How many numbers a packed matrix has. Only its last panel may be one vector wide.
inline int64_t packed_size(int64_t depth, int64_t columns) {
  return depth * round_up(columns, kWidth);
}

// Columns of a panel with the filling at the end of the matrix.
inline int64_t panel_width(int64_t panel, int64_t columns) {
  return std::min(kPanel, round_up(columns - panel * kPanel, kWidth));
}

// Packs a panel of `b (depth, columns)`, row by row.
inline void pack_panel(const float* b, int64_t stride, int64_t depth, int64_t columns,
                       int64_t panel, float* packed) {
  const int64_t width = panel_width(panel, columns), first = panel * kPanel;
  for (int64_t k = 0; k < depth; ++k)
    for (int64_t j = 0; j < width; j += kWidth) {
      const int64_t left = columns - first - j;
      const float* from = b + k * stride + first + j;
      store(packed + k * width + j,
            left >= kWidth ? load(from) : load_some(from, static_cast<int>(left), 0.0f));
    }
}

// The numbers of two vectors in turns: a0 b0 a1 b1 ..., the first half of them in `low`.
inline void interleave(Vec a, Vec b, Vec& low, Vec& high) {
  IVec first, second;
  for (int i = 0; i < kWidth; ++i) {
    first[i] = i / 2 + i % 2 * kWidth;
    second[i] = first[i] + kWidth / 2;
  }
#if defined(__clang__)
  for (int i = 0; i < kWidth; ++i) {
    low[i] = i % 2 ? b[i / 2] : a[i / 2];
    high[i] = i % 2 ? b[(i + kWidth) / 2] : a[(i + kWidth) / 2];
  }
#else
  low = __builtin_shuffle(a, b, first);
  high = __builtin_shuffle(a, b, second);
#endif
}

// Turns a square of kWidth vectors over its diagonal, by as many rounds as halve it.
inline void transpose(Vec (&square)[kWidth]) {
  for (int round = 1; round < kWidth; round *= 2) {
    Vec next[kWidth];
#pragma GCC unroll 8
    for (int i = 0; i < kWidth / 2; ++i)
      interleave(square[i], square[i + kWidth / 2], next[2 * i], next[2 * i + 1]);
#pragma GCC unroll 16
    for (int i = 0; i < kWidth; ++i) square[i] = next[i];
  }
}

// Copies `from (rows, columns)`, of which `take` gives a vector at a row and a column, to
// `to (columns, rows)`. Where it is filled, `to` has room for whole vectors, and what is not a row of
// `from` becomes 0.
template <typename Take>
inline void copy_transposed(const Take& take, int64_t rows, int64_t columns, float* to,
                            int64_t to_stride, bool fill) {
  for (int64_t i = 0; i < rows; i += kWidth)
    for (int64_t j = 0; j < columns; j += kWidth) {
      const int height = static_cast<int>(std::min<int64_t>(kWidth, rows - i));
      const int width = static_cast<int>(std::min<int64_t>(kWidth, columns - j));
      Vec square[kWidth];
      for (int r = 0; r < kWidth; ++r) square[r] = r < height ? take(i + r, j) : Vec{};
      transpose(square);
      for (int c = 0; c < width; ++c) {
        float* row = to + (j + c) * to_stride + i;
        if (fill || height == kWidth)
          store(row, square[c]);
        else
          store_some(row, square[c], height);
      }
    }
}

inline void copy_transposed(const float* from, int64_t from_stride, int64_t rows, int64_t columns,
                            float* to, int64_t to_stride, bool fill) {
  const auto take = [=](int64_t i, int64_t j) {
    return load_up_to(from + i * from_stride + j, columns - j);
  };
  copy_transposed(take, rows, columns, to, to_stride, fill);
}

// Factors in float32, a word each.
struct Floats {
  static constexpr int64_t kNumbers = 1;  // of a word
  static int64_t words(int64_t numbers) { return numbers; }

  // Adds the products of a word, given everywhere, and those of a vector.
  static Vec spread(const float* word) { return splat(*word); }
  static Vec add_product(Vec left, Vec right, Vec sum) { return left * right + sum; }

  // Writes numbers of a row from number j on, of which `left` are to come.
  static void put(float* row, int64_t j, Vec numbers, int64_t left) {
    store_up_to(row + j, numbers, left);
  }
  // Writes a row, which has room for whole vectors.
  static void put_row(const float* from, int64_t numbers, float* row) {
    std::copy_n(from, numbers, row);
  }
  // Makes a row of words that stand below one another of kNumbers rows of numbers, which lie
  // `columns` apart.
  static void join(const float* rows, int64_t columns, float* words) {
    std::copy_n(rows, columns, words);
  }

  static void pack_panel(const float* b, int64_t depth, int64_t columns, int64_t panel,
                         float* packed) {
    seqlab::pack_panel(b, columns, depth, columns, panel, packed);
  }
  // Packs a panel of the transpose of `b (columns, depth)`.
  static void pack_panel_transposed(const float* b, int64_t depth, int64_t columns, int64_t panel,
                                    float* packed) {
    const int64_t first = panel * kPanel;
    copy_transposed(b + first * depth, depth, std::min(kPanel, columns - first), depth, packed,
                    panel_width(panel, columns), true);
  }
  // Packs a panel of rows that were put, `stride` words apart; `depth` is how many rows there are.
  static void pack_rows(const float* rows, int64_t stride, int64_t depth, int64_t columns,
                        int64_t panel, float* packed) {
    seqlab::pack_panel(rows, stride, depth, columns, panel, packed);
  }
};

// Where a product goes: `columns` columns from `column` on of the rows, which it is added to, or
// which become it and the bias (none if null).
struct Target {
  float* const* rows;
  int64_t column;
  int64_t columns;
  bool add;
  const float* bias;
};

template <int V>
inline void put(const Target& to, int64_t row, const Vec (&sums)[V]) {
  float* c = to.rows[row] + to.column;
#pragma GCC unroll 2
  for (int v = 0; v < V; ++v) {
    const int64_t left = to.columns - v * kWidth;
    if (left >= kWidth) {
      Vec sum = sums[v];
      if (to.add) sum = load(c + v * kWidth) + sum;
      if (to.bias) sum = sum + load(to.bias + to.column + v * kWidth);
      store(c + v * kWidth, sum);
    } else if (left > 0) {
      const int n = static_cast<int>(left);
      Vec sum = sums[v];
      if (to.add) sum = load_some(c + v * kWidth, n, 0.0f) + sum;
      if (to.bias) sum = sum + load_some(to.bias + to.column + v * kWidth, n, 0.0f);
      store_some(c + v * kWidth, sum, n);
    }
  }
}

// One tile of R rows and V vectors. Of A either the rows are given, or, kPacked, their numbers at the
// same depth lie side by side, kRows for each depth.
template <typename Factors, int R, int V, bool kPacked>
void tile(int64_t depth, const float* const* a, int64_t first, const float* b, const Target& to) {
  Vec sums[R][V] = {};
  const float* row[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) row[r] = kPacked ? a[0] + r : a[first + r];
  if (to.add) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {  // they are wanted in a few thousand cycles
      const float* c = to.rows[first + r] + to.column;
      __builtin_prefetch(c, 1);
      __builtin_prefetch(c + (kPanel - 1), 1);
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    Vec right[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) right[v] = load(b + (k * V + v) * kWidth);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vec left = Factors::spread(kPacked ? row[0] + k * kRows + r : row[r] + k);
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sums[r][v] = Factors::add_product(left, right[v], sums[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) put<V>(to, first + r, sums[r]);
}

using Tile = void (*)(int64_t, const float* const*, int64_t, const float*, const Target&);

template <typename Factors, int V, bool kPacked, int R = kRows>
inline Tile tile_of(int64_t rows) {
  if constexpr (R > 1) {
    if (rows < R) return tile_of<Factors, V, kPacked, R - 1>(rows);
  }
  return tile<Factors, R, V, kPacked>;
}

// Multiplies `rows` rows by a packed panel, tile by tile.
template <typename Factors>
void multiply(int64_t depth, const float* const* a, int64_t rows, const float* panel,
              const Target& to) {
  const int64_t tiles = (rows + kRows - 1) / kRows;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t first = rows * i / tiles, count = rows * (i + 1) / tiles - first;
    const Tile one = to.columns > kWidth ? tile_of<Factors, 2, false>(count)
                                           : tile_of<Factors, 1, false>(count);
    one(depth, a, first, panel, to);
  }
}

// The same for all columns of a packed matrix.
template <typename Factors>
void multiply_all(int64_t depth, const float* const* a, int64_t rows, const float* packed,
                  int64_t columns, float* const* c, bool add, const float* bias) {
  for (int64_t first = 0; first < columns; first += kPanel)
    multiply<Factors>(depth, a, rows, packed + depth * first,
                      {c, first, std::min(kPanel, columns - first), add, bias});
}

}  // namespace seqlab
