// A decoder with input feeding: what both ways through its steps share.
//
// A step reads what the step before made of its state and its context (Luong et al., 2015), so that
// no step can be computed before another. Sequences know nothing of one another: a task takes some of
// them through all steps without a barrier. Sums are in one order whatever the tasks are.
#pragma once

#include "lstm.h"

namespace seqlab {

// What Python hands over, in this order. Gates stand in torch's order: i, f, g, o.
struct Decoding {
  const float* gates;      // (batch, time, 4 size): what the tokens add to the sums of the gates
  const float* keys;       // (batch, source, size)
  const float* values;     // (batch, source, size)
  const int64_t* lengths;  // (batch): tokens of the source
  const float* fed;        // (4 size, size): weights of the feature of the step before
  const float* recurrent;  // (4 size, size): weights of the hidden state
  const float* output;     // (size, size): weights of the hidden state in the feature
  const float* hidden;     // (batch, size): before the first step
  const float* cell;       // likewise
  const float* kept;       // (batch, time, size): dropout of the features; null where there is none
  float* features;         // (batch, time, size), after dropout
  float* activated;        // (batch, time, 4 size): the gates
  float* cells;            // (batch, time, size)
  float* states;           // (batch, time, size): hidden states
  float* raw;              // (batch, time, size): features before dropout
  float* weights;          // (batch, time, source): the attention, 0 at padding
  float* scratch;
  const float* d_features;
  float* d_gates;    // (batch, time, 4 size): of the sums of the gates
  float* d_raw;      // (batch, time, size): of what the tanh of the features was taken of
  float* d_weights;  // (batch, time, source): of the scores that the attention was taken of
  float* d_hidden;   // (batch, size): before the first step
  float* d_cell;     // likewise
  int64_t batch, time, source, size, threads;
  int64_t fast;  // whether the factors of products are rounded to bfloat16

  int64_t columns() const { return 4 * size; }
  int64_t token(int64_t sequence, int64_t step) const { return sequence * time + step; }
};

template <typename Call>
auto with_factors(const Decoding& decoding, const Call& call) {
#if defined(__AVX512BF16__)
  if (decoding.fast) return call(Pairs());
#else
  (void)decoding;
#endif
  return call(Floats());
}

// How the sequences are shared out among tasks: in turns.
struct Slices {
  int64_t count, rows;

  explicit Slices(const Decoding& decoding) {
    const int64_t least = (decoding.batch + kMostRows - 1) / kMostRows;
    const int64_t most = std::max<int64_t>(1, decoding.batch / kFewRows);
    count = std::min(round_up(std::max<int64_t>(1, least), decoding.threads), most);
    rows = (decoding.batch + count - 1) / count;
  }
  int64_t rows_of(int64_t task, int64_t batch) const { return (batch - task + count - 1) / count; }
  int64_t sequence(int64_t task, int64_t row) const { return task + row * count; }
};

inline float inner(const float* a, const float* b, int64_t size) {
  Vec first{}, second{};
  int64_t j = 0;
  for (; j + 2 * kWidth <= size; j += 2 * kWidth) {
    first = load(a + j) * load(b + j) + first;
    second = load(a + j + kWidth) * load(b + j + kWidth) + second;
  }
  for (; j < size; j += kWidth)
    first = load_up_to(a + j, size - j) * load_up_to(b + j, size - j) + first;
  return sum(first + second);
}

inline void add_multiple(float factor, const float* from, int64_t size, float* to) {
  const Vec times = splat(factor);
  for (int64_t j = 0; j < size; j += kWidth) {
    const int64_t left = size - j;
    store_up_to(to + j, times * load_up_to(from + j, left) + load_up_to(to + j, left), left);
  }
}

}  // namespace seqlab
