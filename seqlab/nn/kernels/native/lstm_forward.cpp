// LSTM layers forwards: see lstm.h.

#include "lstm.h"

namespace seqlab {
namespace {

constexpr int64_t kProjected = 128;  // tokens whose input is multiplied at once; a step's at least

// What is needed on the way.
struct Forward {
  Shares shares;
  int64_t gates, in, state;    // numbers of a token's gates; distances of rows
  int64_t most, room_of_task;  // tokens whose gates wait at once
  float *input, *recurrent, *biases, *tasks;

  // What a task has for itself.
  struct Task {
    float *x, *gates, *hidden, *cell;
    const float** from;
    float **to, **unknown_to;
    Task(const Layer& layer, const Forward& all, Room& room) {
      x = room.take(all.most * all.in);
      gates = room.take(layer.gates ? 0 : all.most * all.gates);
      hidden = room.take(all.shares.rows * all.state);
      cell = room.take(all.shares.rows * all.state);
      from = room.take<const float*>(all.most);
      to = room.take<float*>(all.most);
      unknown_to = room.take<float*>(layer.rows ? all.most : 0);
    }
  };

  Forward(const Layer& layer, Room& room)
      : shares(layer, room),
        gates(layer.columns()),
        in(spaced(layer.input)),
        state(spaced(layer.hidden)),
        most(std::max(kProjected, shares.rows)) {
    input = room.take(layer.directions * packed_size(layer.input, gates));
    recurrent = room.take(layer.directions * packed_size(layer.hidden, gates));
    biases = room.take(layer.directions * gates);
    Room one(nullptr);
    Task(layer, *this, one);
    room_of_task = one.used();
    tasks = room.take(layer.directions * shares.slices * room_of_task);
  }

  const float* input_of(const Layer& layer, int64_t direction) const {
    return input + direction * packed_size(layer.input, gates);
  }
  const float* recurrent_of(const Layer& layer, int64_t direction) const {
    return recurrent + direction * packed_size(layer.hidden, gates);
  }
};

void pack(const Layer& layer, const Forward& all, int64_t direction, int64_t panel) {
  const float* const* weights = layer.weights + 4 * direction;
  const int64_t first = panel * kPanel, input = layer.input, hidden = layer.hidden;
  float* to = all.input + direction * packed_size(input, all.gates) + input * first;
  pack_panel_transposed(weights[0], input, all.gates, panel, to);
  to = all.recurrent + direction * packed_size(hidden, all.gates) + hidden * first;
  pack_panel_transposed(weights[1], hidden, all.gates, panel, to);
  for (int64_t j = first; j < std::min(all.gates, first + kPanel); ++j)
    all.biases[direction * all.gates + j] = weights[2][j] + weights[3][j];
}

// Takes the input of as many steps as there is room for, and computes its part in the gates.
int64_t project(const Layer& layer, const Forward& all, const Forward::Task& own, const Rows& rows,
                int64_t step, int64_t alive) {
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
      std::copy_n(layer.token(sequence, place), layer.input, x);
      own.from[unknown] = x;
      unknown_to[unknown++] = gates;
    }
  }
  multiply_all(layer.input, own.from, unknown, all.input_of(layer, rows.direction), all.gates,
               unknown_to, false, all.biases + rows.direction * all.gates);
  return last;
}

// From the sums of the gates to the gates, the cell and the hidden state.
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
    store(state + j, h);
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

void read(const Layer& layer, const Forward& all, int64_t task) {
  const Rows rows(layer, all.shares, task);
  Room room(all.tasks + task * all.room_of_task);
  const Forward::Task own(layer, all, room);
  const int64_t hidden = layer.hidden;
  const float* recurrent = all.recurrent_of(layer, rows.direction);
  std::fill_n(own.cell, all.shares.rows * all.state, 0.0f);
  int64_t alive = rows.count;
  for (int64_t step = 0; step < rows.longest();) {
    const int64_t last = project(layer, all, own, rows, step, alive);
    for (int64_t row = 0; row < alive; ++row) own.from[row] = own.hidden + row * all.state;
    for (float* const* to = own.to; step < last; ++step, to += alive) {
      alive = rows.alive(step, alive);
      if (step) multiply_all(hidden, own.from, alive, recurrent, all.gates, to, true, nullptr);
      for (int64_t row = 0; row < alive; ++row) {
        float* cells = layer.cells ? layer.cells + rows.token(row, step) * hidden : nullptr;
        activate(hidden, to[row], own.cell + row * all.state, own.hidden + row * all.state,
                 layer.out + rows.output(row, step), cells);
      }
    }
  }
  for (int64_t row = 0; row < rows.count; ++row)  // padding
    for (int64_t place = rows.length(row); place < layer.time; ++place)
      std::fill_n(layer.out + layer.output(rows.sequence(row), place, rows.direction), hidden, 0.0f);
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

// How many floats of scratch memory the way forwards takes.
int64_t seqlab_lstm_room(const seqlab::Layer* layer) {
  seqlab::Room room(nullptr);
  seqlab::Forward(*layer, room);
  return room.used();
}

void seqlab_lstm(const seqlab::Layer* layer) {
  using namespace seqlab;
  Room room(layer->scratch);
  Forward all(*layer, room);
  all.shares.sort(*layer);
  const int64_t each = panels(all.gates), tasks = layer->directions * all.shares.slices;
#pragma omp parallel num_threads(static_cast<int>(layer->threads))
  {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < layer->directions * each; ++i) pack(*layer, all, i / each, i % each);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < tasks; ++i) read(*layer, all, i);
  }
}

}  // extern "C"
