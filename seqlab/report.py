"""What a run says of itself: the table, ``metrics.json``, the model card."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import seqlab

MATRIX = 12  # with more labels the matrix of confusions is too wide to be read
_PAIRS = 10
_PACKAGES = (
    "torch",
    "lightning",
    "datasets",
    "torchmetrics",
    "safetensors",
    "tokenizers",
    "sacrebleu",
)


def versions() -> dict[str, str]:
    """Return the versions of Python, seqlab and the packages that decide about results."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), "seqlab": seqlab.__version__, **found}


def hardware() -> str:
    """Name the machine in words: processor, threads, accelerator."""
    import torch

    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            models = [x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")]
        name = models[0] if models else name
    except OSError:
        pass  # not Linux: the platform's own name has to do
    text = f"{name}, threads: {torch.get_num_threads()}"
    return f"{text}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else text


def commit() -> str | None:
    """Return the git commit of the folder that is worked in, with ``+`` where files differ from it.

    Returns:
        None outside a repository, or where there is no git.
    """
    try:
        asked = [
            subprocess.run(
                ["git", *words], capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return asked[0] + "+" * bool(asked[1])


def peak_memory_mb() -> float | None:
    """Return the most memory that this process has held so far, in MB (10^6 bytes).

    Returns:
        None on Windows, where the standard library cannot tell.
    """
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6, 1)


def example(metrics: Mapping[str, Any], stage: str) -> str:
    """Return a text to try a model on: what fits a classifier, a tagger, or this translator."""
    examples = metrics.get(f"{stage}/examples")
    if examples:
        return str(examples[0]["source"])
    of_texts = _of_texts(metrics, stage)
    return "Well worth the money." if of_texts else "Ada Lovelace was born in London."


def table(metrics: Mapping[str, Any], stage: str) -> str:
    """Lay the scores of a stage out for a terminal.

    Args:
        metrics: as in ``metrics.json``.
        stage: ``val`` or ``test``.

    Returns:
        lines without a trailing newline.
    """
    lines = [*_per_type(metrics, stage), *_confusions(metrics, stage), *_examples(metrics, stage)]
    accuracy = "accuracy" if _of_texts(metrics, stage) else "token accuracy"
    facts = [
        (f"{stage}/span_f1", "span F1", "{:.2%}"),
        (f"{stage}/accuracy", accuracy, "{:.2%}"),
        (f"{stage}/sentence_accuracy", "sentence accuracy", "{:.2%}"),
        (f"{stage}/ece", "calibration error", "{:.4f}"),
        (f"{stage}/ece_uncalibrated", "before scaling", "{:.4f}"),
        (f"{stage}/bleu", "BLEU", "{:.2f}"),
        (f"{stage}/bleu_lowercased", "BLEU, lower case", "{:.2f}"),
        (f"{stage}/chrf", "chrF", "{:.2f}"),
        (f"{stage}/ter", "TER", "{:.2f}"),
        (f"{stage}/perplexity", "perplexity", "{:.2f}"),
        ("train/seconds", "training", "{:,.1f} s"),
        ("train/tokens_per_second", "training speed", "{:,.0f} tokens/s"),
        (f"{stage}/tokens_per_second", "scoring speed", "{:,.0f} tokens/s"),
        ("peak_memory_mb", "peak memory", "{:,.0f} MB"),
    ]
    if _of_texts(metrics, stage):
        facts[2:2] = [
            (f"{stage}/macro_f1", "macro F1", "{:.2%}"),
        ]
        if f"{stage}/thresholds" in metrics:  # with one label a text it is the accuracy
            facts.insert(3, (f"{stage}/micro_f1", "micro F1", "{:.2%}"))
    for key, name, form in facts:
        if metrics.get(key) is not None:
            lines.append(f"{name:<18}{form.format(metrics[key])}")
    for key, name in [
        (f"{stage}/scorer", "scorer"),
        ("split", "split"),
        ("seed", "seed"),
        ("best_epoch", "best epoch"),
    ]:
        value = metrics.get(key)
        if isinstance(value, Mapping):  # a signature for each score
            lines += [f"{part.split('_')[0]} by".ljust(18) + value[part] for part in value]
        elif key in metrics:
            lines.append(f"{name:<18}{value}")
    return "\n".join(lines)


def _of_texts(metrics: Mapping[str, Any], stage: str) -> bool:
    """Say whether these are the scores of a classifier."""
    return f"{stage}/micro_f1" in metrics


def _examples(metrics: Mapping[str, Any], stage: str) -> list[str]:
    """Some texts with their translations and what was right, and an empty line behind each."""
    names = {"source": "source", "translation": "translation", "reference": "reference"}
    return [
        line
        for example in metrics.get(f"{stage}/examples", [])
        for line in (*(f"{name:<12} {example[key]}" for key, name in names.items()), "")
    ]


def _per_type(metrics: Mapping[str, Any], stage: str) -> list[str]:
    """A line for each tag or label, and an empty one behind them."""
    types: Mapping[str, Mapping[str, float]] = metrics.get(f"{stage}/per_type", {})
    if not types:
        return []
    width = max(8, *(len(label) for label in types))
    lines = [f"{'':{width}}  precision  recall      F1    gold  found"]
    gold, predicted = (sum(int(row[k]) for row in types.values()) for k in ("gold", "predicted"))
    accuracy = metrics.get(f"{stage}/accuracy", 0.0)  # all three in one, where all is tagged
    overall = {
        "precision": metrics.get(f"{stage}/precision", accuracy),
        "recall": metrics.get(f"{stage}/recall", accuracy),
        "f1": metrics.get(f"{stage}/span_f1", accuracy),
    }
    if _of_texts(metrics, stage):
        correct = sum(int(row["correct"]) for row in types.values())
        overall = {"precision": correct / max(predicted, 1), "recall": correct / max(gold, 1)}
        overall["f1"] = metrics[f"{stage}/micro_f1"]
    totals = {**overall, "gold": gold, "predicted": predicted}
    for label, row in [*types.items(), ("overall", totals)]:
        lines.append(
            f"{label:{width}}    {row['precision']:7.2%} {row['recall']:7.2%} "
            f"{row['f1']:7.2%}  {int(row['gold']):6,}  {int(row['predicted']):5,}"
        )
    return [*lines, ""]


def _confusions(metrics: Mapping[str, Any], stage: str) -> list[str]:
    """What was taken for what: all of it for few labels, else the pairs most often confused."""
    table: Mapping[str, Mapping[str, int]] = metrics.get(f"{stage}/confusion", {})
    if not table:
        return []
    labels = list(metrics[f"{stage}/per_type"])
    if len(labels) > MATRIX:
        return _pairs(table)
    width = max(len(f"{n}") for row in table.values() for n in [*row.values(), len(labels)])
    names = [f"{i} {label}" for i, label in enumerate(labels, 1)]
    side = max(12, *(len(name) for name in names))
    head = " ".join(f"{i:>{width}}" for i in range(1, len(labels) + 1))
    lines = [f"{'gold / found':{side}}  {head}"]
    for name, label in zip(names, labels, strict=True):
        counts = " ".join(f"{table.get(label, {}).get(other, 0):>{width}}" for other in labels)
        lines.append(f"{name:{side}}  {counts}")
    return [*lines, ""]


def most_confused(table: Mapping[str, Mapping[str, int]]) -> list[tuple[int, str, str]]:
    """List what was most often taken for something else.

    Args:
        table: by gold label and found label, how often.

    Returns:
        how often, the gold label and the found one, the most frequent first; ten at most.

    Example:
        >>> most_confused({"neg": {"neg": 7, "pos": 2}, "pos": {"neg": 3}})
        [(3, 'pos', 'neg'), (2, 'neg', 'pos')]
    """
    pairs = [
        (count, gold, found)
        for gold, row in table.items()
        for found, count in row.items()
        if gold != found
    ]
    return sorted(pairs, key=lambda pair: (-pair[0], *pair[1:]))[:_PAIRS]


def _pairs(table: Mapping[str, Mapping[str, int]]) -> list[str]:
    pairs = most_confused(table)
    if not pairs:
        return []
    width = max(4, *(len(gold) for _, gold, _ in pairs))
    lines = [f"most confused  {'gold':{width}}  found"]
    lines += [f"{count:>13,}  {gold:{width}}  {found}" for count, gold, found in pairs]
    return [*lines, ""]


def card(metrics: Mapping[str, Any], recipe: str) -> str:
    """Write the README.md of a bundle.

    Args:
        metrics: as in ``metrics.json``.
        recipe: the text of the recipe.
    """
    stage = "test" if "test/scorer" in metrics else "val"
    name = "classifier" if _of_texts(metrics, stage) else "tagger"
    name = "translate" if f"{stage}/bleu" in metrics else name
    return (
        f"# A seqlab model\n\n```python\nimport seqlab\n\n"
        f"{name} = seqlab.load('path/to/this/folder')\n"
        f"print({name}({example(metrics, stage)!r}))\n```\n\n"
        f"## Scores\n\n```text\n{table(metrics, stage)}\n```\n\n"
        f"## Made with\n\n{', '.join(f'{k} {v}' for k, v in metrics.get('versions', {}).items())}; "
        f"{metrics.get('hardware', '')}\n\n```yaml\n{recipe.strip()}\n```\n"
    )
