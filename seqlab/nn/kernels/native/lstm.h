// LSTM layers over padded sequences, in one or two directions: what both ways through them share.
//
// Sequences are read in place: of a padded batch only real tokens are touched, and there is no packing
// and no turning round. What is kept of a token lies at its number, which counts real tokens through
// the batch. Work is split in tasks that know nothing of one another: a direction and some of the
// sequences, through all steps without a barrier, so that a core keeps the recurrent weights in its
// cache. Rows of a product do not feel which rows are beside them, and no sum is split by threads:
// results do not depend on how many there are.
//
// Gates stand in torch's order: input, forget, candidate, output (i, f, g, o), `hidden` numbers each.
#pragma once

#include <algorithm>
#include <cstdint>
#if defined(_OPENMP)
#include <omp.h>
#endif

#include "matmul.h"
#include "matmul_bf16.h"

namespace seqlab {

constexpr int64_t kLine = 16;      // floats of a cache line
constexpr int64_t kMostRows = 64;  // sequences of a task: their gates stay in the cache with weights
constexpr int64_t kFewRows = 4;    // with fewer, a task would read all weights for little

// What Python hands over, in this order. For each direction there are four weights: of the input
// (4 hidden, input), of the hidden state (4 hidden, hidden), and two biases (4 hidden).
struct Layer {
  const float* x;          // (batch, time, input), the numbers of a token side by side
  const int64_t* lengths;  // (batch)
  const float* const* weights;
  float* out;     // (batch, time, directions * hidden)
  float* gates;   // (direction, token, 4 hidden), kept for the way back; null where there is none
  float* cells;   // (direction, token, hidden), likewise
  float* scratch;
  const float* d_out;
  float* d_x;               // null where not wanted
  float* const* d_weights;  // like `weights`; null where not wanted
  int64_t batch, time, input, hidden, directions;
  int64_t x_batch, x_time;  // how far it is from a sequence to the next, from a step to the next
  int64_t tokens, threads;
  // Where sequences are looked up in a table, the row of each token (batch, time), null where not:
  // then `x` is the table, with its rows x_time apart. Of its first rows, `known` in number, the
  // products with the weights of the input are given, biases added: (direction, known, 4 hidden).
  const int64_t* rows;
  const float* sums;
  int64_t known;
  int64_t fast;  // whether the factors of products are rounded to bfloat16

  int64_t columns() const { return 4 * hidden; }
  const float* token(int64_t sequence, int64_t place) const {
    if (rows) return x + rows[sequence * time + place] * x_time;
    return x + sequence * x_batch + place * x_time;
  }
  // The gates of a token before those of the hidden state are added; null where not known.
  const float* sum(int64_t sequence, int64_t place, int64_t direction) const {
    const int64_t row = rows ? rows[sequence * time + place] : known;
    return row < known ? sums + (direction * known + row) * columns() : nullptr;
  }
  // Where the output of a token is, or its gradient.
  int64_t output(int64_t sequence, int64_t place, int64_t direction) const {
    return ((sequence * time + place) * directions + direction) * hidden;
  }
};

// Distance of rows that are read side by side: not one that a cache maps to the same place.
inline int64_t spaced(int64_t size) { return round_up(size, kLine) + kLine; }

// Calls with the factors that a layer wants; Python asks for no others than there are.
template <typename Call>
auto with_factors(const Layer& layer, const Call& call) {
#if defined(__AVX512BF16__)
  if (layer.fast) return call(Pairs());
#else
  (void)layer;
#endif
  return call(Floats());
}

inline int64_t own_number() {
#if defined(_OPENMP)
  return omp_get_thread_num();
#else
  return 0;
#endif
}

// Hands out parts of a piece of memory; without one, it counts what is needed.
class Room {
 public:
  explicit Room(float* memory) : memory_(memory) {}
  template <typename T = float>
  T* take(int64_t count) {
    float* here = memory_ ? memory_ + used_ : nullptr;
    constexpr int64_t bytes = sizeof(T);
    used_ += round_up(count * bytes / 4, kLine);
    return reinterpret_cast<T*>(here);
  }
  int64_t used() const { return used_; }

 private:
  float* memory_;
  int64_t used_ = 0;
};

// How the sequences are shared out: by falling length, in turns.
struct Shares {
  int64_t* order;   // the sequences by falling length
  int64_t* starts;  // number of a sequence's first token
  int64_t slices, rows;

  Shares(const Layer& layer, Room& room) {
    order = room.take<int64_t>(layer.batch);
    starts = room.take<int64_t>(layer.batch);
    // As many tasks as threads, or a multiple of them.
    const bool halved = layer.directions == 2 && layer.threads % 2 == 0;
    const int64_t step = halved ? layer.threads / 2 : layer.threads;
    const int64_t least = std::max<int64_t>(1, (layer.batch + kMostRows - 1) / kMostRows);
    slices = std::min(round_up(least, step), std::max<int64_t>(1, layer.batch / kFewRows));
    rows = (layer.batch + slices - 1) / slices;
  }

  void sort(const Layer& layer) {
    int64_t token = 0;
    for (int64_t i = 0; i < layer.batch; ++i) {
      order[i] = i;
      starts[i] = token;
      token += layer.lengths[i];
    }
    const int64_t* lengths = layer.lengths;
    std::sort(order, order + layer.batch, [lengths](int64_t a, int64_t b) {
      return lengths[a] != lengths[b] ? lengths[a] > lengths[b] : a < b;
    });
  }
};

// The sequences of a task, the longest first, as its direction reads them.
struct Rows {
  const Layer& layer;
  const Shares& shares;
  int64_t direction, slice, count;

  Rows(const Layer& layer, const Shares& shares, int64_t task)
      : layer(layer), shares(shares), direction(task / shares.slices), slice(task % shares.slices) {
    count = (layer.batch - slice + shares.slices - 1) / shares.slices;
  }
  int64_t sequence(int64_t row) const { return shares.order[slice + row * shares.slices]; }
  int64_t length(int64_t row) const { return layer.lengths[sequence(row)]; }
  int64_t longest() const { return count ? length(0) : 0; }
  // Where in its text a row is after so many steps.
  int64_t place(int64_t row, int64_t step) const {
    return direction ? length(row) - 1 - step : step;
  }
  // Which of all tokens, those of the other direction before it, a row reads at a step.
  int64_t token(int64_t row, int64_t step) const {
    return direction * layer.tokens + shares.starts[sequence(row)] + place(row, step);
  }
  int64_t output(int64_t row, int64_t step) const {
    return layer.output(sequence(row), place(row, step), direction);
  }
  // How many rows go on at a step, of those that went on at a step before it.
  int64_t alive(int64_t step, int64_t before) const {
    while (before > 0 && length(before - 1) <= step) --before;
    return before;
  }
};

}  // namespace seqlab
