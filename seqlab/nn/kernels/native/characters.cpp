// Convolution over the characters of words, and the largest value of each filter.
//
// The convolution is linear in the embedding of each character, so every character is pushed through
// every position of the filters once (the table), and a window is a sum of rows of it.
#include <algorithm>
#include <cfloat>

#include "vector.h"

namespace seqlab {
namespace {

// One word's share of the filters from `first` on, at most kWidth of them.
struct Filters {
  const float* table;  // (character, window, filter)
  const float* bias;   // (filter)
  int64_t window, filters, first;
  int count;

  Vec row(int64_t character, int64_t place) const {
    return load_some(table + (character * window + place) * filters + first, count, 0.0f);
  }

  Vec at(const int64_t* word, int64_t width, int64_t position) const {
    Vec score = load_some(bias + first, count, 0.0f);
    for (int64_t place = 0; place < window; ++place) {
      const int64_t there = position + place - window / 2;
      if (there >= 0 && there < width && word[there] != 0) score += row(word[there], place);
    }
    return score;
  }
};

}  // namespace
}  // namespace seqlab

extern "C" {

// characters (form, width), 0 = padding; out (form, filter); where (form, filter), the position of the
// largest value, -1 for a form without characters; null where no gradient is wanted.
void seqlab_characters(const int64_t* characters, const float* table, const float* bias,
                       int64_t forms, int64_t width, int64_t window, int64_t filters, float* out,
                       int32_t* where, int32_t threads) {
  using namespace seqlab;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (int64_t form = 0; form < forms; ++form) {
    const int64_t* word = characters + form * width;
    for (int64_t first = 0; first < filters; first += kWidth) {
      const int count = static_cast<int>(std::min<int64_t>(kWidth, filters - first));
      const Filters these{table, bias, window, filters, first, count};
      Vec best = splat(-FLT_MAX);
      IVec best_at = IVec{} - 1;
      for (int64_t position = 0; position < width; ++position) {
        if (word[position] == 0) continue;
        const Vec score = these.at(word, width, position);
        const IVec better = (score > best) | (score != score);  // NaN stays to the end
        best = choose(better, score, best);
        best_at = better ? IVec{} + static_cast<int32_t>(position) : best_at;
      }
      store_some(out + form * filters + first, best, count);
      if (where != nullptr)
        std::memcpy(where + form * filters + first, &best_at, static_cast<size_t>(count) * 4);
    }
  }
}

// The gradient of the table, zero before: each filter is one thread's from start to end, so that the
// sums have the same order whatever the number of threads.
void seqlab_characters_backward(const int64_t* characters, const int32_t* where,
                                const float* gradient, int64_t forms, int64_t width,
                                int64_t window, int64_t filters, float* table, int32_t threads) {
  using namespace seqlab;
  const int64_t parts = (filters + kWidth - 1) / kWidth;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t last = std::min<int64_t>(filters, (part + 1) * kWidth);
    for (int64_t form = 0; form < forms; ++form) {
      const int64_t* word = characters + form * width;
      for (int64_t filter = part * kWidth; filter < last; ++filter) {
        const int32_t position = where[form * filters + filter];
        if (position < 0) continue;
        const float value = gradient[form * filters + filter];
        for (int64_t place = 0; place < window; ++place) {
          const int64_t there = position + place - window / 2;
          if (there >= 0 && there < width && word[there] != 0)
            table[(word[there] * window + place) * filters + filter] += value;
        }
      }
    }
  }
}

}  // extern "C"
