"""Runs `seqlab fit` and reports when its first step began and how much memory it held.

    python benchmarks/peers/first_steps.py BEGAN RECIPE [--key value ...]

`BEGAN` is when the process was started, in seconds since 1970. The last line on stdout is the
report as JSON. What is measured is this process: anonymous memory is its own, while pages of mapped
files are the kernel's, which drops them when it needs room.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

_EVERY = 0.02  # seconds between two looks at the memory


def memory_mb() -> dict[str, float]:
    """Return the resident memory of this process in MB: anonymous, and of mapped files."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    words = dict(line.split(":", 1) for line in lines)
    return {
        name: round(int(words[key].split()[0]) * 1024 / 1e6, 1)
        for name, key in (("anonymous", "RssAnon"), ("mapped", "RssFile"))
    }


class Peak(threading.Thread):
    """Looks at the memory over and over, and keeps the most."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.anonymous = 0.0
        self.ended = threading.Event()

    def run(self) -> None:
        """Look until it is told to end."""
        while not self.ended.wait(_EVERY):
            self.anonymous = max(self.anonymous, memory_mb()["anonymous"])


def main() -> int:
    began = float(sys.argv[1])
    import datasets  # noqa: F401
    import pyarrow.compute  # noqa: F401
    import tokenizers  # noqa: F401

    import seqlab
    from seqlab import training

    tasks = (seqlab.Tagger, seqlab.Classifier, seqlab.Translator)
    tasks += (seqlab.TaggingData, seqlab.ClassificationData, seqlab.TranslationData)
    report: dict[str, Any] = {"imports": round(time.time() - began, 2)}
    report["imported"] = memory_mb()
    used = time.process_time()
    peak = Peak()

    class Watched(training.RunKeeper):
        def on_train_batch_start(self, *words: Any) -> None:
            if "first_step" not in report:
                report["first_step"] = round(time.time() - began, 2)
                report["busy"] = round(time.process_time() - used, 2)
            super().on_train_batch_start(*words)

        def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
            if not peak.ended.is_set():  # the steps of the epoch are done
                peak.ended.set()
                report["steady"] = memory_mb()
                report["parameters"] = sum(p.numel() for p in pl_module.parameters())
            super().on_validation_start(trainer, pl_module)

    training.RunKeeper = Watched  # type: ignore[misc]
    peak.start()
    code = training.run("fit", sys.argv[2:])
    report["peak_anonymous"] = peak.anonymous
    print(json.dumps(report))
    return code


if __name__ == "__main__":
    sys.exit(main())
