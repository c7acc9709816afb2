// What a step of a decoder does between its products, for many hypotheses and without gradients.
#include <algorithm>
#include <cmath>

#include "decoder.h"

namespace seqlab {
namespace {

// What Python hands over, in this order.
struct Cells {
  const float* sums;      // (row, 4 size): of the gates, in the order i, f, o, g
  const float* table;     // (token, 4 size): what tokens add; null for nothing
  const int64_t* tokens;  // (row)
  const float* bias;      // (4 size): added to all; null for nothing
  const float* before;    // (row, size): cells
  float* hidden;          // (row, size)
  float* after;           // (row, size): cells
  int64_t rows, size, threads;

  void row(int64_t number) const {
    const int64_t columns = 4 * size;
    const float* own = sums + number * columns;
    const float* more = table != nullptr ? table + tokens[number] * columns : bias;
    for (int64_t j = 0; j < size; j += kWidth) {
      const int64_t left = size - j;
      const auto gate = [&](int64_t k) {
        const Vec sum = load_up_to(own + k * size + j, left);
        return more != nullptr ? sum + load_up_to(more + k * size + j, left) : sum;
      };
      const Vec i = sigmoid(gate(0)), f = sigmoid(gate(1)), o = sigmoid(gate(2));
      const Vec g = hyperbolic_tangent(gate(3));
      const Vec c = f * load_up_to(before + number * size + j, left) + i * g;
      store_up_to(hidden + number * size + j, o * hyperbolic_tangent(c), left);
      store_up_to(after + number * size + j, c, left);
    }
  }
};

struct Reading {
  const float* query;   // (sentence, hypothesis, size)
  const float* keys;    // (sentence, source, size)
  const float* values;  // (sentence, source, size)
  const uint8_t* mask;  // (sentence, source): whether it is a token
  float* raw;           // (sentence, hypothesis, size): the state's share; becomes the feature
  float* weights;       // (sentence, hypothesis, source)
  int64_t sentences, hypotheses, source, size, threads;

  void row(int64_t number) const {
    const int64_t sentence = number / hypotheses;
    const uint8_t* real = mask + sentence * source;
    const float* key = keys + sentence * source * size;
    const float* value = values + sentence * source * size;
    float* weight = weights + number * source;
    float* feature = raw + number * size;
    float most = -INFINITY;
    for (int64_t i = 0; i < source; ++i) {
      if (!real[i]) continue;
      weight[i] = inner(key + i * size, query + number * size, size);
      most = std::max(most, weight[i]);
    }
    float total = 0.0f;
    for (int64_t i = 0; i < source; ++i) {
      weight[i] = real[i] ? std::exp(weight[i] - most) : 0.0f;
      total += weight[i];
    }
    for (int64_t i = 0; i < source; ++i) {
      if (!real[i]) continue;
      weight[i] /= total;
      add_multiple(weight[i], value + i * size, size, feature);
    }
    for (int64_t j = 0; j < size; j += kWidth)
      store_up_to(feature + j, hyperbolic_tangent(load_up_to(feature + j, size - j)), size - j);
  }
};

}  // namespace
}  // namespace seqlab

extern "C" {

void seqlab_step_cells(const seqlab::Cells* cells) {
  const int threads = static_cast<int>(cells->threads);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < cells->rows; ++i) cells->row(i);
}

void seqlab_step_reading(const seqlab::Reading* reading) {
  const int threads = static_cast<int>(reading->threads);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < reading->sentences * reading->hypotheses; ++i) reading->row(i);
}

}  // extern "C"
