"""What a run says of itself: the table, ``metrics.json``, the model card."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Mapping
from typing import Any

import seqlab

_PACKAGES = ("torch", "lightning", "datasets", "torchmetrics", "safetensors")


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


def table(metrics: Mapping[str, Any], stage: str) -> str:
    """Lay the scores of a stage out for a terminal.

    Args:
        metrics: as in ``metrics.json``.
        stage: ``val`` or ``test``.

    Returns:
        lines without a trailing newline.
    """
    lines = []
    types: Mapping[str, Mapping[str, float]] = metrics.get(f"{stage}/per_type", {})
    if types:
        width = max(8, *(len(label) for label in types))
        lines.append(f"{'':{width}}  precision  recall      F1    gold  found")
        accuracy = metrics.get(f"{stage}/accuracy", 0.0)  # all three in one, where all is tagged
        overall = {
            "precision": metrics.get(f"{stage}/precision", accuracy),
            "recall": metrics.get(f"{stage}/recall", accuracy),
            "f1": metrics.get(f"{stage}/span_f1", accuracy),
            "gold": sum(int(row["gold"]) for row in types.values()),
            "predicted": sum(int(row["predicted"]) for row in types.values()),
        }
        for label, row in [*types.items(), ("overall", overall)]:
            lines.append(
                f"{label:{width}}    {row['precision']:7.2%} {row['recall']:7.2%} "
                f"{row['f1']:7.2%}  {int(row['gold']):6,}  {int(row['predicted']):5,}"
            )
        lines.append("")
    facts = [
        (f"{stage}/span_f1", "span F1", "{:.2%}"),
        (f"{stage}/accuracy", "token accuracy", "{:.2%}"),
        (f"{stage}/sentence_accuracy", "sentence accuracy", "{:.2%}"),
        ("train/seconds", "training", "{:,.1f} s"),
        ("train/tokens_per_second", "training speed", "{:,.0f} tokens/s"),
        (f"{stage}/tokens_per_second", "scoring speed", "{:,.0f} tokens/s"),
        ("peak_memory_mb", "peak memory", "{:,.0f} MB"),
    ]
    for key, name, form in facts:
        if metrics.get(key) is not None:
            lines.append(f"{name:<18}{form.format(metrics[key])}")
    for key, name in [
        (f"{stage}/scorer", "scorer"),
        ("split", "split"),
        ("seed", "seed"),
        ("best_epoch", "best epoch"),
    ]:
        if key in metrics:
            lines.append(f"{name:<18}{metrics[key]}")
    return "\n".join(lines)


def card(metrics: Mapping[str, Any], recipe: str) -> str:
    """Write the README.md of a bundle.

    Args:
        metrics: as in ``metrics.json``.
        recipe: the text of the recipe.
    """
    stage = "test" if "test/scorer" in metrics else "val"
    return (
        f"# A seqlab model\n\n```python\nimport seqlab\n\n"
        f"tagger = seqlab.load('path/to/this/folder')\n"
        f"print(tagger('Ada Lovelace was born in London.'))\n```\n\n"
        f"## Scores\n\n```text\n{table(metrics, stage)}\n```\n\n"
        f"## Made with\n\n{', '.join(f'{k} {v}' for k, v in metrics.get('versions', {}).items())}; "
        f"{metrics.get('hardware', '')}\n\n```yaml\n{recipe.strip()}\n```\n"
    )
