// The cross-entropy of a softmax with smoothed labels, and its gradient: each row of logits is read
// from memory once, and its gradient written once.
#include <algorithm>
#include <cmath>
#if defined(_OPENMP)
#include <omp.h>
#endif

#include "vector.h"

namespace seqlab {
namespace {

using seqlab::load;
using seqlab::store;
typedef uint16_t Shorts __attribute__((vector_size(kWidth * 2)));
typedef uint32_t Words __attribute__((vector_size(kWidth * 4)));
constexpr int64_t kColumns = 512;  // of which a thread adds up rows at a time

// bfloat16 is the upper half of a float32; what is cut off is rounded to the nearest, ties to even.
inline Vec load(const uint16_t* p) {
  Shorts v;
  std::memcpy(&v, p, sizeof v);
  const Words wide = __builtin_convertvector(v, Words) << 16;
  Vec x;
  std::memcpy(&x, &wide, sizeof x);
  return x;
}

inline void store(uint16_t* p, Vec x) {
  Words wide;
  std::memcpy(&wide, &x, sizeof wide);
  const Words rounded = (wide + 0x7fffu + ((wide >> 16) & 1u)) >> 16;
  const Words kept = x == x ? rounded : Words{} + 0x7fc0u;  // rounding would make numbers of NaN
  const Shorts v = __builtin_convertvector(kept, Shorts);
  std::memcpy(p, &v, sizeof v);
}

template <typename Number>
struct Layer {
  const Number* logits;   // (row, vocabulary)
  const float* bias;      // (vocabulary), null for none
  Number* gradient;       // (row, vocabulary), null where none is wanted
  const int64_t* target;  // (row)
  int64_t vocabulary;
  float smoothing;

  // The loss of a row; `scratch` has room for the vocabulary, rounded up to whole vectors.
  float row(int64_t number, float* scratch) const {
    const Number* given = logits + number * vocabulary;
    Vec most = splat(-INFINITY), all = Vec{};
    for (int64_t at = 0; at < vocabulary; at += kWidth) {
      const int64_t left = std::min<int64_t>(kWidth, vocabulary - at);
      Vec x = some(given + at, left);
      if (bias != nullptr) x += load_up_to(bias + at, left);
      all += x;
      if (left < kWidth) x = beyond(x, left);
      store(scratch + at, x);
      most = larger(x, most);  // NaN in the logits stays in their exponentials
    }
    const float top = greatest(most);
    const float right = scratch[target[number]];
    Vec total = Vec{};
    for (int64_t at = 0; at < vocabulary; at += kWidth) {
      const Vec power = exponential(load(scratch + at) - top);
      total += power;
      store(scratch + at, power);
    }
    const float whole = sum(total);
    const float mean = sum(all) / static_cast<float>(vocabulary);
    if (gradient != nullptr) slope(number, scratch, 1.0f / whole);
    const float loss = top + std::log(whole) - (1.0f - smoothing) * right;
    return smoothing != 0.0f ? loss - smoothing * mean : loss;
  }

  // Softmax minus smoothed target.
  void slope(int64_t number, float* scratch, float scale) const {
    const float spread = smoothing / static_cast<float>(vocabulary);
    const int64_t right = target[number];
    Number* found = gradient + number * vocabulary;
    scratch[right] -= (1.0f - smoothing) / scale;
    for (int64_t at = 0; at < vocabulary; at += kWidth) {
      const Vec x = load(scratch + at) * scale - spread;
      const int64_t left = std::min<int64_t>(kWidth, vocabulary - at);
      if (left == kWidth) {
        store(found + at, x);
      } else {
        Number last[kWidth];
        store(last, x);
        std::memcpy(found + at, last, static_cast<size_t>(left) * sizeof(Number));
      }
    }
  }

  // Adds up the gradient's rows, in their order, for some columns.
  void add_up(int64_t rows, int64_t first, float* sums) const {
    const int64_t last = std::min(vocabulary, first + kColumns);
    for (int64_t number = 0; number < rows; ++number) {
      const Number* found = gradient + number * vocabulary;
      for (int64_t at = first; at < last; at += kWidth) {
        const int64_t left = std::min<int64_t>(kWidth, last - at);
        store_up_to(sums + at, load_up_to(sums + at, left) + some(found + at, left), left);
      }
    }
  }

 private:
  static Vec some(const Number* p, int64_t left) {
    if (left == kWidth) return load(p);
    Number last[kWidth] = {};
    std::memcpy(last, p, static_cast<size_t>(left) * sizeof(Number));
    return load(last);
  }

  // What is no logit has no probability.
  static Vec beyond(Vec x, int64_t left) {
    float last[kWidth];
    store(last, x);
    for (int64_t i = left; i < kWidth; ++i) last[i] = -INFINITY;
    return load(last);
  }
};

template <typename Number>
void all_rows(const Layer<Number>& layer, int64_t rows, float* losses, float* sums, float* scratch,
              int64_t room, int32_t threads) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
#if defined(_OPENMP)
    float* own = scratch + room * omp_get_thread_num();
#else
    float* own = scratch;
#endif
#pragma omp for schedule(static)
    for (int64_t number = 0; number < rows; ++number) losses[number] = layer.row(number, own);
    if (sums != nullptr) {
#pragma omp for schedule(static)
      for (int64_t first = 0; first < layer.vocabulary; first += kColumns)
        layer.add_up(rows, first, sums);
    }
  }
}

}  // namespace
}  // namespace seqlab

extern "C" {

// logits (row, vocabulary), float32 or bfloat16 as `rounded` says; bias (vocabulary) or null; target
// (row); losses (row); gradient as the logits, or null, and they may be the same; sums (vocabulary) of
// its columns are added to, or null; scratch (thread, room), room being the vocabulary rounded up to
// whole vectors.
void seqlab_smoothed_rows(const void* logits, const float* bias, const int64_t* target,
                          int64_t rows, int64_t vocabulary, float smoothing, int32_t rounded,
                          float* losses, void* gradient, float* sums, float* scratch, int64_t room,
                          int32_t threads) {
  using namespace seqlab;
  if (rounded) {
    const Layer<uint16_t> layer{static_cast<const uint16_t*>(logits),
                                bias,
                                static_cast<uint16_t*>(gradient),
                                target,
                                vocabulary,
                                smoothing};
    all_rows(layer, rows, losses, sums, scratch, room, threads);
  } else {
    const Layer<float> layer{static_cast<const float*>(logits), bias, static_cast<float*>(gradient),
                             target, vocabulary, smoothing};
    all_rows(layer, rows, losses, sums, scratch, room, threads);
  }
}

}  // extern "C"
