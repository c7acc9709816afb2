from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seqlab.data import cache, encoding
from seqlab.data.encoding import EncodedPairs, content_of, encoded_ids, learnt_tokenizer
from seqlab.errors import DataError
from seqlab.subwords import SubwordVocabulary

PAIRS = [
    ("ein Hund", "a dog"),
    ("zwei Hunde!", "two dogs!"),
    ("ja", "yes, of course"),
    ("é😀", "x"),
]
UNHURRIED = settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQLAB_CACHE", str(tmp_path / "cache"))


def split_of(pairs: Sequence[tuple[str, str]] = PAIRS) -> Any:
    import datasets

    return datasets.Dataset.from_dict(
        {"source": [[pair[0]] for pair in pairs], "target": [[pair[1]] for pair in pairs]}
    )


def learnt(pairs: Sequence[tuple[str, str]] = PAIRS, **options: Any) -> str:
    split = split_of(pairs)
    asked = {"sides": ("source", "target"), "kind": "bpe", "size": 300, "lowercase": False}
    return learnt_tokenizer(split, **{**asked, **options}, content=content_of(split))


def vocabularies(language: str | None = None) -> dict[str, SubwordVocabulary]:
    vocab = SubwordVocabulary(learnt(), language=language)
    return {"source": vocab, "target": vocab}


def encoded(pairs: Sequence[tuple[str, str]] = PAIRS) -> dict[str, encoding.FlatIds]:
    split = split_of(pairs)
    return encoded_ids(split, "train", vocabularies(), content_of(split))


def entries(tmp_path: Path) -> list[Path]:
    return sorted(file for file in (tmp_path / "cache").rglob("*") if file.is_file())


# Tokenizers


def test_a_tokenizer_is_learnt_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = learnt()
    monkeypatch.setattr(encoding, "train_tokenizer", None)
    assert learnt() == first
    for options in (
        {"size": 299},
        {"kind": "words"},
        {"lowercase": True},
        {"sides": ("source",)},
        {"pairs": PAIRS[::-1]},
    ):
        with pytest.raises(TypeError):
            learnt(**options)


def test_a_side_has_a_tokenizer_of_its_own_texts() -> None:
    sides = {side: learnt(sides=(side,), kind="words") for side in ("source", "target")}
    source, target = (SubwordVocabulary(text, language=None) for text in sides.values())
    assert " Hund" in source.pieces(range(len(source)))
    assert " dog" in target.pieces(range(len(target)))
    assert " dog" not in source.pieces(range(len(source)))
    joint = SubwordVocabulary(learnt(kind="words"), language=None)
    assert {" dog", " Hund"} <= set(joint.pieces(range(len(joint))))


def test_an_error_in_learning_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        learnt([(" ", " ")], kind="words")
    assert entries(tmp_path) == []


@pytest.mark.parametrize("harm", [b"", b"{}"])
def test_a_damaged_tokenizer_is_learnt_anew(harm: bytes, tmp_path: Path) -> None:
    first = learnt()
    (file,) = [file for file in entries(tmp_path) if file.name == "tokenizer.json"]
    file.write_bytes(harm)
    assert learnt() == first


# Ids


@UNHURRIED
@given(st.lists(st.tuples(st.text("aeé 😀", min_size=1), st.text("xy", min_size=1)), min_size=1))
def test_ids_are_those_of_the_texts_with_an_end(pairs: list[tuple[str, str]]) -> None:
    flat, vocab = encoded(pairs), vocabularies()["source"]
    for at, side in enumerate(("source", "target")):
        wanted = [[*ids, 3] for ids in vocab.encode([pair[at] for pair in pairs])]
        assert flat[side].ids.dtype == np.int32
        assert flat[side].ids.tolist() == [i for ids in wanted for i in ids]
        assert flat[side].offsets.tolist() == np.cumsum([0, *map(len, wanted)]).tolist()


def test_texts_are_encoded_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {side: ids.ids.tolist() for side, ids in encoded(PAIRS * 5).items()}
    monkeypatch.setattr(encoding, "_CHUNK", 3)
    monkeypatch.setattr(encoding, "_VERSION", "another")
    sizes = []
    encode = SubwordVocabulary.encode

    def watched(self: SubwordVocabulary, texts: Sequence[str]) -> list[list[int]]:
        sizes.append(len(texts))
        return encode(self, texts)

    monkeypatch.setattr(SubwordVocabulary, "encode", watched)
    assert {side: ids.ids.tolist() for side, ids in encoded(PAIRS * 5).items()} == wanted
    assert sizes == [3, 3, 3, 3, 3, 3, 2] * 2


def test_ids_are_made_once_and_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    vocabs, split = vocabularies(), split_of()
    first = encoded_ids(split, "train", vocabs, content_of(split))
    monkeypatch.setattr(SubwordVocabulary, "encode", None)
    again = encoded_ids(split, "train", vocabs, content_of(split))
    assert again["target"].ids.tolist() == first["target"].ids.tolist()
    base = again["target"].ids.base
    assert isinstance(base, np.memmap)
    assert not again["target"].ids.flags.writeable
    copy = pickle.loads(pickle.dumps(again["source"]))
    assert copy.ids.tolist() == first["source"].ids.tolist()
    assert isinstance(copy.ids.base, np.memmap)
    assert len(pickle.dumps(again["source"])) < 1000


def test_other_texts_or_tokenizers_give_other_ids() -> None:
    assert content_of(split_of()) == content_of(split_of())
    others = [PAIRS[:-1], [*PAIRS[:-1], ("é😀x", "")], [(b, a) for a, b in PAIRS]]
    assert len({content_of(split_of(pairs)) for pairs in (PAIRS, *others)}) == 4
    vocab = vocabularies()["source"]
    words = SubwordVocabulary(learnt(kind="words"), language=None)
    split = split_of()
    ids = [
        encoded_ids(split, "train", {"source": a, "target": b}, content_of(split))
        for a, b in ((vocab, vocab), (vocab, words), (words, vocab))
    ]
    assert ids[0]["source"].ids.tolist() == ids[1]["source"].ids.tolist()
    assert ids[0]["target"].ids.tolist() != ids[1]["target"].ids.tolist()
    assert ids[0]["source"].ids.tolist() != ids[2]["source"].ids.tolist()


@pytest.mark.parametrize("name", ["source.ids", "target.offsets", cache.NOTES])
def test_damaged_ids_are_made_anew(name: str, tmp_path: Path) -> None:
    wanted = encoded()["target"].offsets.tolist()
    files = [f for f in entries(tmp_path) if f.with_name("source.ids").exists()]
    (damaged,) = [file for file in files if file.name == name]
    damaged.write_bytes(damaged.read_bytes()[:-3])
    again = encoded()
    assert again["target"].offsets.tolist() == wanted
    assert again["source"].ids[-1] == 3
    assert [f for f in entries(tmp_path) if f.with_name("source.ids").exists()] == files


@pytest.mark.slow
def test_several_processes_may_encode_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from seqlab.data.translation import TranslationData;"
        "d = TranslationData(sys.argv[1], vocabulary_size=400); d.setup('fit');"
        "e = d.dataset('train', scored=False).encoded;"
        "print(e.offsets[-1], e.source.ids.sum(), d.source_vocab.to_json())"
    )
    lines = [f"Satz {i} hat {i % 13} Hunde\tsentence {i} has {i % 13} dogs\n" for i in range(3000)]
    (tmp_path / "train.tsv").write_text("".join(lines), encoding="utf-8")
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "train.tsv")],
            stdout=subprocess.PIPE,
            env=dict(os.environ),
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in running]
    assert said[0] == said[1] != b""
    assert len([file for file in entries(tmp_path) if file.name == "source.ids"]) == 1


def test_long_work_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pairs = PAIRS * 1500
    monkeypatch.setattr(cache, "_PATIENCE", 0.0)
    vocabs = {
        side: SubwordVocabulary(learnt(pairs), language=None) for side in ("source", "target")
    }
    split = split_of(pairs)
    encoded_ids(split, "train", vocabs, content_of(split))
    chunks = [f"{sum(sizes):,} texts so far" for sizes in ((4096,), (4096, 1904))]
    assert capfd.readouterr().err.splitlines() == [
        *(f"learning the bpe tokenizer: {count:,} texts so far" for count in (4096, 6000, 10096)),
        "learning the bpe tokenizer: 12,000 texts so far",
        *(f"encoding train, {side}: {chunk}" for side in ("source", "target") for chunk in chunks),
    ]


# Batches


@pytest.mark.parametrize("index", [[0], [2, 0], [3, 1, 2, 0], [1, 1]])
def test_a_batch_holds_the_texts_that_were_asked_for(index: list[int]) -> None:
    flat, vocab = encoded(), vocabularies()["source"]
    ids, lengths = flat["source"].batch(np.array(index))
    wanted = [[*one, 3] for one in vocab.encode([PAIRS[i][0] for i in index])]
    assert (ids.dtype, lengths.dtype) == (torch.int64, torch.int64)
    assert lengths.tolist() == [len(one) for one in wanted]
    longest = max(map(len, wanted))
    assert ids.tolist() == [one + [0] * (longest - len(one)) for one in wanted]


def test_a_batch_of_none_is_empty() -> None:
    ids, lengths = encoded()["source"].batch(np.zeros(0, np.int64))
    assert (ids.shape, lengths.shape) == ((0, 0), (0,))


def test_pairs_know_their_lengths_and_what_they_are_sorted_by() -> None:
    flat = encoded()
    source, target = (np.diff(flat[side].offsets) for side in ("source", "target"))
    pairs = EncodedPairs(flat["source"], flat["target"])
    assert pairs.lengths.tolist() == np.maximum(source, target).tolist()
    assert pairs.offsets.tolist() == flat["target"].offsets.tolist()
    order = sorted(range(len(PAIRS)), key=lambda i: (target[i], source[i]))
    assert np.argsort(pairs.sort_key).tolist() == order
    assert (pairs.rows.tolist(), pairs.left_out.tolist()) == ([0, 1, 2, 3], [])


def test_pairs_that_are_too_long_are_left_out() -> None:
    flat = encoded()
    source, target = (np.diff(flat[side].offsets) - 1 for side in ("source", "target"))
    longer = np.maximum(source, target)
    for longest in range(1, 30):
        pairs = EncodedPairs(flat["source"], flat["target"], longest)
        assert pairs.rows.tolist() == np.flatnonzero(longer <= longest).tolist()
        assert pairs.left_out.tolist() == np.flatnonzero(longer > longest).tolist()
        assert pairs.lengths.tolist() == (longer[longer <= longest] + 1).tolist()
        assert pairs.offsets.tolist() == [0, *np.cumsum(target[longer <= longest] + 1)]
        assert len(pairs.sort_key) == len(pairs.rows)
