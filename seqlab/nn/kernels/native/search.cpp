// The best continuations of a step of search: each row of logits is read twice, and nothing as large as
// a vocabulary is written.
#include <algorithm>
#include <cmath>
#include <vector>

#include "vector.h"

namespace seqlab {
namespace {

constexpr int64_t kBlock = 64;  // logits that are passed over at once where none can be chosen

// What Python hands over, in this order. Null pointers stand for what is not asked.
struct Choosing {
  const float* logits;       // (sentence, hypothesis, size)
  const float* base;         // (sentence, hypothesis): added to what is found
  const uint8_t* last;       // (sentence): whether nothing may be chosen there
  const int64_t* forbidden;  // (forbidden): tokens that are never chosen
  float* totals;             // (sentence, count)
  int64_t* parents;          // (sentence, count)
  int64_t* tokens;           // (sentence, count)
  float* ended;              // (sentence, hypothesis): what the end token comes to
  int64_t sentences, hypotheses, size, count, forbiddens, end, padding;
  int64_t normalised;  // whether totals are log-probabilities; else the logits themselves
  int64_t threads;
};

struct Candidate {
  float total;
  int64_t parent, token;
};

// One hypothesis: what a logit of it comes to.
struct Scale {
  float most = 0.0f, log = 0.0f, base = 0.0f;

  // In this order, in which rounding keeps the order of logits.
  float total(float x) const { return ((x - most) - log) + base; }
};

float greatest_of(const float* x, int64_t count) {
  Vec most = splat(-INFINITY);
  int64_t at = 0;
  for (; at + kWidth <= count; at += kWidth) most = larger(load(x + at), most);
  float found = greatest(most);
  for (; at < count; ++at) found = std::max(found, x[at]);
  return found;
}

// NaN if a logit is; never less than 1 otherwise, but for a row without any probability.
float sum_of_powers(const float* x, int64_t count, float most) {
  Vec total = Vec{};
  int64_t at = 0;
  for (; at + kWidth <= count; at += kWidth) total += exponential(load(x + at) - most);
  if (at < count) {
    const int64_t left = count - at;
    total += exponential(load_some(x + at, static_cast<int>(left), -INFINITY) - most);
  }
  return sum(total);
}

struct Chooser {
  const Choosing& all;
  std::vector<float> blocks;     // the greatest logit of each block
  std::vector<Candidate> found;  // of the sentence, the best first

  explicit Chooser(const Choosing& choosing)
      : all(choosing), blocks(static_cast<size_t>((choosing.size + kBlock - 1) / kBlock)) {
    found.reserve(static_cast<size_t>(choosing.count) + 1);
  }

  void sentence(int64_t number) {
    found.clear();
    const bool closed = all.last != nullptr && all.last[number];
    for (int64_t parent = 0; parent < all.hypotheses; ++parent) {
      const int64_t row = number * all.hypotheses + parent;
      const float* x = all.logits + row * all.size;
      const Scale scale = prepared(row, x, !closed);
      if (all.ended != nullptr) all.ended[row] = scale.total(x[all.end]);
      if (!closed) look_through(x, scale, parent);
    }
    for (int64_t i = 0; i < all.count; ++i) {
      const bool there = i < static_cast<int64_t>(found.size());
      const Candidate none{-INFINITY, 0, all.padding};
      const Candidate& one = there ? found[static_cast<size_t>(i)] : none;
      all.totals[number * all.count + i] = one.total;
      all.parents[number * all.count + i] = one.parent;
      all.tokens[number * all.count + i] = one.token;
    }
  }

 private:
  Scale prepared(int64_t row, const float* x, bool look) {
    Scale scale;
    if (all.base != nullptr) scale.base = all.base[row];
    if (!look && !all.normalised) return scale;
    float most = -INFINITY;
    for (int64_t block = 0, at = 0; at < all.size; ++block, at += kBlock) {
      const float here = greatest_of(x + at, std::min(kBlock, all.size - at));
      blocks[static_cast<size_t>(block)] = here;
      most = std::max(most, here);
    }
    if (all.normalised) {
      scale.most = most;
      scale.log = std::log(sum_of_powers(x, all.size, most));
    }
    return scale;
  }

  // Tokens come in ascending order and those of earlier hypotheses first, so that of equals the one
  // that was there stays ahead.
  void look_through(const float* x, const Scale& scale, int64_t parent) {
    const size_t count = static_cast<size_t>(all.count);
    for (int64_t block = 0, at = 0; at < all.size; ++block, at += kBlock) {
      const float best = scale.total(blocks[static_cast<size_t>(block)]);
      if (!(best > (found.size() < count ? -INFINITY : found.back().total))) continue;
      const int64_t last = std::min(all.size, at + kBlock);
      for (int64_t token = at; token < last; ++token) {
        const float total = scale.total(x[token]);
        if (!(total > (found.size() < count ? -INFINITY : found.back().total))) continue;
        if (!is_forbidden(token)) put({total, parent, token});
      }
    }
  }

  bool is_forbidden(int64_t token) const {
    for (int64_t i = 0; i < all.forbiddens; ++i)
      if (all.forbidden[i] == token) return true;
    return false;
  }

  void put(const Candidate& one) {
    const auto place =
        std::upper_bound(found.begin(), found.end(), one,
                         [](const Candidate& a, const Candidate& b) { return a.total > b.total; });
    found.insert(place, one);
    if (static_cast<int64_t>(found.size()) > all.count) found.pop_back();
  }
};

}  // namespace
}  // namespace seqlab

extern "C" {

void seqlab_choose(const seqlab::Choosing* choosing) {
#pragma omp parallel num_threads(static_cast<int>(choosing->threads)) if (choosing->threads > 1)
  {
    seqlab::Chooser chooser(*choosing);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < choosing->sentences; ++i) chooser.sentence(i);
  }
}

}  // extern "C"
