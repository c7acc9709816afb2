// One sentence at a time, its tags side by side in vectors: for few sentences, and for those so long
// that several at once would take much memory.
#pragma once

#include <algorithm>

#include "crf_logs.h"

namespace seqlab {

// The messages of a sentence, (length, width) each: `left` holds the emissions up to a position,
// `right` those behind it.
struct Messages {
  float *weights, *left, *right;
  float* with;    // (2, width): right messages with the emission of their own position
  float* scale;   // (length) the sum of each left message
  float* totals;  // (length) the sum of the product of both
};

// kVectors is the number of vectors that hold a message, or 0: any.
template <int kVectors>
class Single {
 public:
  Single(const Sweep& s, Room& room)
      : s_(s), tags_(s.scores.tags), width_(kVectors ? kVectors * kWidth : s.scores.width) {
    const size_t all = s.length * width_;
    float* memory = room.of(3 * all + 2 * width_ + 2 * s.length);
    float* with = memory + 3 * all;
    float* scale = with + 2 * width_;
    m_ = {memory, memory + all, memory + 2 * all, with, scale, scale + s.length};
  }

  // Log partition, and marginals into the gradient.
  double run() {
    start();
    for (int64_t t = 1; t < s_.length; ++t) {  // both ways at once, as neither waits for the other
      forward(t);
      backward(t);
    }
    if (!trusted()) return sweep_in_logs(s_);
    if (s_.queries) answer_queries();
    if (s_.d_emissions || s_.sums)
      for (int64_t t = 0; t < s_.length; ++t) settle(t);
    if (s_.sums) add_all_pairs();
    const double last = std::log(double(m_.totals[s_.length - 1]));
    return shifts_ + log_product(m_.scale, s_.length - 1, 1) + last + s_.steps.peaks(s_.length);
  }

 private:
  // Exponentials of one position's emissions less their maximum, which is returned.
  float weigh(const float* x, float* to) const {
    const int last = width_ - kWidth;
    const Vec rest = emitted(x, last / kWidth, tags_, kNever);
    Vec top = rest;
    for (int v = 0; v < last; v += kWidth) top = larger(load(x + v), top);
    const float peak = greatest(top), shift = peak == kNever ? 0.0f : peak;
    for (int v = 0; v < last; v += kWidth) store(to + v, exponential(load(x + v) - splat(shift)));
    store(to + last, exponential(rest - splat(shift)));
    return shift;
  }

  // The same where the tag is known: all others weigh nothing.
  float weigh_known(const float* x, int64_t tag, float* to) const {
    std::fill_n(to, width_, 0.0f);
    if (x[tag] == kNever) return 0.0f;
    to[tag] = 1.0f + (x[tag] - x[tag]);  // NaN for NaN and +inf
    return x[tag];
  }

  // Weights of all positions, and both messages that nothing comes before.
  void start() {
    for (int64_t t = 0; t < s_.length; ++t) {
      const float* x = s_.given.at(s_.row, t);
      float* to = m_.weights + t * width_;
      const int64_t tag = s_.tag(t);
      shifts_ += tag == kAnyTag ? weigh(x, to) : weigh_known(x, tag, to);
    }
    const int64_t last = (s_.length - 1) * width_;
    Vec left = {}, right = {};
    for (int v = 0; v < width_; v += kWidth) {
      const Vec opened = load(s_.steps.start + v) * load(m_.weights + v);
      const Vec end = load(s_.steps.end + v), closed = end * load(m_.weights + last + v);
      store(m_.left + v, opened);
      store(m_.right + last + v, end);
      store(m_.with + v, closed);
      left += opened, right += closed;
    }
    m_.scale[0] = sum(left);
    right_scale_ = sum(right);
  }

  // A message times a table: out[v] = sum of message[i] * table[i][v] over i. Several sums are kept,
  // as each addition waits for the one before it.
  template <int kCount>
  INLINED void product(const float* message, const float* table, Vec (&out)[kCount]) const {
    constexpr int kSums = kCount <= 2 ? 4 : 2;
    Vec sums[kSums][kCount] = {};
    const auto add = [&](int i, int s) __attribute__((always_inline)) {
      UNROLLED
      for (int v = 0; v < kCount; ++v)
        sums[s][v] = splat(message[i + s]) * load(table + s * width_ + v * kWidth) + sums[s][v];
    };
    int i = 0;
    for (; i + kSums <= tags_; i += kSums, table += kSums * width_)
      UNROLLED
      for (int s = 0; s < kSums; ++s) add(i, s);
    UNROLLED
    for (int s = 0; s < kSums - 1; ++s)
      if (i + s < tags_) add(i, s);
    UNROLLED
    for (int v = 0; v < kCount; ++v) {
      out[v] = sums[0][v] + sums[1][v];
      if (kSums == 4) out[v] += sums[kSums - 2][v] + sums[kSums - 1][v];
    }
  }

  // Calls `use(v, out)` for each vector of the product; `v` counts numbers.
  template <typename Use>
  INLINED void each_product(const float* message, const float* table, Use use) const {
    if constexpr (kVectors > 0) {
      Vec out[kVectors];
      product(message, table, out);
      UNROLLED
      for (int v = 0; v < kVectors; ++v) use(v * kWidth, out[v]);
    } else {
      int v = 0;
      for (Vec out[4]; width_ - v >= 4 * kWidth; v += 4 * kWidth) {
        product(message, table + v, out);
        for (int k = 0; k < 4; ++k) use(v + k * kWidth, out[k]);
      }
      for (Vec out[1]; v < width_; v += kWidth) {
        product(message, table + v, out);
        use(v, out[0]);
      }
    }
  }

  // One step to the right, to position t.
  INLINED void forward(int64_t t) {
    const Vec by = splat(1.0f / m_.scale[t - 1]);
    const float* weights = m_.weights + t * width_;
    float* to = m_.left + t * width_;
    Vec all = {};
    each_product(to - width_, s_.steps.forward, [&](int v, Vec out) {
      const Vec value = out * (by * load(weights + v));
      store(to + v, value);
      all += value;
    });
    m_.scale[t] = sum(all);
  }

  // One step to the left, to the position that is `back` before the last.
  INLINED void backward(int64_t back) {
    const Vec by = splat(1.0f / right_scale_);
    const int64_t at = (s_.length - 1 - back) * width_;
    float* next = m_.with + back % 2 * width_;
    Vec all = {};
    each_product(m_.with + (back - 1) % 2 * width_, s_.steps.backward, [&](int v, Vec out) {
      const Vec message = out * by, value = message * load(m_.weights + at + v);
      store(m_.right + at + v, message);
      store(next + v, value);
      all += value;
    });
    right_scale_ = sum(all);
  }

  bool trusted() {
    float scale = 1.0f;
    bool good = true;
    for (int64_t t = 0; t < s_.length; ++t) {
      Vec all = {};
      for (int v = 0; v < width_; v += kWidth)
        all += load(m_.left + t * width_ + v) * load(m_.right + t * width_ + v);
      const float total = m_.totals[t] = sum(all);
      good &= total > kEnough && total * scale > kEnough;
      scale = m_.scale[t];
    }
    return good;
  }

  // Marginals of a position into the gradient. Turns the right message into what the pairs need.
  void settle(int64_t t) {
    const float* left = m_.left + t * width_;
    float* right = m_.right + t * width_;
    float* to = s_.d_emissions ? s_.d_emissions + t * s_.d_time : nullptr;
    const Vec by = splat(s_.weight / m_.totals[t]);
    for (int v = 0; v < width_; v += kWidth) {
      Vec chance = load(left + v) * load(right + v) * by;
      if (s_.sums && t == 0) add(s_.sums->start + v, chance);
      if (s_.sums && t == s_.length - 1) add(s_.sums->end + v, chance);
      const int n = std::min(kWidth, tags_ - v);
      if (!to) continue;
      if (s_.adds) chance += n == kWidth ? load(to + v) : load_some(to + v, n, 0.0f);
      if (n == kWidth) store(to + v, chance);
      else store_some(to + v, chance, n);
    }
    if (!s_.sums || t == 0) return;
    const Vec ratio = splat(s_.weight / (m_.totals[t] * m_.scale[t - 1]));
    for (int v = 0; v < width_; v += kWidth)
      store(right + v, load(right + v) * load(m_.weights + t * width_ + v) * ratio);
  }

  // Adds left[t - 1][i] * right[t][j] over all t to kRows rows of the pairs, kCount vectors wide.
  template <int kRows, int kCount>
  void add_pairs(int i, int v) const {
    const float *left = m_.left + i, *right = m_.right + v;
    float* to = s_.sums->pairs + i * width_ + v;
    Vec sums[kRows][kCount] = {};
    for (int64_t t = 1; t < s_.length; ++t, left += width_) {
      right += width_;
      Vec columns[kCount];
      UNROLLED
      for (int k = 0; k < kCount; ++k) columns[k] = load(right + k * kWidth);
      UNROLLED
      for (int r = 0; r < kRows; ++r)
        UNROLLED
        for (int k = 0; k < kCount; ++k) sums[r][k] = splat(left[r]) * columns[k] + sums[r][k];
    }
    UNROLLED
    for (int r = 0; r < kRows; ++r)
      UNROLLED
      for (int k = 0; k < kCount; ++k) add(to + r * width_ + k * kWidth, sums[r][k]);
  }

  template <int kRows, int kCount>
  void add_rows(int rows, int i, int v) const {
    if constexpr (kRows > 0) {
      if (rows < kRows) return add_rows<kRows - 1, kCount>(rows, i, v);
      add_pairs<kRows, kCount>(i, v);
    }
  }

  void add_all_pairs() const {
    constexpr int kMost = kRegisters / 4;
    const int blocks = (tags_ + kMost - 1) / kMost;
    for (int block = 0; block < blocks; ++block) {
      const int i = tags_ * block / blocks, rows = tags_ * (block + 1) / blocks - i;
      int v = 0;
      for (; width_ - v >= 2 * kWidth; v += 2 * kWidth) add_rows<kMost, 2>(rows, i, v);
      if (v < width_) add_rows<kMost, 1>(rows, i, v);
    }
  }

  void answer_queries() const {
    const auto chance = [&](int64_t t, int64_t i) {
      return double(m_.left[t * width_ + i]) * m_.right[t * width_ + i] / m_.totals[t];
    };
    answer(s_, chance, [&](int64_t t, int64_t i, int64_t j) {
      const double emitted = double(m_.right[t * width_ + j]) * m_.weights[t * width_ + j];
      const double both = double(m_.left[(t - 1) * width_ + i]) * s_.steps.forward[i * width_ + j];
      return both * emitted / (double(m_.totals[t]) * m_.scale[t - 1]);
    });
  }

  const Sweep& s_;
  const int tags_, width_;
  Messages m_;
  float right_scale_ = 0.0f;  // the sum of the last right message with its emission
  double shifts_ = 0.0;       // taken off the emissions
};

// Log partition of one sentence, and its marginals into the gradient.
inline double sweep_single(const Sweep& s, Room& room) {
  switch (s.scores.width / kWidth) {
    case 1: return Single<1>(s, room).run();
    case 2: return Single<2>(s, room).run();
    case 3: return Single<3>(s, room).run();
    default: return Single<0>(s, room).run();
  }
}

}  // namespace seqlab
