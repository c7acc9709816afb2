// Gradients of embeddings whose rows are mostly zero, and Adam, which moves all rows nevertheless.
#include <algorithm>
#include <cmath>
#include <vector>

#include "vector.h"

namespace seqlab {
namespace {

constexpr int64_t kBlock = 4096;  // numbers that a thread updates at a time

// How Adam (Kingma and Ba, 2015, algorithm 1) moves a number; W: as AdamW, which shrinks it by itself.
struct Step {
  float rate;        // of learning, corrected for the first moment's start at zero
  float decay;       // share of a weight that it loses, or that is added to its gradient
  int32_t apart;     // whether weights shrink apart from the gradient
  float first, second;  // 1 minus the decay of either moment
  float root;  // corrects the root of the second moment for its start at zero
  float epsilon;

  void move(float* p, Vec gradient, float* m, float* v, int64_t left) const {
    Vec x = load_up_to(p, left);
    if (decay != 0.0f) {
      if (apart)
        x = x - x * decay;
      else
        gradient = gradient + x * decay;
    }
    Vec mean = load_up_to(m, left), square = load_up_to(v, left);
    mean = mean + (gradient - mean) * first;
    square = square + (gradient * gradient - square) * second;
    x = x - (mean * rate) / (square_root(square) * root + epsilon);
    store_up_to(m, mean, left);
    store_up_to(v, square, left);
    store_up_to(p, x, left);
  }

  // Some numbers that stand side by side; a null gradient is zero.
  void all(float* p, const float* g, float* m, float* v, int64_t count) const {
    for (int64_t at = 0; at < count; at += kWidth) {
      const int64_t left = count - at;
      move(p + at, g == nullptr ? Vec{} : load_up_to(g + at, left), m + at, v + at, left);
    }
  }

 private:
  static Vec square_root(Vec x) {
#if defined(__AVX512F__)
    return reinterpret_cast<Vec>(_mm512_sqrt_ps(reinterpret_cast<__m512>(x)));
#elif defined(__AVX2__)
    return reinterpret_cast<Vec>(_mm256_sqrt_ps(reinterpret_cast<__m256>(x)));
#else
    for (int i = 0; i < kWidth; ++i) x[i] = std::sqrt(x[i]);
    return x;
#endif
  }
};

// A part of a parameter, for one thread.
struct Task {
  int32_t parameter;
  int64_t from, to;  // numbers; of a gradient of rows, rows
};

}  // namespace
}  // namespace seqlab

extern "C" {

// One step for several parameters. Parameter i has sizes[i] numbers, in rows of widths[i] where
// counts[i] >= 0: then its gradient is that of the counts[i] rows whose numbers, rising, are in
// rows[i], and zero elsewhere; reached[i] says (0 or 1) which rows a gradient has ever reached, as the
// others stay where they are. numbers (parameter, 7): the fields of Step, in order.
void seqlab_adam(float* const* values, const float* const* gradients, float* const* means,
                 float* const* squares, const int64_t* sizes, const int64_t* const* rows,
                 const int64_t* counts, const int64_t* widths, uint8_t* const* reached,
                 const float* numbers,
                 int32_t parameters, int32_t threads) {
  using namespace seqlab;
  std::vector<Task> tasks;
  for (int32_t i = 0; i < parameters; ++i) {
    const bool sparse = counts[i] >= 0;
    const int64_t end = sparse ? sizes[i] / widths[i] : sizes[i];
    const int64_t size = sparse ? std::max<int64_t>(1, kBlock / widths[i]) : kBlock;
    for (int64_t from = 0; from < end; from += size)
      tasks.push_back({i, from, std::min(end, from + size)});
  }
  const int64_t all = static_cast<int64_t>(tasks.size());
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (int64_t task = 0; task < all; ++task) {
    const Task& part = tasks[static_cast<size_t>(task)];
    const int32_t i = part.parameter;
    const float* n = numbers + 7 * i;
    const Step step{n[0], n[1], n[2] != 0.0f, n[3], n[4], n[5], n[6]};
    if (counts[i] < 0) {
      step.all(values[i] + part.from, gradients[i] + part.from, means[i] + part.from,
               squares[i] + part.from, part.to - part.from);
      continue;
    }
    const int64_t width = widths[i];
    const int64_t* last = rows[i] + counts[i];
    const int64_t* next = std::lower_bound(rows[i], last, part.from);
    for (int64_t row = part.from; row < part.to; ++row) {
      const float* gradient = nullptr;
      if (next != last && *next == row) gradient = gradients[i] + (next++ - rows[i]) * width;
      const int64_t at = row * width;
      if (gradient != nullptr) reached[i][row] = 1;
      if (reached[i][row] == 0 && step.decay == 0.0f) continue;
      step.all(values[i] + at, gradient, means[i] + at, squares[i] + at, width);
    }
  }
}

// Adds up the gradients (token, width) of the rows that tokens were looked up in, in the order of the
// tokens; those of row `padding` are left out. places (row) is scratch. rows gets the numbers of the rows,
// rising, and sums (as many as there are tokens, width) their gradients; returns how many there are.
int64_t seqlab_row_sums(const int64_t* ids, const float* gradient, int64_t tokens, int64_t width,
                        int64_t number_of_rows, int64_t padding, int32_t* places, int64_t* rows,
                        float* sums) {
  using namespace seqlab;
  std::fill(places, places + number_of_rows, -1);
  for (int64_t token = 0; token < tokens; ++token) places[ids[token]] = 0;
  if (padding >= 0) places[padding] = -1;
  int64_t count = 0;
  for (int64_t row = 0; row < number_of_rows; ++row) {
    if (places[row] < 0) continue;
    places[row] = static_cast<int32_t>(count);
    rows[count++] = row;
  }
  std::fill(sums, sums + count * width, 0.0f);
  for (int64_t token = 0; token < tokens; ++token) {
    const int32_t place = places[ids[token]];
    if (place < 0) continue;
    float* sum = sums + place * width;
    const float* given = gradient + token * width;
    for (int64_t at = 0; at < width; at += kWidth) {
      const int64_t left = width - at;
      store_up_to(sum + at, load_up_to(sum + at, left) + load_up_to(given + at, left), left);
    }
  }
  return count;
}

// x times the scale where the signed byte drawn for it is at least the threshold, else zero.
void seqlab_dropped(const float* x, const int8_t* draws, int64_t count, int32_t threshold, float scale,
                    float* out, int32_t threads) {
  using namespace seqlab;
  typedef int8_t Bytes __attribute__((vector_size(kWidth)));
  const int64_t blocks = (count + kBlock - 1) / kBlock;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t end = std::min(count, (block + 1) * kBlock);
    int64_t at = block * kBlock;
    for (; at + kWidth <= end; at += kWidth) {
      Bytes drawn;
      std::memcpy(&drawn, draws + at, sizeof drawn);
      const IVec kept = __builtin_convertvector(drawn, IVec) >= threshold;
      store(out + at, choose(kept, load(x + at) * scale, Vec{}));
    }
    for (; at < end; ++at) out[at] = draws[at] >= threshold ? x[at] * scale : 0.0f;
  }
}

}  // extern "C"
