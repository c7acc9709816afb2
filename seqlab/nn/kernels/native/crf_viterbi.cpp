// The best tag sequence of each sentence (Viterbi, 1967).
//
// Only the best scores are kept on the way up; the choice is made again along the chosen sequence. The
// additions are those of the plain kernel, in its order, so that both choose alike.
#include <algorithm>

#include "crf.h"

namespace seqlab {
namespace {

constexpr int64_t kSettleEvery = 16;  // as in crf_search.py, which says why

struct Call {
  Given given;
  void* paths;  // (batch, time) of `bytes` each: ids, and -1 behind a sentence
  int64_t paths_batch, paths_time, bytes;
  int64_t* lengths;  // (batch) or null
  float* scores;     // (batch) or null
};

// best[v] = the greatest of from[i] + table[i][v] over i.
template <int kVectors>
inline void greatest_sums(const float* from, int tags, const float* table, int width, Vec* best) {
  constexpr int kChains = kVectors <= 2 ? 2 : 1;
  Vec tops[kChains][kVectors];
  for (int c = 0; c < kChains; ++c)
    for (int v = 0; v < kVectors; ++v) tops[c][v] = splat(kNever);
  int i = 0;
  for (; i + kChains <= tags; i += kChains)
    for (int c = 0; c < kChains; ++c) {
      const Vec start = splat(from[i + c]);
      const float* row = table + static_cast<size_t>(i + c) * width;
      for (int v = 0; v < kVectors; ++v) tops[c][v] = larger(start + load(row + v * kWidth), tops[c][v]);
    }
  for (; i < tags; ++i) {
    const Vec start = splat(from[i]);
    const float* row = table + static_cast<size_t>(i) * width;
    for (int v = 0; v < kVectors; ++v) tops[0][v] = larger(start + load(row + v * kWidth), tops[0][v]);
  }
  for (int v = 0; v < kVectors; ++v) {
    best[v] = tops[0][v];
    for (int c = 1; c < kChains; ++c) best[v] = larger(best[v], tops[c][v]);
  }
}

struct Search {
  const Call& call;
  Scores scores;
  std::vector<float> into;  // (next tag, width of previous tags)
  std::vector<int64_t> lengths;

  explicit Search(const Call& call)
      : call(call), scores(call.given), into(scores.transitions.size(), kNever) {
    for (int i = 0; i < scores.tags; ++i)
      for (int j = 0; j < scores.tags; ++j)
        into[static_cast<size_t>(j) * scores.width + i] = scores.row(i)[j];
  }

  void put(int64_t b, int64_t t, int64_t tag) const {
    const int64_t at = b * call.paths_batch + t * call.paths_time;
    switch (call.bytes) {
      case 1: static_cast<uint8_t*>(call.paths)[at] = static_cast<uint8_t>(tag); break;
      case 2: static_cast<uint16_t*>(call.paths)[at] = static_cast<uint16_t>(tag); break;
      default: static_cast<int64_t*>(call.paths)[at] = tag;
    }
  }
};

// The first place of the greatest of from[i] + with[i].
inline int first_greatest(const float* from, const float* with, int width) {
  Vec top = load(from) + load(with);
  for (int v = kWidth; v < width; v += kWidth) top = larger(load(from + v) + load(with + v), top);
  const Vec best = splat(greatest(top));
  for (int v = 0;; v += kWidth) {
    const int place = first_true(load(from + v) + load(with + v) == best);
    if (place < kWidth || v + kWidth >= width) return v + (place < kWidth ? place : 0);
  }
}

void climb(const Search& s, int64_t b, int64_t length, float* table) {
  const int tags = s.scores.tags, width = s.scores.width, vectors = width / kWidth;
  const Given& given = s.call.given;
  const float* x = given.at(b, 0);
  for (int v = 0; v < vectors; ++v)
    store(table + v * kWidth, emitted(x, v, tags, 0.0f) + load(s.scores.start.data() + v * kWidth));
  for (int64_t t = 1; t < length; ++t, table += width) {
    float* to = table + width;
    const float* steps = s.scores.transitions.data();
    x = given.at(b, t);
    auto use = [&](int v, const Vec* best, int n) {
      for (int k = 0; k < n; ++k)
        store(to + (v + k) * kWidth, best[k] + emitted(x, v + k, tags, 0.0f));
    };
    Vec best[4];
    int v = 0;
    for (; vectors - v >= 4; v += 4) greatest_sums<4>(table, tags, steps + v * kWidth, width, best), use(v, best, 4);
    switch (vectors - v) {
      case 1: greatest_sums<1>(table, tags, steps + v * kWidth, width, best); use(v, best, 1); break;
      case 2: greatest_sums<2>(table, tags, steps + v * kWidth, width, best); use(v, best, 2); break;
      case 3: greatest_sums<3>(table, tags, steps + v * kWidth, width, best); use(v, best, 3); break;
    }
    if (t % kSettleEvery) continue;
    Vec top = load(to);
    for (int u = kWidth; u < width; u += kWidth) top = larger(load(to + u), top);
    const float peak = greatest(top);
    if (peak == kNever) continue;
    for (int u = 0; u < width; u += kWidth) store(to + u, load(to + u) - splat(peak));
  }
}

bool undefined(const Search& s, int64_t b, int64_t length) {
  Vec bad = {};
  const int tags = s.scores.tags, width = s.scores.width;
  for (int64_t t = 0; t < length; ++t)
    for (int v = 0; v * kWidth < width; ++v) {
      const Vec x = emitted(s.call.given.at(b, t), v, tags, 0.0f);
      bad = choose(x < splat(kTooMuch), bad, splat(1.0f));
    }
  const Scores& c = s.scores;
  return greatest(bad) > 0.0f || strange(c.start.data(), tags) || strange(c.end.data(), tags) ||
         (length > 1 && strange(c.transitions.data(), c.transitions.size()));
}

// Score of the chosen sequence, of which the first and the last tag are given; NaN or -inf where there
// is none.
float search(const Search& s, int64_t b, float* table) {
  const int64_t length = s.lengths[b];
  const int width = s.scores.width;
  const Given& given = s.call.given;
  for (int64_t t = length; t < given.time; ++t) s.put(b, t, -1);
  if (length == 0) return 0.0f;
  climb(s, b, length, table);
  const float* last = table + (length - 1) * width;
  int tag = first_greatest(last, s.scores.end.data(), width);
  const float best = last[tag] + s.scores.end[tag];
  double score = s.scores.end[tag];
  s.put(b, length - 1, tag);
  for (int64_t t = length - 1; t > 0; --t) {
    const float* into = s.into.data() + static_cast<size_t>(tag) * width;
    const int before = first_greatest(table + (t - 1) * width, into, width);
    score += double(given.at(b, t)[tag]) + into[before];
    s.put(b, t - 1, tag = before);
  }
  score += double(given.at(b, 0)[tag]) + s.scores.start[tag];
  if (undefined(s, b, length) || !(best < kTooMuch)) return std::numeric_limits<float>::quiet_NaN();
  return best == kNever ? kNever : static_cast<float>(score);
}

int64_t viterbi(const Call& call) {
  Search s(call);
  const Given& given = call.given;
  if (!lengths_of(given, s.lengths)) return kHole;
  if (call.lengths) std::copy(s.lengths.begin(), s.lengths.end(), call.lengths);
  std::vector<uint8_t> suspects(given.batch);
  each(given.batch, given.threads, [&](int64_t b) {
    static thread_local Room room;
    const float score = search(s, b, room.of(s.scores.width * std::max<int64_t>(1, s.lengths[b])));
    if (call.scores) call.scores[b] = score;
    suspects[b] = !(score > kNever);
    room.shrink();
  });
  return std::count(suspects.begin(), suspects.end(), 1) ? kSuspect : 0;
}

}  // namespace
}  // namespace seqlab

extern "C" int64_t seqlab_crf_viterbi(const seqlab::Call* call) { return seqlab::viterbi(*call); }
