// One sweep over one sentence, and how it is done with logarithms in double precision.
#pragma once

#include <algorithm>

#include "crf.h"

namespace seqlab {

constexpr int64_t kAnyTag = -1;

// Exponentials of the scores, less the greatest of each kind.
struct Steps {
  Room room;
  float *start, *end, *forward, *backward;  // (width), (width), twice (tag, width)
  float start_peak, end_peak, peak;

  explicit Steps(const Scores& scores) {
    const size_t width = scores.width, all = width * scores.tags;
    start = room.of(2 * width + 2 * all);
    end = start + width;
    forward = end + width;
    backward = forward + all;
    start_peak = exponentials(scores.start.data(), start, width);
    end_peak = exponentials(scores.end.data(), end, width);
    peak = exponentials(scores.transitions.data(), forward, all);
    std::fill_n(backward, all, 0.0f);
    for (int i = 0; i < scores.tags; ++i)
      for (int j = 0; j < scores.tags; ++j) backward[j * width + i] = forward[i * width + j];
  }

  // What the peaks add to the score of each sequence.
  double peaks(int64_t length) const { return start_peak + (end_peak + double(length - 1) * peak); }

 private:
  static float exponentials(const float* from, float* to, size_t n) {
    Vec top = splat(kNever);
    for (size_t i = 0; i < n; i += kWidth) top = larger(load(from + i), top);
    const float peak = greatest(top);
    const Vec shift = splat(peak == kNever ? 0.0f : peak);
    for (size_t i = 0; i < n; i += kWidth) store(to + i, exponential(load(from + i) - shift));
    return peak == kNever ? 0.0f : peak;
  }
};

inline double log_product(const float* factors, int64_t n, int64_t stride) {
  double log = 0.0, product = 1.0;
  for (int64_t i = 0; i < n; ++i) {
    product *= factors[i * stride];
    if (product > 1e-200 && product < 1e200) continue;
    log += std::log(product);
    product = 1.0;
  }
  return log + std::log(product);
}

inline void add(float* to, Vec value) { store(to, load(to) + value); }

// An entry of a message that was lost was below the smallest normal number. No entry exceeds 1, so it
// would have added less than that number to the sum over the tags of the product of both messages;
// before the left one was scaled, less than that number times the scale. While both sums are this much,
// the smallest normal number over eps^2, all losses together are below rounding.
constexpr float kEnough = 1.17549435e-38f / (1.1920929e-7f * 1.1920929e-7f);

// Gradients that sentences add up, one after the other.
struct Sums {
  float *start, *end, *pairs;  // (width), (width), (tag, width) less their step
  // (tag, width) with it. Of two tags that follow each other a thousand times the same small number is
  // added a thousand times, which in single precision goes wrong in one direction.
  double* seen;
};

// Questions about runs of tags: how probable each is.
struct Queries {
  const int64_t *starts, *begins, *tags;  // where the tags of query n are: begins[n] to begins[n + 1]
  float* chances;
  std::vector<int64_t> order, firsts;  // queries sentence by sentence, and each sentence's first
};

// What is true of one sweep over one sentence.
struct Sweep {
  const Given& given;
  const Scores& scores;
  const Steps& steps;
  int64_t row, length;
  const int64_t* known;  // tags that are given, or null: any tag may be anywhere
  int64_t known_stride;
  float weight;         // of its marginals in the gradient
  float* d_emissions;   // or null
  int64_t d_time;
  bool adds;            // to what is in d_emissions, in place of replacing it
  Sums* sums;           // or null
  const Queries* queries;  // or null

  int64_t tag(int64_t t) const { return known ? known[t * known_stride] : kAnyTag; }
};

// Answers the queries about one sentence, from the probability of a tag and of two neighbours: that of
// the first tag, times that of each following one if the one before is given.
template <typename Chance, typename Pair>
void answer(const Sweep& s, Chance chance, Pair pair) {
  const Queries& q = *s.queries;
  for (int64_t n = q.firsts[s.row]; n < q.firsts[s.row + 1]; ++n) {
    const int64_t query = q.order[n], size = q.begins[query + 1] - q.begins[query];
    const int64_t* tags = q.tags + q.begins[query];
    double result = size ? chance(q.starts[query], tags[0]) : 1.0;
    for (int64_t k = 1; k < size; ++k) {
      const int64_t t = q.starts[query] + k;
      const double both = pair(t, tags[k - 1], tags[k]), one = chance(t - 1, tags[k - 1]);
      result *= both > 0.0 ? std::min(1.0, both / one) : 0.0;
    }
    q.chances[query] = static_cast<float>(result);
  }
}

// Messages with logarithms: `left` with the emissions up to a position, `right` behind it.
class LogSweep {
 public:
  explicit LogSweep(const Sweep& s)
      : s_(s), tags_(s.scores.tags), x_(s.length * tags_), left_(x_.size()), right_(x_.size()) {
    for (int64_t t = 0; t < s.length; ++t)
      for (int j = 0; j < tags_; ++j)
        x_[t * tags_ + j] = s.tag(t) == kAnyTag || s.tag(t) == j ? s.given.at(s.row, t)[j] : kNever;
  }

  double run() {
    if (undefined()) {
      spoil();
      return std::numeric_limits<double>::quiet_NaN();
    }
    forward();
    backward();
    const double* last = &left_[(s_.length - 1) * tags_];
    const double all = log_sum([&](int j) { return last[j] + s_.scores.end[j]; });
    const bool possible = all > kNever;
    if (s_.d_emissions || s_.sums) marginals(possible ? all : 0.0, possible);
    if (s_.sums && possible) pairs(all);
    if (s_.queries && possible)
      answer(s_, [&](int64_t t, int64_t i) { return chance(t, i, all); },
             [&](int64_t t, int64_t i, int64_t j) { return pair(t, i, j, all); });
    return all;
  }

 private:
  double chance(int64_t t, int64_t i, double all) const {
    return std::exp(left_[t * tags_ + i] + right_[t * tags_ + i] - all);
  }

  double pair(int64_t t, int64_t i, int64_t j, double all) const {  // i at t - 1, j at t
    const double emitted = x_[t * tags_ + j] + right_[t * tags_ + j];
    return std::exp(left_[(t - 1) * tags_ + i] + s_.scores.row(i)[j] + (emitted - all));
  }

  template <typename Term>
  double log_sum(Term term) const {
    double top = kNever;
    for (int i = 0; i < tags_; ++i) top = std::max(top, term(i));
    if (top == kNever) return top;
    double sum = 0.0;
    for (int i = 0; i < tags_; ++i) {
      const double less = term(i) - top;
      if (less > kNothing) sum += std::exp(less);
    }
    return top + std::log(sum);
  }

  // Whether NaN or +inf stands among the numbers that decide; the transitions do so from two tokens on.
  bool undefined() const {
    for (int64_t t = 0; t < s_.length; ++t)
      if (strange(s_.given.at(s_.row, t), tags_)) return true;
    const Scores& c = s_.scores;
    return strange(c.start.data(), c.width) || strange(c.end.data(), c.width) ||
           (s_.length > 1 && strange(c.transitions.data(), c.transitions.size()));
  }

  // Makes NaN of every number that such a sentence has a part in.
  void spoil() {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    if (s_.d_emissions)
      for (int64_t t = 0; t < s_.length; ++t) std::fill_n(s_.d_emissions + t * s_.d_time, tags_, nan);
    if (!s_.sums) return;
    std::fill_n(s_.sums->start, tags_, nan);
    std::fill_n(s_.sums->end, tags_, nan);
    if (s_.length > 1) std::fill_n(s_.sums->seen, s_.scores.transitions.size(), double(nan));
  }

  void forward() {
    for (int j = 0; j < tags_; ++j) left_[j] = s_.scores.start[j] + x_[j];
    for (int64_t t = 1; t < s_.length; ++t)
      for (int j = 0; j < tags_; ++j) {
        const double* before = &left_[(t - 1) * tags_];
        const double x = x_[t * tags_ + j];
        left_[t * tags_ + j] =
            x == kNever ? x : x + log_sum([&](int i) { return before[i] + s_.scores.row(i)[j]; });
      }
  }

  void backward() {
    for (int j = 0; j < tags_; ++j) right_[(s_.length - 1) * tags_ + j] = s_.scores.end[j];
    std::vector<double> next(tags_);
    for (int64_t t = s_.length - 2; t >= 0; --t) {
      for (int j = 0; j < tags_; ++j) next[j] = x_[(t + 1) * tags_ + j] + right_[(t + 1) * tags_ + j];
      for (int i = 0; i < tags_; ++i)
        right_[t * tags_ + i] = log_sum([&](int j) { return s_.scores.row(i)[j] + next[j]; });
    }
  }

  void marginals(double all, bool possible) {
    for (int64_t t = 0; t < s_.length; ++t)
      for (int j = 0; j < tags_; ++j) {
        const float share = possible ? s_.weight * static_cast<float>(chance(t, j, all)) : 0.0f;
        if (s_.sums && t == 0) s_.sums->start[j] += share;
        if (s_.sums && t == s_.length - 1) s_.sums->end[j] += share;
        if (!s_.d_emissions) continue;
        float& to = s_.d_emissions[t * s_.d_time + j];
        to = s_.adds ? to + share : share;
      }
  }

  void pairs(double all) {
    std::vector<double> next(tags_);
    for (int64_t t = 1; t < s_.length; ++t) {
      for (int j = 0; j < tags_; ++j) next[j] = x_[t * tags_ + j] + right_[t * tags_ + j] - all;
      for (int i = 0; i < tags_; ++i) {
        const double left = left_[(t - 1) * tags_ + i];
        double* to = s_.sums->seen + static_cast<size_t>(i) * s_.scores.width;
        for (int j = 0; j < tags_; ++j) {
          const double log = left + s_.scores.row(i)[j] + next[j];
          if (log > kNothing) to[j] += s_.weight * std::exp(log);
        }
      }
    }
  }

  static constexpr double kNothing = -60.0;  // its exponential is lost beside 1, in 512 terms too
  const Sweep& s_;
  const int tags_;
  std::vector<double> x_, left_, right_;
};

inline double sweep_in_logs(const Sweep& s) { return LogSweep(s).run(); }

}  // namespace seqlab
