// Factors in bfloat16: float32 with 8 bits of mantissa in place of 24.
//
// A word holds the two numbers that follow one another in depth. Where the machine has AVX512_BF16,
// one instruction multiplies both with another pair and adds them to a sum in float32, the first one
// first: twice the products of a multiply-add in float32. Numbers are rounded to the nearest, ties to
// even; those too small for a normal float32 count as 0. An odd depth is filled up with 0.
#pragma once

#include "matmul.h"

#if defined(__AVX512BF16__)

namespace seqlab {

struct Pairs {
  static constexpr int64_t kNumbers = 2;
  static int64_t words(int64_t numbers) { return (numbers + 1) / 2; }

  static Vec spread(const float* word) {
    int32_t both;
    std::memcpy(&both, word, sizeof both);
    return reinterpret_cast<Vec>(_mm512_set1_epi32(both));
  }
  static Vec add_product(Vec left, Vec right, Vec sum) {
    return reinterpret_cast<Vec>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sum),
                                                  reinterpret_cast<__m512bh>(left),
                                                  reinterpret_cast<__m512bh>(right)));
  }

  static void put(float* row, int64_t j, Vec numbers, int64_t left) {
    const __m512 given = reinterpret_cast<__m512>(numbers);
    const __m256i rounded = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(given));
    char* to = reinterpret_cast<char*>(row) + 2 * j;
    if (left >= kWidth)
      std::memcpy(to, &rounded, sizeof rounded);
    else
      _mm256_mask_storeu_epi16(to, first(left), rounded);
  }
  static void put_row(const float* from, int64_t numbers, float* row) {
    for (int64_t j = 0; 2 * j < numbers; j += kWidth) store(row + j, take(from, 2 * j, numbers));
  }
  static void join(const float* rows, int64_t columns, float* words) {
    for (int64_t j = 0; j < columns; j += kWidth)
      store_up_to(words + j, in_turns(load_up_to(rows + j, columns - j),
                                      load_up_to(rows + columns + j, columns - j)),
                  columns - j);
  }

  static void pack_panel(const float* b, int64_t depth, int64_t columns, int64_t panel,
                         float* packed) {
    const int64_t width = panel_width(panel, columns), start = panel * kPanel;
    for (int64_t k = 0; k < depth; k += 2)
      for (int64_t j = 0; j < width; j += kWidth) {
        const int64_t left = columns - start - j;
        const float* from = b + k * columns + start + j;
        const Vec next = k + 1 < depth ? load_up_to(from + columns, left) : Vec{};
        store(packed + k / 2 * width + j, in_turns(load_up_to(from, left), next));
      }
  }
  static void pack_panel_transposed(const float* b, int64_t depth, int64_t columns, int64_t panel,
                                    float* packed) {
    const int64_t start = panel * kPanel;
    const float* from = b + start * depth;
    const auto words_of = [=](int64_t i, int64_t j) { return take(from + i * depth, 2 * j, depth); };
    copy_transposed(words_of, std::min(kPanel, columns - start), words(depth), packed,
                    panel_width(panel, columns), true);
  }
  static void pack_rows(const float* rows, int64_t stride, int64_t depth, int64_t columns,
                        int64_t panel, float* packed) {
    const int64_t width = panel_width(panel, columns), start = panel * kPanel;
    for (int64_t k = 0; k < depth; k += 2)
      for (int64_t j = 0; j < width; j += kWidth) {
        const auto half = [=](int64_t row) {
          const float* from = rows + row * stride + (start + j) / 2;
          return _mm256_maskz_loadu_epi16(first(columns - start - j), from);
        };
        const __m256i next = k + 1 < depth ? half(k + 1) : _mm256_setzero_si256();
        store(packed + k / 2 * width + j, in_turns(half(k), next));
      }
  }

 private:
  static __mmask16 first(int64_t count) {
    return static_cast<__mmask16>(count >= kWidth ? 0xffffu : (1u << count) - 1u);
  }
  // A vector of words of numbers side by side, of which there are `numbers`, from number j on.
  static Vec take(const float* from, int64_t j, int64_t numbers) {
    const int64_t left = numbers - j;
    return both(load_up_to(from + j, left),
                left > kWidth ? load_up_to(from + j + kWidth, left - kWidth) : Vec{});
  }
  // The numbers of a, then those of b.
  static Vec both(Vec a, Vec b) {
    return reinterpret_cast<Vec>(
        _mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(a)));
  }
  // One of a, one of b, and so on.
  static Vec in_turns(Vec a, Vec b) { return in_turns(reinterpret_cast<__m512i>(both(a, b))); }
  static Vec in_turns(__m256i a, __m256i b) {
    return in_turns(_mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1));
  }
  static Vec in_turns(__m512i halves) {
    const __m512i low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(halves));
    const __m512i high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(halves, 1));
    return reinterpret_cast<Vec>(_mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
  }
};

}  // namespace seqlab

#endif
