"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");
  const order = document.getElementById("order");
  const state = { series: data.layers[0]?.series.at(-1).name, order: "number", word: 0 };

  // One byte a value, unit after unit; a byte stands for the middle of its 256th of the range.
  for (const layer of data.layers) {
    for (const series of layer.series) {
      series.bytes = Uint8Array.from(atob(series.data), (c) => c.charCodeAt(0));
      delete series.data;
    }
  }
  const words = data.words.length;
  const valueOf = (series, unit, word) =>
    series.low + (series.bytes[unit * words + word] / 255) * (series.high - series.low);

  const measures = {
    number: (series, unit) => -unit,
    word: (series, unit) => valueOf(series, unit, state.word),
    activity: (series, unit) => {
      let sum = 0;
      for (let word = 0; word < words; word++) sum += Math.abs(valueOf(series, unit, word));
      return sum;
    },
    change: (series, unit) => {
      let sum = 0;
      for (let word = 1; word < words; word++) {
        sum += Math.abs(valueOf(series, unit, word) - valueOf(series, unit, word - 1));
      }
      return sum;
    },
  };

  const colourOf = (name) => {
    const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  };

  // A canvas holds one pixel a value; the browser makes it as large as the columns above it.
  const draw = (canvas) => {
    const layer = data.layers[canvas.dataset.layer];
    const series = layer.series.find((each) => each.name === state.series);
    canvas.closest("tr").hidden = !series;
    if (!series) return;
    const zero = colourOf("--zero"), plus = colourOf("--plus"), minus = colourOf("--minus");
    const score = Array.from({ length: series.units }, (_, unit) => measures[state.order](series, unit));
    canvas.units = score.map((_, unit) => unit).sort((a, b) => score[b] - score[a] || a - b);
    canvas.series = series;
    canvas.closest("tr").firstElementChild.textContent =
      layer.unit ? `unit ${layer.unit}` : `${series.units} units`;
    canvas.width = words;
    canvas.height = series.units;
    canvas.style.height = `${series.units * Math.max(3, Math.min(18, Math.floor(420 / series.units)))}px`;
    const picture = new ImageData(words, series.units);
    canvas.units.forEach((unit, row) => {
      for (let word = 0; word < words; word++) {
        const value = valueOf(series, unit, word);
        const share = Math.min(1, Math.abs(value) / series.high);
        const end = value < 0 ? minus : plus;
        const at = 4 * (row * words + word);
        for (let part = 0; part < 3; part++) {
          picture.data[at + part] = zero[part] + (end[part] - zero[part]) * share;
        }
        picture.data[at + 3] = 255;
      }
    });
    canvas.getContext("2d").putImageData(picture, 0, 0);
    canvas.setAttribute("aria-label", `${state.series} of ${series.units} units at ${words} ${data.reads}s; arrow keys read values`);
  };

  const canvases = [...document.querySelectorAll("canvas[data-layer]")];
  const refresh = () => {
    canvases.forEach(draw);
    for (const button of document.querySelectorAll("[data-series]")) {
      button.setAttribute("aria-pressed", String(button.dataset.series === state.series));
    }
    for (const button of document.querySelectorAll("[data-word]")) {
      const pressed = state.order === "word" && Number(button.dataset.word) === state.word;
      button.setAttribute("aria-pressed", String(pressed));
    }
    order.value = state.order;
    const shown = data.layers.flatMap((layer) => layer.series).filter((each) => each.name === state.series);
    const high = Math.max(...shown.map((each) => each.high)), low = Math.min(...shown.map((each) => each.low));
    document.querySelector(".scale").classList.toggle("signed", low < 0);
    document.getElementById("low").textContent = low.toFixed(low % 1 ? 1 : 0).replace("-", "\u2212");
    document.getElementById("high").textContent = high.toFixed(high % 1 ? 1 : 0);
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.series) state.series = button.dataset.series;
    if (button.dataset.word) {
      state.word = Number(button.dataset.word);
      state.order = "word";
    }
    refresh();
  });
  order.addEventListener("change", () => {
    state.order = order.value;
    refresh();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);

  const say = (text, x, y) => {
    tip.textContent = text;
    tip.hidden = false;
    const room = document.documentElement;
    tip.style.left = `${Math.max(4, Math.min(x + 14, room.clientWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${y + 18 + tip.offsetHeight > room.clientHeight ? y - tip.offsetHeight - 12 : y + 18}px`;
  };
  const tell = (canvas, row, word, x, y) => {
    const layer = data.layers[canvas.dataset.layer];
    const unit = canvas.units[row];
    const value = valueOf(canvas.series, unit, word).toFixed(2).replace("-", "\u2212");
    say(
      `${data.words[word]} (${data.reads} ${data.first + word}), unit ${layer.unit ?? unit + 1}: ${canvas.series.name} ${value}`,
      x, y,
    );
  };
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  const within = (share, count) => Math.max(0, Math.min(count - 1, Math.floor(share * count)));
  for (const canvas of canvases) {
    const at = { row: 0, word: 0 };
    const point = (event) => {
      const box = canvas.getBoundingClientRect();
      at.row = within((event.clientY - box.top) / box.height, canvas.height);
      at.word = within((event.clientX - box.left) / box.width, words);
      tell(canvas, at.row, at.word, event.clientX, event.clientY);
    };
    canvas.addEventListener("pointermove", point);
    canvas.addEventListener("pointerdown", point);
    canvas.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") tip.hidden = true;
    });
    canvas.addEventListener("blur", () => { tip.hidden = true; });
    canvas.addEventListener("keydown", (event) => {
      const step = steps[event.key];
      if (!step) return;
      event.preventDefault();
      at.row = Math.max(0, Math.min(canvas.height - 1, at.row + step[0]));
      at.word = Math.max(0, Math.min(words - 1, at.word + step[1]));
      const box = canvas.getBoundingClientRect();
      tell(canvas, at.row, at.word, box.left + ((at.word + .5) / words) * box.width, box.top + ((at.row + .5) / canvas.height) * box.height);
    });
  }

  // Where a translation looks: each cell tells its weight, and its row and column light up.
  for (const alignment of document.querySelectorAll(".alignment")) {
    const heads = [...alignment.querySelectorAll("thead th")];
    const rows = [...alignment.querySelectorAll("tbody tr")].filter((row) => row.querySelector("[data-w]"));
    const at = { row: 0, column: 0 };
    let lit = [];
    const light = (some) => {
      for (const head of lit) head.classList.remove("at");
      for (const head of some) head.classList.add("at");
      lit = some;
      if (!some.length) tip.hidden = true;
    };
    const show = (x, y) => {
      const row = rows[at.row], head = heads[at.column];
      light([row.cells[0], head]);
      say(`${row.cells[0].textContent} \u2190 ${head.textContent}: ${row.cells[at.column + 1].dataset.w}`, x, y);
    };
    const point = (event) => {
      const cell = event.target.closest("td[data-w]");
      if (!cell) return;
      at.row = rows.indexOf(cell.parentElement);
      at.column = cell.cellIndex - 1;
      show(event.clientX, event.clientY);
    };
    alignment.tabIndex = 0;
    alignment.setAttribute("aria-label", "attention; arrow keys read weights");
    alignment.addEventListener("pointermove", point);
    alignment.addEventListener("pointerdown", point);
    alignment.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") light([]); });
    alignment.addEventListener("blur", () => light([]));
    alignment.addEventListener("keydown", (event) => {
      const step = steps[event.key];
      if (!step) return;
      event.preventDefault();
      at.row = Math.max(0, Math.min(rows.length - 1, at.row + step[0]));
      at.column = Math.max(0, Math.min(heads.length - 1, at.column + step[1]));
      const box = rows[at.row].cells[at.column + 1].getBoundingClientRect();
      show(box.left + box.width / 2, box.top + box.height / 2);
    });
  }

  const pans = [...document.querySelectorAll(".map:not(.alignment)")].map((map) => map.parentElement);
  for (const pan of pans) {
    pan.addEventListener("scroll", () => {
      tip.hidden = true;
      for (const other of pans) other.scrollLeft = pan.scrollLeft;  // a word stays above itself
    }, { passive: true });
  }
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
  refresh();
})();
