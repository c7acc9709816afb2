// LSTM layers forwards: see lstm.h.

#include "lstm.h"

namespace seqlab {
namespace {

constexpr int64_t kProjected = 128;  // tokens whose input is multiplied at once; a step's at least

// What is needed on the way.
template <typename Factors>
struct Forward {
  Shares shares;
  int64_t gates;                      // numbers of a token's gates
  int64_t input_words, hidden_words;  // of the input and of a hidden state, as factors
  int64_t in, before, state;          // distances of rows: of these two, and of cells
  int64_t most, room_of_task;         // tokens whose gates wait at once
  float *input, *recurrent, *biases, *tasks;

  // What a task has for itself.
  struct Task {
    float *x, *gates, *hidden, *cell;
    const float** from;
    float **to, **unknown_to;
    Task(const Layer& layer, const Forward& all, Room& room) {
      x = room.take(all.most * all.in);
      gates = room.take(layer.gates ? 0 : all.most * all.gates);
      hidden = room.take(all.shares.rows * all.before);
      cell = room.take(all.shares.rows * all.state);
      from = room.take<const float*>(all.most);
      to = room.take<float*>(all.most);
      unknown_to = room.take<float*>(layer.rows ? all.most : 0);
    }
  };

  Forward(const Layer& layer, Room& room)
      : shares(layer, room),
        gates(layer.columns()),
        input_words(Factors::words(layer.input)),
        hidden_words(Factors::words(layer.hidden)),
        in(spaced(input_words)),
        before(spaced(hidden_words)),
        state(spaced(layer.hidden)),
        most(std::max(kProjected, shares.rows)) {
    input = room.take(layer.directions * packed_size(input_words, gates));
    recurrent = room.take(layer.directions * packed_size(hidden_words, gates));
    biases = room.take(layer.directions * gates);
    Room one(nullptr);
    Task(layer, *this, one);
    room_of_task = one.used();
    tasks = room.take(layer.directions * shares.slices * room_of_task);
  }

  float* input_of(int64_t direction) const {
    return input + direction * packed_size(input_words, gates);
  }
  float* recurrent_of(int64_t direction) const {
    return recurrent + direction * packed_size(hidden_words, gates);
  }
};

template <typename Factors>
void pack(const Layer& layer, const Forward<Factors>& all, int64_t direction, int64_t panel) {
  const float* const* weights = layer.weights + 4 * direction;
  const int64_t first = panel * kPanel;
  Factors::pack_panel_transposed(weights[0], layer.input, all.gates, panel,
                                 all.input_of(direction) + all.input_words * first);
  Factors::pack_panel_transposed(weights[1], layer.hidden, all.gates, panel,
                                 all.recurrent_of(direction) + all.hidden_words * first);
  for (int64_t j = first; j < std::min(all.gates, first + kPanel); ++j)
    all.biases[direction * all.gates + j] = weights[2][j] + weights[3][j];
}

// Takes the input of as many steps as there is room for, and computes its part in the gates.
template <typename Factors>
int64_t project(const Layer& layer, const Forward<Factors>& all,
                const typename Forward<Factors>::Task& own, const Rows& rows, int64_t step,
                int64_t alive) {
  int64_t count = 0, unknown = 0, last = step;
  float** const unknown_to = layer.rows ? own.unknown_to : own.to;
  for (; last < rows.longest(); ++last) {
    alive = rows.alive(last, alive);
    if (count && count + alive > all.most) break;
    for (int64_t row = 0; row < alive; ++row, ++count) {
      const int64_t sequence = rows.sequence(row), place = rows.place(row, last);
      float* gates = layer.gates ? layer.gates + rows.token(row, last) * all.gates
                                 : own.gates + count * all.gates;
      own.to[count] = gates;
      if (const float* sum = layer.sum(sequence, place, rows.direction)) {
        std::copy_n(sum, all.gates, gates);
        continue;
      }
      float* x = own.x + unknown * all.in;
      Factors::put_row(layer.token(sequence, place), layer.input, x);
      own.from[unknown] = x;
      unknown_to[unknown++] = gates;
    }
  }
  multiply_all<Factors>(all.input_words, own.from, unknown, all.input_of(rows.direction), all.gates,
                        unknown_to, false, all.biases + rows.direction * all.gates);
  return last;
}

// From the sums of the gates to the gates, the cell and the hidden state.
template <typename Factors>
void activate(int64_t hidden, float* gates, float* cell, float* state, float* out, float* cells) {
  for (int64_t j = 0; j < hidden; j += kWidth) {
    const int64_t left = hidden - j;
    float* at[4];
    for (int k = 0; k < 4; ++k) at[k] = gates + k * hidden + j;
    const Vec i = sigmoid(load_up_to(at[0], left));
    const Vec f = sigmoid(load_up_to(at[1], left));
    const Vec g = hyperbolic_tangent(load_up_to(at[2], left));
    const Vec o = sigmoid(load_up_to(at[3], left));
    const Vec c = f * load(cell + j) + i * g;
    const Vec h = o * hyperbolic_tangent(c);
    store(cell + j, c);
    Factors::put(state, j, h, kWidth);
    store_up_to(out + j, h, left);
    if (cells) {
      store_up_to(at[0], i, left);
      store_up_to(at[1], f, left);
      store_up_to(at[2], g, left);
      store_up_to(at[3], o, left);
      store_up_to(cells + j, c, left);
    }
  }
}

template <typename Factors>
void read(const Layer& layer, const Forward<Factors>& all, int64_t task) {
  const Rows rows(layer, all.shares, task);
  Room room(all.tasks + task * all.room_of_task);
  const typename Forward<Factors>::Task own(layer, all, room);
  const int64_t hidden = layer.hidden;
  const float* recurrent = all.recurrent_of(rows.direction);
  std::fill_n(own.cell, all.shares.rows * all.state, 0.0f);
  int64_t alive = rows.count;
  for (int64_t step = 0; step < rows.longest();) {
    const int64_t last = project(layer, all, own, rows, step, alive);
    for (int64_t row = 0; row < alive; ++row) own.from[row] = own.hidden + row * all.before;
    for (float* const* to = own.to; step < last; ++step, to += alive) {
      alive = rows.alive(step, alive);
      if (step)
        multiply_all<Factors>(all.hidden_words, own.from, alive, recurrent, all.gates, to, true,
                              nullptr);
      for (int64_t row = 0; row < alive; ++row) {
        float* cells = layer.cells ? layer.cells + rows.token(row, step) * hidden : nullptr;
        activate<Factors>(hidden, to[row], own.cell + row * all.state,
                          own.hidden + row * all.before, layer.out + rows.output(row, step), cells);
      }
    }
  }
  for (int64_t row = 0; row < rows.count; ++row)  // padding
    for (int64_t place = rows.length(row); place < layer.time; ++place)
      std::fill_n(layer.out + layer.output(rows.sequence(row), place, rows.direction), hidden, 0.0f);
}

template <typename Factors>
void run(const Layer& layer) {
  Room room(layer.scratch);
  Forward<Factors> all(layer, room);
  all.shares.sort(layer);
  const int64_t each = panels(all.gates), tasks = layer.directions * all.shares.slices;
#pragma omp parallel num_threads(static_cast<int>(layer.threads))
  {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < layer.directions * each; ++i) pack(layer, all, i / each, i % each);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < tasks; ++i) read(layer, all, i);
  }
}

}  // namespace
}  // namespace seqlab

extern "C" {

// Counts the real tokens of a batch; -1 where a length is not one of this batch.
int64_t seqlab_lstm_tokens(const int64_t* lengths, int64_t batch, int64_t time) {
  int64_t tokens = 0;
  for (int64_t i = 0; i < batch; ++i) {
    if (lengths[i] < 0 || lengths[i] > time) return -1;
    tokens += lengths[i];
  }
  return tokens;
}

// Whether the library multiplies in bfloat16.
int64_t seqlab_lstm_rounds() {
#if defined(__AVX512BF16__)
  return 1;
#else
  return 0;
#endif
}

// How many floats of scratch memory the way forwards takes.
int64_t seqlab_lstm_room(const seqlab::Layer* layer) {
  return seqlab::with_factors(*layer, [layer](auto factors) {
    seqlab::Room room(nullptr);
    seqlab::Forward<decltype(factors)>(*layer, room);
    return room.used();
  });
}

void seqlab_lstm(const seqlab::Layer* layer) {
  seqlab::with_factors(*layer, [layer](auto factors) { seqlab::run<decltype(factors)>(*layer); });
}

}  // extern "C"
