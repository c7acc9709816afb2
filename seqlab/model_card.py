"""The card of a packed model: what it does, how well, on what, and where it should not be used."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqlab import report
from seqlab.probes import probe_texts

TASKS = {
    "seqlab.models.tagger.Tagger": "tagging",
    "seqlab.models.classifier.Classifier": "classification",
    "seqlab.models.translator.Translator": "translation",
}
_DOES = {
    "tagging": "gives every word of a text a tag",
    "classification": "gives a text a label",
    "translation": "translates a text",
}
_EXAMPLES = {
    "tagging": "Ada Lovelace was born in London.",
    "classification": "Well worth the money.",
    "translation": "Where are my keys?",
}
_SHOWN = 60  # labels that are listed by name


@dataclass(frozen=True)
class Score:
    """The score by which the best epoch was chosen, on the split that is reported.

    Args:
        name: such as ``test/span_f1``.
        values: of each seed, that of the packed model first; 0 to 1, or BLEU from 0 to 100.
        seeds: they come from.
    """

    name: str
    values: tuple[float, ...]
    seeds: tuple[int, ...]

    def __str__(self) -> str:
        unit = 1.0 if self.name.endswith("bleu") else 100.0
        mean = f"{statistics.fmean(self.values) * unit:.2f}"
        if len(self.values) == 1:
            return f"{mean} (one seed)"
        return f"{mean} ± {statistics.stdev(self.values) * unit:.2f} ({len(self.values)} seeds)"


@dataclass(frozen=True)
class Facts:
    """What is said of a packed model beyond what its run knows.

    Args:
        name: what it is installed and loaded as.
        version: of the model.
        language: of the text that it reads, as a code such as ``en``.
        score: with its seeds.
        license: SPDX expression, or None.
        summary: what it does, in a line; made from its task where there is none.
        attribution: whom the data are from.
        example: a text to try it on; one for its task and language where there is none.
        changed: what was done to the trained model, with the scores before and after.
    """

    name: str
    version: str
    language: str
    score: Score
    license: str | None = None
    summary: str | None = None
    attribution: str | None = None
    example: str | None = None
    changed: tuple[str, ...] = ()


def task_of(config: Mapping[str, Any]) -> str:
    """Name the task of a bundle: ``tagging``, ``classification`` or ``translation``.

    Args:
        config: its ``config.json``.
    """
    return TASKS.get(str(config["class"]), "tagging")


def example_of(facts: Facts, config: Mapping[str, Any]) -> str:
    """Return a text to try a model on, in its language where we have one."""
    usual = _EXAMPLES[task_of(config)] if facts.language == "en" else probe_texts(facts.language)[0]
    return facts.example or usual


def summary_of(facts: Facts, config: Mapping[str, Any]) -> str:
    """Say in a line what a model does."""
    return facts.summary or f"A small LSTM model that {_DOES[task_of(config)]} ({facts.language})."


def card_of(
    facts: Facts,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    labels: Sequence[str],
    recipe: str,
) -> str:
    """Write the card of a packed model.

    Args:
        facts: what its maker says.
        config: its ``config.json``.
        metrics: its ``metrics.json``.
        labels: tags or labels it can give; none of a translator.
        recipe: the text of the recipe.

    Returns:
        Markdown.
    """
    stage = "test" if metrics.get("split") == "test" else "val"
    example = example_of(facts, config)
    parts = [
        f"# {facts.name} {facts.version}\n\n{summary_of(facts, config)}",
        f'```bash\npip install {facts.name}\nseqlab predict {facts.name} "{example}"\n```',
        f'```python\nimport seqlab\n\nmodel = seqlab.load("{facts.name}")\n'
        f'print(model("{example}"))\n```',
        "## What it is\n\n" + "\n".join(_what(config, metrics, labels)),
        "## Data\n\n" + "\n".join(_data(facts, metrics)),
        f"## Scores\n\n{facts.score.name}: **{facts.score}**\n\n"
        + "".join(f"- {line}\n" for line in facts.changed)
        + f"\n```text\n{report.table(metrics, stage)}\n```",
        "## Limits\n\n" + "\n".join(_limits(config)),
        f"## Cite\n\n{_cite(facts)}",
        "## Made with\n\n"
        + ", ".join(f"{k} {v}" for k, v in metrics.get("versions", {}).items())
        + f"; {metrics.get('hardware', '')}; commit {metrics.get('commit') or 'unknown'}. "
        "`receipt.json` beside this card has the digest of every file.\n\n"
        f"```yaml\n{recipe.strip()}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _what(
    config: Mapping[str, Any], metrics: Mapping[str, Any], labels: Sequence[str]
) -> list[str]:
    arguments = config["arguments"]
    name = str(config["class"]).rpartition(".")[2]
    cell = arguments.get("cell", "lstm")
    lines = [
        f"- task: {task_of(config)} (`seqlab.{name}`), {metrics.get('parameters', 0):,} parameters",
        f"- layers: {arguments.get('num_layers')} of {cell}, {arguments.get('hidden_size')} units "
        "in each direction",
    ]
    if arguments.get("decoder"):
        lines.append(f"- decoder: {arguments['decoder']}")
    if arguments.get("embedder"):
        lines.append(f"- pretrained encoder: {arguments['embedder'].get('name')}")
    if labels:
        rest = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
        lines.append(f"- labels ({len(labels)}): {', '.join(labels[:_SHOWN])}{rest}")
    lines.append(f"- weights kept as {config.get('storage', 'float32')}, computed in float32")
    return lines


def _data(facts: Facts, metrics: Mapping[str, Any]) -> list[str]:
    lines = [f"- corpus: {Path(str(metrics.get('data') or 'unknown')).name}"]
    if facts.attribution:
        lines.append(f"- from: {facts.attribution}")
    lines.append(f"- licence of this model: {facts.license or 'not stated'}")
    lines += [f"- {split}: {digest}" for split, digest in metrics.get("data_digests", {}).items()]
    return lines


def _limits(config: Mapping[str, Any]) -> list[str]:
    lines = [
        "- It learnt from the corpus above alone. On other kinds of text it will be wrong more "
        "often than the scores say; try it on yours with `seqlab test`.",
        "- What is common or prejudiced in the corpus is so in its answers. Let no decision about "
        "a person rest on them.",
    ]
    if task_of(config) == "translation":
        lines.append("- It was trained on short everyday sentences; long ones come out badly.")
    else:
        lines.append(
            "- Its confidences were fitted on the validation split; elsewhere they may promise too "
            "much."
        )
    return lines


def _cite(facts: Facts) -> str:
    data = f" Data: {facts.attribution}" if facts.attribution else ""
    return (
        f"{facts.name} {facts.version}, a model of seqlab (https://pypi.org/project/seqlab/).{data}"
    )
