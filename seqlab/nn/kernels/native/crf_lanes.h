// As many sentences at once as a vector has lanes: each number of a sentence stands in its lane.
//
// Nothing is then added up across a vector, and no lane is left over whatever the number of tags. What
// goes wrong in one sentence stays in its lane.
#pragma once

#include <algorithm>

#include "crf_logs.h"

namespace seqlab {

#if defined(__AVX2__)
constexpr int kBlock = 8;

// Writes eight rows of eight numbers as eight columns.
inline void transpose(const float* const (&from)[kBlock], float* const (&to)[kBlock]) {
  __m256 a[8], b[8];
  UNROLLED
  for (int i = 0; i < 8; ++i) a[i] = _mm256_loadu_ps(from[i]);
  UNROLLED
  for (int i = 0; i < 8; i += 2) {
    b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
  }
  UNROLLED
  for (int i = 0; i < 8; i += 4) {
    a[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
    a[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xee);
    a[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
    a[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xee);
  }
  UNROLLED
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(to[i], _mm256_permute2f128_ps(a[i], a[i + 4], 0x20));
    _mm256_storeu_ps(to[i + 4], _mm256_permute2f128_ps(a[i], a[i + 4], 0x31));
  }
}
#else
constexpr int kBlock = 4;

inline void transpose(const float* const (&from)[kBlock], float* const (&to)[kBlock]) {
  for (int i = 0; i < kBlock; ++i)
    for (int j = 0; j < kBlock; ++j) to[j][i] = from[i][j];
}
#endif

class Lanes {
 public:
  // The sweeps, at most kWidth, are sorted: the longest first.
  Lanes(const Sweep* sweeps, int count, Room& room)
      : sweeps_(sweeps), s_(sweeps[0]), count_(count), tags_(s_.scores.tags), longest_(s_.length) {
    const size_t all = longest_ * tags_ * kWidth;
    weights_ = room.of(3 * all + (3 * longest_ + 2 * tags_) * kWidth);
    left_ = weights_ + all;
    right_ = left_ + all;
    scale_ = right_ + all;
    shifts_ = scale_ + longest_ * kWidth;
    totals_ = shifts_ + longest_ * kWidth;
    with_ = totals_ + longest_ * kWidth;
    for (int n = 0; n < kWidth; ++n) {
      lengths_[n] = n < count ? sweeps[n].length : 0;
      factors_[n] = n < count ? sweeps[n].weight : 0.0f;
    }
  }

  // Log partitions, and marginals into the gradients.
  void run(double* values) {
    lay_out();
    weigh();
    forward();
    backward();
    for (const bool adds : {false, true}) {  // the second adds to what the first has written
      if (s_.d_emissions) put_gradients(adds);
      for (int n = 0; n < count_; ++n)
        if (sweeps_[n].adds == adds) values[n] = good_[n] > 0.0f ? value(n) : sweep_in_logs(sweeps_[n]);
    }
    if (!s_.sums) return;
    for (int n = 0; n < count_; ++n)
      if (good_[n] > 0.0f) add_ends(n);
    add_all_pairs();
  }

 private:
  float* at(float* first, int64_t t) const { return first + t * tags_ * kWidth; }

  // Emissions, lane by lane; 0 where there are none.
  void lay_out() {
    for (int64_t t = 0; t < longest_; ++t)
      for (int n = 0; n < kWidth; n += kBlock) {
        float* to = at(weights_, t) + n;
        int j = n + kBlock <= count_ && t < sweeps_[n + kBlock - 1].length ? lay_blocks(t, n, to) : 0;
        if (j == tags_) continue;
        for (int k = n; k < n + kBlock; ++k, ++to) lay_lane(t, k, j, to);
      }
  }

  // The tags of one sentence from `j` on.
  void lay_lane(int64_t t, int n, int j, float* to) const {
    const bool real = n < count_ && t < sweeps_[n].length;
    const float* x = real ? s_.given.at(sweeps_[n].row, t) : nullptr;
    const int64_t only = real ? sweeps_[n].tag(t) : kAnyTag;
    for (; j < tags_; ++j) to[j * kWidth] = !real ? 0.0f : only == kAnyTag || only == j ? x[j] : kNever;
  }

  // As many tags as there are whole blocks, of kBlock sentences that are this long; their number.
  int lay_blocks(int64_t t, int n, float* to) const {
    const float* from[kBlock];
    float* lanes[kBlock];
    for (int k = 0; k < kBlock; ++k) {
      from[k] = s_.given.at(sweeps_[n + k].row, t);
      if (sweeps_[n + k].tag(t) != kAnyTag) return 0;
    }
    int j = 0;
    for (; j + kBlock <= tags_; j += kBlock) {
      for (int k = 0; k < kBlock; ++k) lanes[k] = to + (j + k) * kWidth;
      transpose(from, lanes);
      for (int k = 0; k < kBlock; ++k) from[k] += kBlock;
    }
    return j;
  }

  // Exponentials of the emissions less each position's maximum.
  void weigh() {
    for (int64_t t = 0; t < longest_; ++t) {
      float* x = at(weights_, t);
      Vec top = splat(kNever);
      for (int j = 0; j < tags_; ++j) top = larger(load(x + j * kWidth), top);
      top = choose(top == splat(kNever), Vec{}, top);
      store(shifts_ + t * kWidth, top);
      for (int j = 0; j < tags_; ++j)
        store(x + j * kWidth, exponential(load(x + j * kWidth) - top));
    }
  }

  // kCount tags of a message times a table, and `use(j, out)` for each: the sum of message[i] *
  // table[i][j] over i.
  template <int kCount, typename Use>
  INLINED void product(const float* message, const float* table, int j, Use use) const {
    Vec sums[kCount] = {};
    table += j;
    for (int i = 0; i < tags_; ++i, table += s_.scores.width) {
      const Vec share = load(message + i * kWidth);
      UNROLLED
      for (int k = 0; k < kCount; ++k) sums[k] = share * splat(table[k]) + sums[k];
    }
    UNROLLED
    for (int k = 0; k < kCount; ++k) use(j + k, sums[k]);
  }

  template <int kCount, typename Use>
  INLINED void some_products(const float* message, const float* table, int j, int count, Use use) const {
    if constexpr (kCount > 0) {
      if (count == kCount) product<kCount>(message, table, j, use);
      else some_products<kCount - 1>(message, table, j, count, use);
    }
  }

  template <typename Use>
  INLINED void each_product(const float* message, const float* table, Use use) const {
    constexpr int kMost = 10;
    const int blocks = (tags_ + kMost - 1) / kMost;
    for (int b = 0; b < blocks; ++b) {
      const int j = tags_ * b / blocks;
      some_products<kMost>(message, table, j, tags_ * (b + 1) / blocks - j, use);
    }
  }

  void forward() {
    Vec all = {};
    for (int j = 0; j < tags_; ++j) {
      const Vec value = splat(s_.steps.start[j]) * load(weights_ + j * kWidth);
      store(left_ + j * kWidth, value);
      all += value;
    }
    store(scale_, all);
    for (int64_t t = 1; t < longest_; ++t) {
      const Vec by = 1.0f / all;
      const float* weights = at(weights_, t);
      float* to = at(left_, t);
      all = Vec{};
      each_product(at(left_, t - 1), s_.steps.forward, [&](int j, Vec out) {
        const Vec value = out * (by * load(weights + j * kWidth));
        store(to + j * kWidth, value);
        all += value;
      });
      if (t >= lengths_[count_ - 1] || count_ < kWidth) all = without_padding(t, to);
      store(scale_ + t * kWidth, all);
    }
  }

  // Takes out of a message what stands in lanes whose sentence has ended; the sum of the rest.
  Vec without_padding(int64_t t, float* message) const {
    const IVec real = load(lengths_) > splat(static_cast<float>(t));
    Vec all = {};
    for (int j = 0; j < tags_; ++j) {
      const Vec value = choose(real, load(message + j * kWidth), Vec{});
      store(message + j * kWidth, value);
      all += value;
    }
    return all;
  }

  // On the way back each position is settled: its marginals take the place of its weights, and its
  // right message becomes what the pairs need.
  void backward() {
    Vec good = splat(1.0f), all = {};
    for (int64_t t = longest_ - 1; t >= 0; --t) {
      float *right = at(right_, t), *weights = at(weights_, t);
      const IVec last = load(lengths_) <= splat(static_cast<float>(t + 1));
      if (t == longest_ - 1)
        for (int i = 0; i < tags_; ++i) store(right + i * kWidth, splat(s_.steps.end[i]));
      else
        each_product(with_ + (t + 1) % 2 * tags_ * kWidth, s_.steps.backward,
                     [&, by = 1.0f / all](int i, Vec out) {
                       store(right + i * kWidth, choose(last, splat(s_.steps.end[i]), out * by));
                     });
      all = settle(t, right, weights, with_ + t % 2 * tags_ * kWidth, good);
    }
    store(good_, good);
  }

  // The sum of the right message with its own emission, which goes to `with`.
  Vec settle(int64_t t, float* right, float* weights, float* with, Vec& good) const {
    const float* left = at(left_, t);
    Vec total = {}, all = {};
    for (int j = 0; j < tags_; ++j) {
      const Vec message = load(right + j * kWidth), value = message * load(weights + j * kWidth);
      total += load(left + j * kWidth) * message;
      store(with + j * kWidth, value);
      all += value;
    }
    const IVec real = load(lengths_) > splat(static_cast<float>(t));
    const Vec scale = t > 0 ? load(scale_ + (t - 1) * kWidth) : splat(1.0f);
    const Vec least = smaller(total * scale, total);
    good = choose(real & ~(least > splat(kEnough)), Vec{}, good);
    const Vec by = load(factors_) / total, ratio = load(factors_) / (total * scale);
    store(totals_ + t * kWidth, total);
    for (int j = 0; j < tags_; ++j) {
      store(weights + j * kWidth, load(left + j * kWidth) * load(right + j * kWidth) * by);
      store(right + j * kWidth, choose(real, load(with + j * kWidth) * ratio, Vec{}));
    }
    return all;
  }

  double value(int n) const {
    const int64_t length = sweeps_[n].length;
    double shifts = 0.0;
    for (int64_t t = 0; t < length; ++t) shifts += shifts_[t * kWidth + n];
    const double last = std::log(double(totals_[(length - 1) * kWidth + n]));
    return shifts + log_product(scale_ + n, length - 1, kWidth) + last + s_.steps.peaks(length);
  }

  void put_gradients(bool adds) const {
    for (int64_t t = 0; t < longest_; ++t)
      for (int n = 0; n < count_ && t < sweeps_[n].length; n += kBlock) {
        const int j = put_blocks(t, n, adds);
        for (int k = n; k < std::min(count_, n + kBlock) && j < tags_; ++k) {
          if (!put_now(t, k, adds)) continue;
          const float* from = at(weights_, t) + k;
          float* to = sweeps_[k].d_emissions + t * s_.d_time;
          for (int i = j; !adds && i < tags_; ++i) to[i] = from[i * kWidth];
          for (int i = j; adds && i < tags_; ++i) to[i] += from[i * kWidth];
        }
      }
  }

  bool put_now(int64_t t, int n, bool adds) const {
    return t < sweeps_[n].length && sweeps_[n].adds == adds && good_[n] > 0.0f;
  }

  int put_blocks(int64_t t, int n, bool adds) const {
    const float* from[kBlock];
    float* to[kBlock];
    if (adds || n + kBlock > count_) return 0;
    for (int k = 0; k < kBlock; ++k) {
      if (!put_now(t, n + k, false)) return 0;
      to[k] = sweeps_[n + k].d_emissions + t * s_.d_time;
    }
    int j = 0;
    for (; j + kBlock <= tags_; j += kBlock) {
      for (int k = 0; k < kBlock; ++k) from[k] = at(weights_, t) + (j + k) * kWidth + n;
      transpose(from, to);
      for (int k = 0; k < kBlock; ++k) to[k] += kBlock;
    }
    return j;
  }

  // What a sentence adds to the gradients of start and end scores.
  void add_ends(int n) const {
    const float *first = weights_ + n, *last = at(weights_, sweeps_[n].length - 1) + n;
    for (int j = 0; j < tags_; ++j) {
      s_.sums->start[j] += first[j * kWidth];
      s_.sums->end[j] += last[j * kWidth];
    }
  }

  // Adds left[t - 1][i] * right[t][j] over all t, lane by lane and then over the lanes.
  template <int kRows, int kColumns>
  void add_pairs(int i, int j) const {
    Vec sums[kRows][kColumns] = {};
    const float *left = left_ + i * kWidth, *right = right_ + j * kWidth;
    for (int64_t t = 1; t < longest_; ++t, left += tags_ * kWidth) {
      right += tags_ * kWidth;
      Vec columns[kColumns];
      UNROLLED
      for (int k = 0; k < kColumns; ++k) columns[k] = load(right + k * kWidth);
      UNROLLED
      for (int r = 0; r < kRows; ++r) {
        const Vec row = load(left + r * kWidth);
        UNROLLED
        for (int k = 0; k < kColumns; ++k) sums[r][k] = row * columns[k] + sums[r][k];
      }
    }
    const IVec good = load(good_) > Vec{};
    for (int r = 0; r < kRows; ++r)
      for (int k = 0; k < kColumns; ++k)
        s_.sums->pairs[(i + r) * s_.scores.width + j + k] += sum(choose(good, sums[r][k], Vec{}));
  }

  template <int kRows, int kColumns>
  void add_some_pairs(int rows, int columns, int i, int j) const {
    if constexpr (kRows > 0 && kColumns > 0) {
      if (rows < kRows) add_some_pairs<kRows - 1, kColumns>(rows, columns, i, j);
      else if (columns < kColumns) add_some_pairs<kRows, kColumns - 1>(rows, columns, i, j);
      else add_pairs<kRows, kColumns>(i, j);
    }
  }

  void add_all_pairs() const {
    constexpr int kMost = kRegisters == 32 ? 4 : 3;
    const int blocks = (tags_ + kMost - 1) / kMost;
    const auto first = [&](int block) { return tags_ * block / blocks; };
    for (int a = 0; a < blocks; ++a)
      for (int b = 0; b < blocks; ++b) {
        const int i = first(a), j = first(b);
        add_some_pairs<kMost, kMost>(first(a + 1) - i, first(b + 1) - j, i, j);
      }
  }

  const Sweep* sweeps_;
  const Sweep& s_;  // the first
  const int count_, tags_;
  const int64_t longest_;
  float *weights_, *left_, *right_;           // (longest, tag, lane)
  float *scale_, *shifts_, *totals_, *with_;  // (longest, lane) three times, (2, tag, lane)
  alignas(64) float lengths_[kWidth], factors_[kWidth], good_[kWidth];
};

}  // namespace seqlab
