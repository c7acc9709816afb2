// LSTM layers backwards: see lstm.h.
//
// First the gradients of the gates' sums, step by step from the end. Then all else at once, as what is
// left are products over all tokens: with D the gradients of the sums (token, 4 hidden), and L what
// the gates were computed from, side by side (token, input + hidden + 1): the input, the hidden state
// of the step before, and a one for the bias. L^T D has the gradients of all weights; D times the
// weights of the input is the input's.

#include "lstm.h"

namespace seqlab {
namespace {

constexpr int64_t kDeep = 512;  // words of tokens over which a product for weights is summed up at once
constexpr int64_t kTogether = 8 * kRows;  // tokens of the input whose gradients are computed at once

template <typename Factors>
struct Backward {
  Shares shares;
  int64_t gates, deep;         // numbers of a token's gates, and words of their gradients
  int64_t state, wide;         // distances of rows
  int64_t words;               // of the tokens
  int64_t seen, blocks;        // columns of L, and how many tiles they make
  int64_t room_of_task;
  bool weights;  // whether their gradients are wanted
  float *recurrent, *input, *d_gates, *left, *tasks;

  // What a task has for itself, first on its way through time, then for products over all tokens.
  struct Task {
    float *d_hidden, *d_cell, *d_gates, *none;
    const float** from;
    float** to;
    Task(const Backward& all, Room& room) {
      d_hidden = room.take(all.shares.rows * all.state);
      d_cell = room.take(all.shares.rows * all.state);
      d_gates = room.take(all.shares.rows * all.wide);
      none = room.take(all.state);
      from = room.take<const float*>(all.shares.rows);
      to = room.take<float*>(all.shares.rows);
    }
  };
  struct Product {
    float *right, *sums, *rows, *joined;
    const float** from;
    float** to;
    Product(const Backward& all, Room& room) {
      right = room.take(kDeep * kPanel);
      sums = room.take(all.blocks * kRows * kPanel);
      rows = room.take(all.blocks * kRows * Factors::kNumbers);
      joined = room.take(all.blocks * kRows);
      from = room.take<const float*>(kTogether);
      to = room.take<float*>(std::max(kTogether, all.blocks * kRows));
    }
  };

  Backward(const Layer& layer, Room& room)
      : shares(layer, room),
        gates(layer.columns()),
        deep(Factors::words(gates)),
        state(spaced(layer.hidden)),
        wide(spaced(deep)),
        words(Factors::words(layer.tokens)),
        seen(layer.input + layer.hidden + 1),
        blocks((seen + kRows - 1) / kRows) {
    const int64_t ways = layer.directions;
    const auto wanted = [](const float* p) { return p != nullptr; };
    weights = std::any_of(layer.d_weights, layer.d_weights + 4 * ways, wanted);
    recurrent = room.take(ways * packed_size(deep, layer.hidden));
    input = room.take(layer.d_x ? ways * packed_size(deep, layer.input) : 0);
    d_gates = room.take(ways * layer.tokens * wide);
    left = room.take(weights ? ways * blocks * kRows * words : 0);
    Room task(nullptr), product(nullptr);
    Task(*this, task);
    Product(*this, product);
    room_of_task = std::max(task.used(), product.used());
    tasks = room.take(std::max(ways * shares.slices, layer.threads) * room_of_task);
  }

  float* d_gates_of(int64_t token) const { return d_gates + token * wide; }
  float* memory_of(int64_t task) const { return tasks + task * room_of_task; }
};

template <typename Factors>
void pack_weights(const Layer& layer, const Backward<Factors>& all, int64_t direction) {
  const float* const* weights = layer.weights + 4 * direction;
  const int64_t gates = all.gates, deep = all.deep;
  const auto pack = [gates, deep](const float* from, int64_t columns, float* to) {
    for (int64_t panel = 0; panel < panels(columns); ++panel)
      Factors::pack_panel(from, gates, columns, panel, to + deep * panel * kPanel);
  };
  pack(weights[1], layer.hidden, all.recurrent + direction * packed_size(deep, layer.hidden));
  if (layer.d_x)
    pack(weights[0], layer.input, all.input + direction * packed_size(deep, layer.input));
}

// Which token of the batch has a number: numbers are asked for as they rise.
class Tokens {
 public:
  Tokens(const Layer& layer, const Shares& shares, int64_t first)
      : layer_(layer), starts_(shares.starts) {
    sequence_ = std::upper_bound(starts_, starts_ + layer.batch, first) - starts_ - 1;
  }
  void go_to(int64_t token) {
    while (token >= starts_[sequence_] + layer_.lengths[sequence_]) ++sequence_;
    place_ = token - starts_[sequence_];
  }
  int64_t sequence() const { return sequence_; }
  int64_t place() const { return place_; }

 private:
  const Layer& layer_;
  const int64_t* starts_;
  int64_t sequence_, place_ = 0;
};

// The row of L of a token.
void write_seen(const Layer& layer, int64_t direction, const Tokens& at, float* row) {
  const int64_t input = layer.input, hidden = layer.hidden;
  std::copy_n(layer.token(at.sequence(), at.place()), input, row);
  const int64_t before = direction ? at.place() + 1 : at.place() - 1;
  if (before < 0 || before == layer.lengths[at.sequence()])
    std::fill_n(row + input, hidden, 0.0f);
  else
    std::copy_n(layer.out + layer.output(at.sequence(), before, direction), hidden, row + input);
  row[input + hidden] = 1.0f;
}

// Packs L for some words of tokens.
template <typename Factors>
void pack_seen(const Layer& layer, const Backward<Factors>& all, int64_t direction, int64_t first) {
  Room room(all.memory_of(own_number()));
  const typename Backward<Factors>::Product own(all, room);
  const int64_t width = all.blocks * kRows, numbers = Factors::kNumbers;
  Tokens at(layer, all.shares, first * numbers);
  std::fill_n(own.rows, width * numbers, 0.0f);
  for (int64_t word = first; word < std::min(first + kTogether, all.words); ++word) {
    for (int64_t i = 0; i < numbers; ++i) {
      const int64_t token = word * numbers + i;
      if (token < layer.tokens) {
        at.go_to(token);
        write_seen(layer, direction, at, own.rows + i * width);
      } else {
        std::fill_n(own.rows + i * width, width, 0.0f);
      }
    }
    Factors::join(own.rows, width, own.joined);
    for (int64_t block = 0; block < all.blocks; ++block)
      std::copy_n(own.joined + block * kRows, kRows,
                  all.left + ((direction * all.blocks + block) * all.words + word) * kRows);
  }
}

struct Step {
  const float *gates, *cell, *before, *d_out;
  float *d_hidden, *d_cell, *d_gates, *kept;
};

// From the gradient of a step's output, and what the step after it hands back, to the gradients of
// the sums of its gates, written twice.
template <typename Factors>
void differentiate(int64_t hidden, const Step& at) {
  for (int64_t j = 0; j < hidden; j += kWidth) {
    const int64_t left = hidden - j;
    const auto gate = [&](int k) { return load_up_to(at.gates + k * hidden + j, left); };
    const Vec i = gate(0), f = gate(1), g = gate(2), o = gate(3);
    const Vec squashed = hyperbolic_tangent(load_up_to(at.cell + j, left));
    const Vec d_h = load_up_to(at.d_out + j, left) + load(at.d_hidden + j);
    const Vec d_c = load(at.d_cell + j) + d_h * o * (1.0f - squashed * squashed);
    store(at.d_cell + j, d_c * f);
    const Vec found[4] = {d_c * g * i * (1.0f - i),
                          d_c * load_up_to(at.before + j, left) * f * (1.0f - f),
                          d_c * i * (1.0f - g * g), d_h * squashed * o * (1.0f - o)};
    for (int k = 0; k < 4; ++k) {
      Factors::put(at.d_gates, k * hidden + j, found[k], left);
      Factors::put(at.kept, k * hidden + j, found[k], left);
    }
  }
}

template <typename Factors>
void go_back(const Layer& layer, const Backward<Factors>& all, int64_t task) {
  const Rows rows(layer, all.shares, task);
  Room room(all.memory_of(task));
  const typename Backward<Factors>::Task own(all, room);
  const int64_t hidden = layer.hidden;
  const float* weights = all.recurrent + rows.direction * packed_size(all.deep, hidden);
  std::fill_n(own.d_hidden, all.shares.rows * all.state, 0.0f);
  std::fill_n(own.d_cell, all.shares.rows * all.state, 0.0f);
  std::fill_n(own.none, all.state, 0.0f);
  for (int64_t row = 0; row < rows.count; ++row) {
    own.from[row] = own.d_gates + row * all.wide;
    own.to[row] = own.d_hidden + row * all.state;
  }
  int64_t alive = 0;
  for (int64_t step = rows.longest() - 1; step >= 0; --step) {
    while (alive < rows.count && rows.length(alive) > step) ++alive;
    for (int64_t row = 0; row < alive; ++row) {
      const int64_t token = rows.token(row, step);
      const float* cell = layer.cells + token * hidden;
      const float* before =
          step ? layer.cells + rows.token(row, step - 1) * hidden : own.none;
      differentiate<Factors>(hidden, {layer.gates + token * all.gates, cell, before,
                                      layer.d_out + rows.output(row, step), own.to[row],
                                      own.d_cell + row * all.state, own.d_gates + row * all.wide,
                                      all.d_gates_of(token)});
    }
    if (step)
      multiply_all<Factors>(all.deep, own.from, alive, weights, hidden, own.to, false, nullptr);
  }
}

// The gradients of all weights of a direction for a panel of gates.
template <typename Factors>
void sum_up(const Layer& layer, const Backward<Factors>& all, int64_t direction, int64_t panel) {
  Room room(all.memory_of(own_number()));
  const typename Backward<Factors>::Product own(all, room);
  const int64_t first = panel * kPanel, columns = std::min(kPanel, all.gates - first);
  for (int64_t row = 0; row < all.blocks * kRows; ++row) own.to[row] = own.sums + row * kPanel;
  int64_t word = 0;
  do {  // even without tokens
    const int64_t depth = std::min(kDeep, all.words - word), token = word * Factors::kNumbers;
    Factors::pack_rows(all.d_gates_of(direction * layer.tokens + token), all.wide,
                       std::min(depth * Factors::kNumbers, layer.tokens - token), all.gates, panel,
                       own.right);
    for (int64_t block = 0; block < all.blocks; ++block) {
      const int64_t start = (direction * all.blocks + block) * all.words + word;
      const float* left = all.left + start * kRows;
      const int64_t rows = std::min<int64_t>(kRows, all.seen - block * kRows);
      const Tile one = columns > kWidth ? tile_of<Factors, 2, true>(rows)
                                        : tile_of<Factors, 1, true>(rows);
      one(depth, &left, block * kRows, own.right, {own.to, 0, columns, word > 0, nullptr});
    }
    word += depth;
  } while (word < all.words);

  const int64_t input = layer.input, hidden = layer.hidden;
  float* const* d_weights = layer.d_weights + 4 * direction;
  if (d_weights[0])
    copy_transposed(own.sums, kPanel, input, columns, d_weights[0] + first * input, input, false);
  if (d_weights[1])
    copy_transposed(own.sums + input * kPanel, kPanel, hidden, columns,
                    d_weights[1] + first * hidden, hidden, false);
  for (int bias = 2; bias < 4; ++bias)
    if (d_weights[bias])
      std::copy_n(own.sums + (input + hidden) * kPanel, columns, d_weights[bias] + first);
}

// The gradient of the input for some tokens.
template <typename Factors>
void hand_down(const Layer& layer, const Backward<Factors>& all, int64_t first) {
  Room room(all.memory_of(own_number()));
  const typename Backward<Factors>::Product own(all, room);
  const int64_t count = std::min(kTogether, layer.tokens - first), input = layer.input;
  Tokens at(layer, all.shares, first);
  for (int64_t i = 0; i < count; ++i) {
    at.go_to(first + i);
    own.to[i] = layer.d_x + (at.sequence() * layer.time + at.place()) * input;
  }
  for (int64_t direction = 0; direction < layer.directions; ++direction) {
    for (int64_t i = 0; i < count; ++i)
      own.from[i] = all.d_gates_of(direction * layer.tokens + first + i);
    multiply_all<Factors>(all.deep, own.from, count,
                          all.input + direction * packed_size(all.deep, input), input, own.to,
                          direction > 0, nullptr);
  }
}

void clear_padding(const Layer& layer, int64_t sequence) {
  const int64_t length = layer.lengths[sequence];
  std::fill_n(layer.d_x + (sequence * layer.time + length) * layer.input,
              (layer.time - length) * layer.input, 0.0f);
}

template <typename Factors>
void run(const Layer& layer) {
  Room room(layer.scratch);
  Backward<Factors> all(layer, room);
  all.shares.sort(layer);
  const auto parts = [](int64_t count) { return (count + kTogether - 1) / kTogether; };
  const int64_t ways = layer.directions, tasks = ways * all.shares.slices;
  const int64_t sums = all.weights ? ways * panels(all.gates) : 0;
  const int64_t inputs = layer.d_x ? parts(layer.tokens) : 0;
#pragma omp parallel num_threads(static_cast<int>(layer.threads))
  {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < ways; ++i) pack_weights(layer, all, i);
    if (layer.d_x) {
#pragma omp for schedule(static) nowait
      for (int64_t i = 0; i < layer.batch; ++i) clear_padding(layer, i);
    }
    if (all.weights) {
#pragma omp for schedule(static)
      for (int64_t i = 0; i < ways * parts(all.words); ++i)
        pack_seen(layer, all, i % ways, i / ways * kTogether);
    }
#pragma omp for schedule(static)
    for (int64_t i = 0; i < tasks; ++i) go_back(layer, all, i);
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < sums + inputs; ++i) {
      if (i < sums)
        sum_up(layer, all, i % ways, i / ways);
      else
        hand_down(layer, all, (i - sums) * kTogether);
    }
  }
}

}  // namespace
}  // namespace seqlab

extern "C" {

// How many floats of scratch memory the way backwards takes.
int64_t seqlab_lstm_backward_room(const seqlab::Layer* layer) {
  return seqlab::with_factors(*layer, [layer](auto factors) {
    seqlab::Room room(nullptr);
    seqlab::Backward<decltype(factors)>(*layer, room);
    return room.used();
  });
}

void seqlab_lstm_backward(const seqlab::Layer* layer) {
  seqlab::with_factors(*layer, [layer](auto factors) { seqlab::run<decltype(factors)>(*layer); });
}

}  // extern "C"
