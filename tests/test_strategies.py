"""What a trainer is asked for and cannot do, or cannot do exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import Namespace
from lightning.pytorch.strategies import DDPStrategy

from seqlab.errors import RecipeError, TrainingError
from seqlab.strategies import (
    check_precision,
    check_strategy,
    has_accelerator,
    precision_here,
)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("precision", [None, 32, "32-true", 64, "64-true", "bf16", "bf16-mixed"])
def test_what_keeps_the_weights_exact_is_allowed_on_a_cpu(precision: str | int | None) -> None:
    check_precision(precision, "auto")


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("precision", [16, "16", "16-mixed"])
def test_float16_is_for_gpus(precision: str | int) -> None:
    check_precision(precision, "gpu")
    for accelerator in ("cpu", "auto"):
        with pytest.raises(TrainingError, match=f"trainer.precision {precision} needs a GPU"):
            check_precision(precision, accelerator)


@pytest.mark.parametrize("precision", ["16-true", "bf16-true", "transformer-engine"])
def test_weights_are_not_rounded(precision: str) -> None:
    with pytest.raises(RecipeError, match=f"trainer.precision {precision} rounds the weights"):
        check_precision(precision, "gpu")


@pytest.mark.parametrize(
    "strategy",
    ["auto", "ddp", "ddp_find_unused_parameters_false", DDPStrategy()]
    + [Namespace(class_path="lightning.pytorch.strategies.DDPStrategy", init_args={})],
    ids=str,
)
def test_every_process_may_have_the_whole_model(strategy: Any) -> None:
    check_strategy(strategy)


@pytest.mark.parametrize(
    "strategy",
    ["fsdp", "ddp_spawn", "deepspeed_stage_2", Namespace(class_path="lightning.x.FSDPStrategy")],
    ids=str,
)
def test_what_shards_a_model_is_refused(strategy: Any) -> None:
    with pytest.raises(RecipeError, match=r"trainer\.strategy \w+: a bundle, .*: use ddp"):
        check_strategy(strategy)


@pytest.mark.usefixtures("no_gpu")
def test_a_model_of_a_gpu_is_scored_in_float32_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "recipe.yaml"
    for text, wanted in (
        ("trainer: {precision: 16-mixed}", ["--trainer.precision", "32-true"]),
        ("trainer: {precision: bf16-mixed}", []),
        ("trainer:", []),
        ("model: {}", []),
        ("{", []),
    ):
        recipe.write_text(text, encoding="utf-8")
        assert precision_here(recipe) == wanted
    recipe.write_text("trainer: {precision: 16-mixed}", encoding="utf-8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert has_accelerator("auto")
    assert precision_here(recipe) == []
