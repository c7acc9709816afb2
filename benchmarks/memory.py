"""What recurrent cells can remember: two synthetic tasks, and the gradient that vanishes.

    python benchmarks/memory.py run                                  # resumes; keeps every run
    python benchmarks/memory.py run --task adding --cells lstm rnn --lengths 50 --seeds 1
    python benchmarks/memory.py plot                                 # into docs/pictures
    python benchmarks/memory.py table                                # into docs/memory.md; --check

`recall`: a symbol, `length` others that do not matter, a mark; which symbol was the first?
`adding`: `length` numbers, two of them marked; what is their sum? (Hochreiter and Schmidhuber 1997)
Every cell has as many parameters as an LSTM of `--hidden` units, sees the same sequences in the
same order, and the learning rate out of RATES that did best on other sequences of length 50.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from seqlab import __version__
from seqlab.errors import MissingExtraError, SeqlabError, UsageError
from seqlab.nn.cells import CELLS
from seqlab.nn.encoders import RecurrentEncoder
from seqlab.nn.gated import GatedLayer
from seqlab.report import hardware

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "memory.json"
PAGE = ROOT / "docs" / "memory.md"
PICTURES = ROOT / "docs" / "pictures"
BEGIN, END = "<!-- memory: written by benchmarks/memory.py table -->", "<!-- end of memory -->"
# Steps of sru have no recurrent weights: it gets its parameters as a second layer, as in its paper.
CONTENDERS: dict[str, dict[str, Any]] = {
    **{cell: {"cell": cell} for cell in CELLS},
    "rnn": {"cell": "rnn", "nonlinearity": "tanh"},
    "rnn-relu": {"cell": "rnn", "nonlinearity": "relu"},
    "sru": {"cell": "sru", "num_layers": 2},
    "lstm-bias-1": {"cell": "lstm", "forget_bias": 1.0},  # its gates start as they usually do
}
RATES = (0.001, 0.003, 0.01, 0.03)
CHOSEN_AT, CHOOSING_SEED = 50, 100  # the length and the seed with which a rate is chosen
SYMBOLS, OTHERS = 8, 4  # of `recall`: symbols to remember, symbols that do not matter
BATCH, EVERY = 32, 25  # sequences of a step; steps between evaluations
HELD, TESTED = 128, 512  # sequences of the evaluations on the way, and of the last
CLIP = 1.0  # greatest norm of a step's gradient
MEASURED, BINS = 128, 40  # sequences and distances over which gradients are averaged

PURPOSES = ("training", "choosing", "holding", "testing", "gradients")

# Colours that colour-blind people tell apart (Okabe and Ito, 2008), and dashes beside.
STYLES = {
    "lstm": ("#0072B2", "-"),
    "gru": ("#E69F00", "-"),
    "rnn": ("#000000", "-"),
    "peephole": ("#56B4E9", "--"),
    "coupled": ("#009E73", "-"),
    "layernorm": ("#CC79A7", "-"),
    "no-forget": ("#8C8C8C", "--"),
    "sru": ("#009E73", "--"),
    "rnn-relu": ("#000000", "--"),
    "lstm-bias-1": ("#D55E00", "-"),
}
FLOOR = 1e-16  # of the picture of gradients: what is less is drawn there

Drawn = tuple[Tensor, Tensor]


class Task(NamedTuple):
    """What is asked, and how wrong an answer is; see the functions that draw it."""

    inputs: int
    outputs: int
    draw: Callable[[int, int, torch.Generator], Drawn]
    loss: Callable[[Tensor, Tensor], Tensor]
    error: Callable[[Tensor, Tensor], Tensor]
    baseline: float  # the error of the best answer that looks at nothing
    solved: float  # an error at which the task counts as solved


def draw_recall(length: int, batch: int, generator: torch.Generator) -> Drawn:
    """Draw ``x (batch, 1 + length + 1, symbol)``, one-hot, and the first symbols ``(batch,)``."""
    first = torch.randint(SYMBOLS, (batch, 1), generator=generator)
    others = torch.randint(SYMBOLS, SYMBOLS + OTHERS, (batch, length), generator=generator)
    mark = torch.full((batch, 1), SYMBOLS + OTHERS)
    x = functional.one_hot(torch.cat([first, others, mark], 1), SYMBOLS + OTHERS + 1)
    return x.float(), first[:, 0]


def draw_adding(length: int, batch: int, generator: torch.Generator) -> Drawn:
    """Draw ``x (batch, length, 2)``, numbers from 0 to 1 and marks, and the sums ``(batch, 1)``.

    One mark stands in each half.
    """
    numbers = torch.rand(batch, length, generator=generator)
    half = length // 2
    marks = torch.zeros(batch, length)
    for low, high in ((0, half), (half, length)):
        place = torch.randint(low, high, (batch, 1), generator=generator)
        marks.scatter_(1, place, 1.0)
    return torch.stack([numbers, marks], -1), (numbers * marks).sum(1, keepdim=True)


def share_wrong(answers: Tensor, wanted: Tensor) -> Tensor:
    return (answers.argmax(-1) != wanted).float().mean()


TASKS = {
    "recall": Task(
        SYMBOLS + OTHERS + 1,
        SYMBOLS,
        draw_recall,
        functional.cross_entropy,
        share_wrong,
        baseline=1 - 1 / SYMBOLS,
        solved=0.01,
    ),
    # The sum of two numbers drawn evenly from 0 to 1 has mean 1 and variance 1/6.
    "adding": Task(
        2,
        1,
        draw_adding,
        functional.mse_loss,
        functional.mse_loss,
        baseline=1 / 6,
        solved=0.005,
    ),
}


def shut_input_gate(layer: nn.Module, bias: float) -> None:
    """Lower the bias of an input gate; nothing where there is none, or none of its own."""
    with torch.no_grad():
        if isinstance(layer, nn.LSTM):
            layer.bias_ih_l0[: layer.hidden_size] -= bias
        elif isinstance(layer, GatedLayer) and layer.forget != "coupled":
            layer.bias[: layer.hidden_size] -= bias


class Reader(nn.Module):
    """A recurrent encoder from left to right, and an answer from its state at the end.

    Gates start so that a cell keeps its state for about as many steps as a sequence has (Tallec and
    Ollivier, 2018, section 2, without their random spread): the bias of the gate that keeps the
    state is the logarithm of that number, that of an input gate of its own the negative.
    """

    def __init__(self, task: Task, name: str, hidden: int, length: int) -> None:
        super().__init__()
        self.task, self.hidden = task, hidden
        start = {"forget_bias": math.log(length), "bidirectional": False}
        options = {**start, **CONTENDERS[name]}
        self.encoder = RecurrentEncoder(task.inputs, hidden, **options)
        if "forget_bias" not in CONTENDERS[name]:
            for layer in self.encoder.forward_layers:
                shut_input_gate(layer, math.log(length))
        self.answer = nn.Linear(self.encoder.output_size, task.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x (batch, time, input)`` to ``(batch, output)``."""
        lengths = torch.full((x.shape[0],), x.shape[1])
        answers: Tensor = self.answer(self.encoder(x, lengths)[:, -1])
        return answers


def parameters_of(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def equal_size(task: Task, name: str, hidden: int) -> int:
    """Find the size at which a cell has the parameters of an LSTM of `hidden` units, or nearly."""
    wanted = parameters_of(Reader(task, "lstm", hidden, CHOSEN_AT))
    size, counts = 0, [0]
    while counts[-1] < wanted:
        size += 1
        counts.append(parameters_of(Reader(task, name, size, CHOSEN_AT)))
    return size if counts[-1] - wanted <= wanted - counts[-2] else size - 1


def generator_of(purpose: str, length: int, seed: int = 0) -> torch.Generator:
    """Make the source of the sequences for a purpose: the same for every cell."""
    number = PURPOSES.index(purpose)
    return torch.Generator().manual_seed((seed * len(PURPOSES) + number) * 1_000_000 + length)


def error_of(model: Reader, drawn: Drawn) -> float:
    with torch.no_grad():
        return float(f"{model.task.error(model(drawn[0]), drawn[1]):.4g}")


def gradients(model: Reader, length: int) -> list[float]:
    """Measure how strongly the answer depends on the input, by distance from the end.

    Returns:
        the norm of the derivative of the first number of the answer by the input of a step: a mean
        over sequences and over the steps of each of BINS parts of a sequence, the last part first.
    """
    x, _ = model.task.draw(length, MEASURED, generator_of("gradients", length))
    model = copy.deepcopy(model).double()  # what vanishes is soon too small for 32 bits
    x = x.double().requires_grad_()
    (by_input,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
    by_distance = by_input.norm(dim=-1).mean(0).flip(0)  # (time,)
    parts = by_distance.tensor_split(min(BINS, len(by_distance)))
    return [float(f"{part.mean():.3g}") for part in parts]


def fit(
    model: Reader, source: torch.Generator, length: int, rate: float, steps: int, held: Drawn
) -> tuple[list[float], bool]:
    """Train a model and follow its error on sequences that it does not learn from.

    A run ends when two evaluations in a row find the task solved, or when a gradient is no number.

    Returns:
        the errors before the first step, after every EVERY steps and after the last; whether a
        gradient was no number.
    """
    optimiser = torch.optim.Adam(model.parameters(), rate)
    errors = [error_of(model, held)]
    for step in range(1, steps + 1):
        x, wanted = model.task.draw(length, BATCH, source)
        optimiser.zero_grad()
        model.task.loss(model(x), wanted).backward()
        if not nn.utils.clip_grad_norm_(model.parameters(), CLIP).isfinite():
            return errors, True
        optimiser.step()
        if step % EVERY == 0 or step == steps:
            errors.append(error_of(model, held))
            if max(errors[-2:]) <= model.task.solved:
                break
    return errors, False


def to_the_end(errors: list[float], steps: int) -> list[float]:
    """Let a run that has ended keep its last error for the evaluations that are left."""
    return errors + [errors[-1]] * (1 + -(-steps // EVERY) - len(errors))


class Kept:
    """The measurements of one file, written anew after each."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.settings: dict[str, Any] = {}
        self.rates: dict[str, dict[str, dict[str, float]]] = {}
        self.runs: list[dict[str, Any]] = []
        if file.exists():
            content = json.loads(file.read_text(encoding="utf-8"))
            self.settings, self.rates, self.runs = (
                content[key] for key in ("settings", "rates", "runs")
            )

    def agree(self, settings: dict[str, Any]) -> None:
        """Take settings on, or refuse those that differ from the file's."""
        for key, value in settings.items():
            if self.settings.get(key, value) != value:
                raise UsageError(
                    f"{self.file}: its runs were made with {key} {self.settings[key]}, not {value}:"
                    " use that, or name another file with --results."
                )
        self.settings = settings

    def find(self, **wanted: Any) -> list[dict[str, Any]]:
        """Return the runs that have these values."""
        return [run for run in self.runs if all(run[k] == v for k, v in wanted.items())]

    def write(self) -> None:
        """Write the file, a line a run, in one go."""
        lines = ",\n".join(f"  {json.dumps(run)}" for run in self.runs)
        text = (
            f'{{\n "settings": {json.dumps(self.settings)},\n "rates": {json.dumps(self.rates)},\n'
            f' "runs": [\n{lines}\n ]\n}}\n'
        )
        self.file.parent.mkdir(parents=True, exist_ok=True)
        new = self.file.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        os.replace(new, self.file)


def choose_rate(kept: Kept, name: str, cell: str) -> float:
    """Find the rate with the lowest mean error over a run, on sequences used for this alone."""
    task, steps = TASKS[name], kept.settings["steps"]
    found = kept.rates.setdefault(name, {}).setdefault(cell, {})
    hidden = equal_size(task, cell, kept.settings["hidden"])
    held = task.draw(CHOSEN_AT, HELD, generator_of("choosing", CHOSEN_AT))
    for rate in RATES:
        if str(rate) not in found:
            torch.manual_seed(CHOOSING_SEED)
            source = generator_of("training", CHOSEN_AT, CHOOSING_SEED)
            model = Reader(task, cell, hidden, CHOSEN_AT)
            errors, _ = fit(model, source, CHOSEN_AT, rate, steps, held)
            found[str(rate)] = round(statistics.mean(to_the_end(errors, steps)), 5)
            kept.write()
            print(f"{name} {cell}: rate {rate}, mean error {found[str(rate)]:.4f}", flush=True)
    return min(RATES, key=lambda rate: found[str(rate)])


def measure(kept: Kept, name: str, cell: str, length: int, seed: int) -> dict[str, Any]:
    """Train a cell once, and measure gradients before and after."""
    task = TASKS[name]
    rate = choose_rate(kept, name, cell)
    started = time.process_time()
    torch.manual_seed(seed)
    model = Reader(task, cell, equal_size(task, cell, kept.settings["hidden"]), length)
    fresh = gradients(model, length)
    source = generator_of("training", length, seed)
    held = task.draw(length, HELD, generator_of("holding", length))
    errors, diverged = fit(model, source, length, rate, kept.settings["steps"], held)
    tested = task.draw(length, TESTED, generator_of("testing", length))
    return {
        "task": name,
        "cell": cell,
        "length": length,
        "seed": seed,
        "hidden": model.hidden,
        "parameters": parameters_of(model),
        "rate": rate,
        "diverged": diverged,
        "errors": errors,
        "test": error_of(model, tested),
        "fresh": fresh,
        "trained": gradients(model, length),
        "seconds": round(time.process_time() - started, 1),
        "hardware": hardware(),
        "made": f"{time.strftime('%Y-%m-%d')}, seqlab {__version__}, torch {torch.__version__}",
    }


def run(args: argparse.Namespace) -> int:
    kept = Kept(args.results)
    constants = {"batch": BATCH, "clip": CLIP, "every": EVERY, "bins": BINS, "rates": list(RATES)}
    kept.agree({"steps": args.steps, "hidden": args.hidden, **constants})
    for seed in args.seeds:
        for length in args.lengths:
            for name in args.task:
                for cell in args.cells:
                    key = {"task": name, "cell": cell, "length": length, "seed": seed}
                    if kept.find(**key):
                        continue
                    made = measure(kept, name, cell, length, seed)
                    kept.runs.append(made)
                    kept.write()
                    print(
                        f"{name} {cell}, length {length}, seed {seed}: test error {made['test']}"
                        f" after {len(made['errors']) - 1} evaluations, {made['seconds']} s",
                        flush=True,
                    )
    return 0


def grouped(kept: Kept, name: str, length: int) -> dict[str, list[dict[str, Any]]]:
    """The runs of a task and a length, by cell, in the order of CONTENDERS."""
    found = {cell: kept.find(task=name, length=length, cell=cell) for cell in CONTENDERS}
    return {cell: runs for cell, runs in found.items() if runs}


def lengths_of(kept: Kept, name: str) -> list[int]:
    return sorted({run["length"] for run in kept.find(task=name)})


def pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise MissingExtraError("matplotlib", "plots") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot

    matplotlib.rcParams.update({"font.size": 9, "axes.spines.top": False})
    matplotlib.rcParams.update({"axes.spines.right": False, "axes.titlesize": 9})
    return matplotlib.pyplot


def draw_band(axes: Any, cell: str, places: list[float], rows: list[list[float]]) -> None:
    """Draw the median of some rows, and a band from the least to the greatest."""
    colour, dashes = STYLES[cell]
    columns = list(zip(*rows, strict=True))
    middle = [statistics.median(column) for column in columns]
    low, high = [min(column) for column in columns], [max(column) for column in columns]
    axes.fill_between(places, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.plot(places, middle, color=colour, linestyle=dashes, linewidth=1.5, label=cell)


def draw_curves(axes: Any, name: str, groups: dict[str, list[dict[str, Any]]], steps: int) -> None:
    """Draw how the error on new sequences falls; a run that has ended keeps its last error."""
    for cell, runs in groups.items():
        rows = [to_the_end(run["errors"], steps) for run in runs]
        if name == "recall":
            rows = [[100 * (1 - error) for error in row] for row in rows]
        draw_band(axes, cell, [min(i * EVERY, steps) for i in range(len(rows[0]))], rows)
    baseline = TASKS[name].baseline
    axes.axhline(
        100 * (1 - baseline) if name == "recall" else baseline,
        color="black",
        linestyle=":",
        linewidth=1,
        label="baseline",
    )
    axes.set_xlim(0, steps)


def plot_curves(kept: Kept, file: Path) -> None:
    """Draw the learning curves: a column a task, a row a length, a line a cell."""
    plt = pyplot()
    names = [name for name in TASKS if kept.find(task=name)]
    lengths = sorted({run["length"] for run in kept.runs})
    size = (8, 1.1 + 1.75 * len(lengths))
    figure, grid = plt.subplots(
        len(lengths), len(names), figsize=size, sharex=True, squeeze=False, layout="constrained"
    )
    for column, name in enumerate(names):
        for row, length in enumerate(lengths):
            axes = grid[row][column]
            draw_curves(axes, name, grouped(kept, name, length), kept.settings["steps"])
            axes.set_title(f"{name}, length {length}", loc="left", fontweight="bold")
            axes.yaxis.set_label_coords(-0.13, 0.5)
            if name == "adding":
                axes.set_yscale("log")
                axes.set_ylim(5e-4, 1)
                axes.set_ylabel("mean squared error")
            else:
                axes.set_ylim(0, 103)
                axes.set_ylabel("% right")
        grid[-1][column].set_xlabel(f"training steps of {BATCH} sequences")
    finish(plt, figure, grid[0][0], file)


def plot_gradients(kept: Kept, file: Path) -> None:
    """Draw how much the answer feels of an input, by its distance from the end."""
    plt = pyplot()
    length = max(lengths_of(kept, "adding"))
    size = (8, 4.2)
    figure, grid = plt.subplots(
        1, 2, figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    titles = {"fresh": "before training", "trained": "after training"}
    for axes, (key, title) in zip(grid[0], titles.items(), strict=True):
        for cell, runs in grouped(kept, "adding", length).items():
            count = len(runs[0][key])
            places = [(i + 0.5) * length / count for i in range(count)]
            draw_band(axes, cell, places, [[max(x, FLOOR) for x in run[key]] for run in runs])
        axes.set_yscale("log")
        axes.set_ylim(FLOOR, 10)
        axes.set_xlim(0, length)
        axes.set_title(f"{title}, adding, length {length}", loc="left", fontweight="bold")
        axes.set_xlabel("steps between the input and the end")
    grid[0][0].set_ylabel("norm of the answer's gradient by the input")
    finish(plt, figure, grid[0][0], file)


def finish(plt: Any, figure: Any, axes: Any, file: Path) -> None:
    """Put the legend on top and write the picture."""
    lines, names = axes.get_legend_handles_labels()
    figure.legend(lines, names, loc="outside upper center", ncols=6, frameon=False, handlelength=3)
    from PIL import Image  # matplotlib brings it

    file.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=130)
    plt.close(figure)
    with Image.open(buffer) as picture:  # a palette is a third of the size
        picture.convert("RGB").quantize(128).save(file, optimize=True)
    print(file)


def shown(name: str, runs: list[dict[str, Any]]) -> str:
    """The middle of the seeds' last errors, and how many of them solved the task."""
    middle = statistics.median(run["test"] for run in runs)
    solved = sum(run["test"] <= TASKS[name].solved for run in runs)
    value = f"{100 * (1 - middle):.1f}" if name == "recall" else f"{middle:.4f}"
    return f"{f'**{value}**' if 2 * solved > len(runs) else value} ({solved}/{len(runs)})"


def scores_of(kept: Kept, name: str) -> list[str]:
    """Make the table of a task: a row a cell, a column a length."""
    lengths = lengths_of(kept, name)
    measure, baseline = {
        "recall": ("% right", f"{100 * (1 - TASKS[name].baseline):.1f}"),
        "adding": ("mean squared error", f"{TASKS[name].baseline:.4f}"),
    }[name]
    lines = [
        f"**{name}**, {measure}, median of the seeds (seeds that solved it):",
        "",
        f"| cell | units | parameters | rate | {' | '.join(f'length {n}' for n in lengths)} |",
        "| --- | --- | --- | --- |" + " --- |" * len(lengths),
    ]
    for cell in CONTENDERS:
        found = [kept.find(task=name, cell=cell, length=length) for length in lengths]
        if any(found):
            first = next(runs[0] for runs in found if runs)
            cells = [shown(name, runs) if runs else "" for runs in found]
            lines.append(
                f"| {cell} | {first['hidden']} | {first['parameters']:,} | {first['rate']:g} "
                f"| {' | '.join(cells)} |"
            )
    return [*lines, f"| *baseline* | | | | {' | '.join(baseline for _ in lengths)} |", ""]


def reach_of(kept: Kept) -> list[str]:
    """Make the table of gradients at the ends and in the middle of the longest sequences."""
    length = max(lengths_of(kept, "adding"))
    lines = [
        f"**Gradient** of the answer by the input, `adding`, length {length}, median of the seeds:",
        "",
        "| cell | fresh: near | middle | far | trained: near | middle | far |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for cell, runs in grouped(kept, "adding", length).items():
        parts = [
            f"{statistics.median(run[key][place] for run in runs):.0e}"
            for key in ("fresh", "trained")
            for place in (0, len(runs[0][key]) // 2, -1)
        ]
        lines.append(f"| {cell} | {' | '.join(parts)} |")
    return [*lines, ""]


def table(kept: Kept) -> str:
    """Make the tables from the kept runs."""
    lines: list[str] = []
    for name in TASKS:
        if kept.find(task=name):
            lines += scores_of(kept, name)
    if kept.find(task="adding"):
        lines += reach_of(kept)
    if kept.runs:
        minutes = sum(run["seconds"] for run in kept.runs) / 60
        seeds = ", ".join(map(str, sorted({run["seed"] for run in kept.runs})))
        where, made = ({run[key] for run in kept.runs} for key in ("hardware", "made"))
        lines.append(
            f"Seeds {seeds}; {len(kept.runs)} runs of at most {kept.settings['steps']} steps in "
            f"{minutes:.0f} minutes of one core; {' / '.join(sorted(where))}; "
            f"{' / '.join(sorted(made))}."
        )
    return "\n".join(lines).strip()


def write_table(kept: Kept, page: Path, check: bool) -> int:
    """Put the tables between their marks on the page, or only say whether they stand there."""
    text = page.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    fresh = "\n\n".join([before + BEGIN, table(kept), END + after])
    if not check:
        page.write_text(fresh, encoding="utf-8")
    elif fresh != text:
        print(f"{page.name} disagrees with the results: run `python benchmarks/memory.py table`")
        return 1
    return 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("run", "plot", "table"):
        sub = verbs.add_parser(verb)
        sub.add_argument("--results", type=Path, default=RESULTS, help="file of the measurements")
        if verb == "run":
            names = list(CONTENDERS)
            sub.add_argument("--task", nargs="+", choices=list(TASKS), default=list(TASKS))
            sub.add_argument("--cells", nargs="+", choices=names, default=names, metavar="CELL")
            sub.add_argument("--lengths", type=int, nargs="+", default=[50, 100, 200, 400])
            sub.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
            sub.add_argument("--steps", type=int, default=500, help="at most so many")
            sub.add_argument("--hidden", type=int, default=32, help="units of the LSTM")
        elif verb == "plot":
            sub.add_argument("--pictures", type=Path, default=PICTURES, help="folder to write to")
        else:
            sub.add_argument("--page", type=Path, default=PAGE, help="page to write to")
            sub.add_argument("--check", action="store_true", help="only compare")
    return parser.parse_args()


def main() -> int:
    args = parsed()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # what has all but vanished must not slow the processor down
    try:
        if args.verb == "run":
            return run(args)
        kept = Kept(args.results)
        if args.verb == "table":
            return write_table(kept, args.page, args.check)
        plot_curves(kept, args.pictures / "memory.png")
        plot_gradients(kept, args.pictures / "memory-gradients.png")
        return 0
    except SeqlabError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
