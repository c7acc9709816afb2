"""What both data modules on words share; one test serves both, on the same words."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqlab.data.classification import ClassificationData
from seqlab.data.corpus import CorpusData
from seqlab.data.tagging import TaggingData
from seqlab.errors import DataError, RecipeError
from seqlab.vocabulary import Vocabulary

MODULES = [TaggingData, ClassificationData]
WORDS = ["Ada", "wrote", "the", "1843", "note", ".", "London", "in", "NASA"]
both = pytest.mark.parametrize("module", MODULES)


def sentences(count: int, seed: int = 0) -> list[list[str]]:
    rng = random.Random(seed)
    rare = [f"rare{'abc'[seed]}{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(count)]
    return [[*rng.choices(WORDS, k=rng.randint(1, 9)), word] for word in rare]


def corpus(folder: Path, **splits: list[list[str]]) -> str:
    """Files that are both, tagged sentences and labelled texts."""
    folder.mkdir(exist_ok=True)
    for name, rows in splits.items():
        records = [
            {"tokens": row, "tags": ["O"] * len(row), "label": "ab"[len(row) % 2]} for row in rows
        ]
        text = "".join(f"{json.dumps(record)}\n" for record in records)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return str(folder)


@pytest.fixture
def home(tmp_path: Path) -> str:
    return corpus(tmp_path / "my", train=sentences(40), dev=sentences(9, 1), test=sentences(8, 2))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lowercase": False},
        {"min_count": 2, "unknown_rows": 5},
        {"hide_rare": 0.0, "batch_size": 3},
        {"hide_rare": 1.0, "tokens_per_batch": 30},
    ],
    ids=str,
)
def test_both_tasks_see_the_same_words(options: dict[str, Any], home: str) -> None:
    tagging, texts = (module(home, seed=1, **options) for module in MODULES)
    assert tagging.source_vocab == texts.source_vocab
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        pairs = zip(getattr(tagging, loader)(), getattr(texts, loader)(), strict=True)
        for ours, theirs in pairs:
            for name in ("source", "lengths", "forms", "characters", "casing"):
                assert torch.equal(getattr(ours, name), getattr(theirs, name)), name


@both
def test_vectors_are_placed_and_their_coverage_is_said(
    module: type[CorpusData], home: str, tmp_path: Path
) -> None:
    (tmp_path / "vectors.txt").write_text("ada 1 2\nmoon 3 4\n", encoding="utf-8")
    data = module(home, vectors=str(tmp_path / "vectors.txt"))
    vocab = data.source_vocab
    assert vocab.vectors is not None
    assert vocab.vectors[vocab.encode(["Ada", "moon"])].tolist() == [[1, 2], [3, 4]]
    assert len(data.notes) == 1
    assert data.notes[0].startswith("vectors: 1 of ")


@both
def test_splits_are_held_out_and_that_is_said(module: type[CorpusData], tmp_path: Path) -> None:
    path = corpus(tmp_path / "my", train=sentences(20))
    data = module(path)
    assert [len(data.splits[part]) for part in ("train", "validation", "test")] == [16, 2, 2]
    noun = "sentences" if module is TaggingData else "texts"
    assert data.notes == [
        f"{path} has no validation or test split: 2 of its 20 training {noun}, drawn once and for "
        "all, stand in for each."
    ]
    assert {len(rows) for rows in module(path, hold_out=0.0).splits.values()} == {20}


@both
def test_what_is_not_there_is_said(module: type[CorpusData], tmp_path: Path) -> None:
    alone = corpus(tmp_path / "alone", test=sentences(3))
    with pytest.raises(DataError, match=f"^{alone} has no training split \\(only test\\): name"):
        module(alone).setup("fit")
    two = corpus(tmp_path / "two", train=sentences(3), dev=sentences(3))
    with pytest.raises(DataError, match=f"^{two} has no test split \\(only train, validation\\):"):
        module(two).test_dataloader()


@both
def test_a_split_is_encoded_once(module: type[CorpusData], home: str) -> None:
    data = module(home)
    assert data.dataset("train", scored=False) is data.dataset("train", scored=False)
    assert data.dataset("train", scored=True) is not data.dataset("train", scored=False)


@both
def test_a_bundle_of_the_other_task_is_refused(
    module: type[CorpusData], home: str, tmp_path: Path
) -> None:
    other = next(each for each in MODULES if each is not module)(home)
    for side, vocab in (("source", other.source_vocab), ("target", other.target_vocab)):
        (tmp_path / f"{side}_vocab.json").write_text(vocab.to_json(), encoding="utf-8")
    with pytest.raises(DataError, match=f"give it .* as seqlab.{type(other).__name__}"):
        module(home, vocabularies_from=str(tmp_path)).setup("test")


@both
@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("min_count", 0, "data.min_count is 0: it must be 1 or more."),
        ("unknown_rows", 0, "data.unknown_rows is 0: it must be 1 or more."),
        ("max_length", 1, "data.max_length is 1: it must be 2 or more."),
        ("hold_out", 0.5, "data.hold_out is 0.5: it must be 0 or more and less than 0.5."),
        ("batch_size", 0, "data.batch_size is 0: it must be 1 or more."),
        ("labels", ["a", "a"], "duplicate label 'a' in data.labels: name each label once."),
    ],
)
def test_options_out_of_range_are_refused(
    module: type[CorpusData], option: str, value: Any, said: str
) -> None:
    with pytest.raises(RecipeError) as error:
        module("my", **{option: value})
    assert str(error.value) == said


@both
def test_a_misspelt_option_is_refused(module: type[CorpusData]) -> None:
    with pytest.raises(TypeError, match="min_cuont"):
        module("my", min_cuont=2)


def test_a_task_has_to_say_what_it_learns() -> None:
    with pytest.raises(TypeError, match="abstract"):
        CorpusData("my")  # type: ignore[abstract]


def test_words_with_a_vector_and_frequent_words_are_never_hidden(home: str, tmp_path: Path) -> None:
    (tmp_path / "vectors.txt").write_text("rareaab 1 2\n", encoding="utf-8")
    data = ClassificationData(home, hide_rare=1.0, vectors=str(tmp_path / "vectors.txt"))
    vocab: Vocabulary = data.source_vocab
    dataset = data.dataset("train", scored=False)
    batch = dataset[np.arange(len(dataset.encoded.lengths))]
    shown = set(vocab.decode(batch.source[batch.mask].tolist()))
    assert {word for word in shown if word.startswith("rare")} == {"rareaab"}
    assert {"ada", "<unk>", "0000"} <= shown
