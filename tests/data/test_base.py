from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import SequentialSampler

from seqlab.batch import Batch, FormTable
from seqlab.data import base
from seqlab.data.base import (
    Encoded,
    EncodedDataset,
    SequenceDataModule,
    flat_ids,
    subword_vocabularies_of,
    token_counts,
    vocabularies_of,
)
from seqlab.data.sampling import BucketSampler
from seqlab.errors import BundleError, DataError, RecipeError
from seqlab.subwords import SubwordVocabulary, train_tokenizer
from seqlab.vocabulary import Vocabulary

# A busy machine is no failure.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
WORDS = Vocabulary(
    ["a", "b", "c"],
    padding=True,
    unknown=1,
    characters=Vocabulary("abc", padding=True, unknown=1),
)
SENTENCES = [["a", "b"], ["c"], ["b", "c", "a", "x"], ["a"]]
COLUMNS = st.lists(st.lists(st.lists(st.sampled_from("abcd"), max_size=4), max_size=4), max_size=3)


def dataset(
    tags: Any | None = None, rows: list[int] | None = None, hide: float | None = None, seed: int = 0
) -> EncodedDataset:
    """The sentences with a target and a feature that count the tokens from 0 and from 100."""
    table = FormTable(WORDS)
    forms = table.index([word for sentence in SENTENCES for word in sentence])
    encoded = Encoded(
        forms.astype(np.int32),
        np.cumsum([0, *(len(sentence) for sentence in SENTENCES)]),
        target=np.arange(len(forms), dtype=np.int32),
        features=[np.arange(100, 100 + len(forms), dtype=np.int32)],
        rows=None if rows is None else np.array(rows),
    )
    hidden = None if hide is None else np.where(table.words == WORDS.id("a"), hide, 0.0)
    return EncodedDataset(encoded, table, tags, hidden, seed)


class Corpus(SequenceDataModule):
    """A data module over the sentences above."""

    def dataset(self, split: str, *, scored: bool) -> EncodedDataset:
        self.asked = (split, scored)
        return dataset(tags=SENTENCES.__getitem__ if scored else None)


def chunked(chunks: list[list[list[str]]]) -> pa.ChunkedArray:
    kind = pa.list_(pa.string())
    return pa.chunked_array([pa.array(chunk, kind) for chunk in chunks], kind)


def test_a_split_knows_the_lengths_of_its_sequences() -> None:
    assert dataset().encoded.lengths.tolist() == [2, 1, 4, 1]


@pytest.mark.parametrize("index", [[0], [2, 0], [3, 1, 2, 0], [1, 1]])
def test_a_batch_holds_the_sequences_that_were_asked_for(index: list[int]) -> None:
    batch = dataset()[np.array(index)]
    starts = [0, 2, 3, 7]
    assert batch.lengths.tolist() == [len(SENTENCES[i]) for i in index]
    assert batch.target is not None
    for row, i in enumerate(index):
        size = len(SENTENCES[i])
        positions = list(range(starts[i], starts[i] + size))
        assert batch.source[row, :size].tolist() == WORDS.encode(SENTENCES[i])
        assert batch.target[row, :size].tolist() == positions
        assert batch.features[0][row, :size].tolist() == [100 + p for p in positions]
        assert (batch.target[row, size:] == -1).all()
    assert batch.gold is None


def test_scored_batches_bring_the_tags_of_their_rows() -> None:
    tags = [["O", "X"], ["O"], ["X", "O", "O", "O"], ["X"]]
    assert dataset(tags.__getitem__)[np.array([2, 1])].gold == [tags[2], tags[1]]


def test_pieces_of_a_document_are_scored_by_its_row() -> None:
    batch = dataset(lambda row: [str(row)], rows=[0, 0, 1, 2])[np.array([3, 1, 0])]
    assert batch.gold == [["2"], ["0"], ["0"]]


def test_a_split_without_tags_has_no_target() -> None:
    split = dataset()
    split.encoded.target = None
    assert split[np.array([0])].target is None


def test_hidden_words_are_shown_as_unknown_and_nothing_else_changes() -> None:
    index = np.array([1, 2, 0, 3])
    shown, hidden = dataset()[index], dataset(hide=1.0)[index]
    is_a = shown.source == WORDS.id("a")
    assert is_a.sum() == 3
    assert (hidden.source[is_a] == WORDS.first_unknown).all()
    assert torch.equal(hidden.source[~is_a], shown.source[~is_a])
    assert torch.equal(hidden.forms, shown.forms)
    assert torch.equal(hidden.characters, shown.characters)


def test_a_hidden_word_falls_into_one_of_the_unknown_rows() -> None:
    vocab = Vocabulary(["a", "b", "c", "d"], padding=True, unknown=3)
    table = FormTable(vocab)
    forms = table.index(["a", "b", "c", "d", "new"]).astype(np.int32)
    split = EncodedDataset(Encoded(forms, np.array([0, 5])), table, None, np.ones(5))
    assert set(split[np.array([0])].source[0].tolist()) <= {1, 2, 3}


def test_as_many_words_are_hidden_as_was_asked_for() -> None:
    splits = [dataset(hide=0.25, seed=seed) for seed in range(400)]
    first = torch.stack([split[np.array([0, 3])].source for split in splits])
    share = (first == WORDS.first_unknown).sum().item() / 800  # two of them a batch
    assert share == pytest.approx(0.25, abs=5 * (0.1875 / 800) ** 0.5)


def test_what_is_hidden_depends_on_seed_and_batch_alone() -> None:
    indices = [np.array(index) for index in ([0, 3, 2], [3, 0, 2], [2, 3])]
    forwards = [dataset(hide=0.5, seed=9)[i].source for i in indices]
    backwards = [dataset(hide=0.5, seed=9)[i].source for i in reversed(indices)][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert torch.equal(one, other)
    other_seeds = {
        tuple(dataset(hide=0.5, seed=s)[indices[0]].source.flatten().tolist()) for s in range(20)
    }
    assert len(other_seeds) > 1


@UNHURRIED
@given(COLUMNS)
def test_flat_ids_are_those_of_the_tokens(chunks: list[list[list[str]]]) -> None:
    rows = [row for chunk in chunks for row in chunk]
    ids, offsets = flat_ids(chunked(chunks), lambda words: [ord(word) for word in words])
    assert (ids.dtype, offsets.dtype) == (np.int32, np.int64)
    assert ids.tolist() == [ord(word) for row in rows for word in row]
    assert offsets.tolist() == np.cumsum([0, *map(len, rows)]).tolist()


@UNHURRIED
@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=4), min_size=1), st.data())
def test_flat_ids_of_a_slice_are_those_of_its_rows(rows: list[list[str]], data: Any) -> None:
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))
    part = chunked([rows]).slice(start, stop - start)
    ids, offsets = flat_ids(part, lambda words: [ord(word) for word in words])
    assert ids.tolist() == [ord(word) for row in rows[start:stop] for word in row]
    assert np.diff(offsets).tolist() == [len(row) for row in rows[start:stop]]
    assert token_counts([part]) == Counter(word for row in rows[start:stop] for word in row)


def test_each_string_is_encoded_once() -> None:
    asked: list[str] = []

    def encode(words: list[str]) -> list[int]:
        asked.extend(words)
        return [0] * len(words)

    flat_ids(chunked([[["a", "b", "a"], ["b"]]]), encode)
    assert asked == ["a", "b"]


@UNHURRIED
@given(st.lists(COLUMNS, max_size=3))
def test_tokens_are_counted_over_all_columns(columns: list[list[list[list[str]]]]) -> None:
    expected = Counter(w for chunks in columns for chunk in chunks for row in chunk for w in row)
    assert token_counts([chunked(chunks) for chunks in columns]) == expected


@pytest.mark.parametrize(
    ("loader", "split", "scored"),
    [
        ("train_dataloader", "train", False),
        ("val_dataloader", "validation", True),
        ("test_dataloader", "test", True),
    ],
)
def test_a_loader_gives_every_sequence_once(loader: str, split: str, scored: bool) -> None:
    corpus = Corpus(batch_size=2, tokens_per_batch=4)
    batches = list(getattr(corpus, loader)())
    assert corpus.asked == (split, scored)
    assert all(isinstance(batch, Batch) for batch in batches)
    lengths = sorted(n for batch in batches for n in batch.lengths.tolist())
    assert lengths == [1, 1, 2, 4]
    assert all((batch.gold is not None) == scored for batch in batches)


def test_training_keeps_its_budget_and_scoring_its_own() -> None:
    corpus = Corpus(batch_size=3, tokens_per_batch=4, eval_tokens_per_batch=16)
    shapes = [batch.source.shape for batch in corpus.train_dataloader()]
    assert all(rows <= 3 and (rows == 1 or rows * time <= 4) for rows, time in shapes)
    assert [b.source.shape for b in corpus.val_dataloader()] == [(4, 4)]  # more than batch_size


def test_an_empty_split_gives_no_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = EncodedDataset(Encoded(np.zeros(0, np.int32), np.zeros(1, np.int64)), FormTable(WORDS))
    corpus = Corpus()
    monkeypatch.setattr(corpus, "dataset", lambda split, scored: empty)
    assert list(corpus.train_dataloader()) == list(corpus.val_dataloader()) == []


@pytest.mark.parametrize("rank", [0, 1])
def test_loaders_share_the_batches_out_among_processes(
    rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "world", lambda: (rank, 2))
    corpus = Corpus(batch_size=1, eval_tokens_per_batch=1)
    assert len(list(corpus.train_dataloader())) == 2
    assert [b.lengths.tolist() for b in corpus.val_dataloader()] == [[[4], [1]], [[2], [1]]][rank]


@pytest.mark.parametrize(
    ("given_seed", "environment", "expected"),
    [(5, "13", 5), (0, "13", 0), (None, "13", 13), (None, None, 0)],
)
def test_the_order_has_the_seed_of_the_recipe_unless_it_has_its_own(
    given_seed: int | None,
    environment: str | None,
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    if environment is not None:
        monkeypatch.setenv("PL_GLOBAL_SEED", environment)
    sampler = Corpus(seed=given_seed).train_dataloader().sampler
    assert isinstance(sampler, BucketSampler)
    assert (sampler.seed, sampler.shuffle) == (expected, True)


def test_the_loader_has_the_sampler_that_a_trainer_sets_the_epoch_of() -> None:
    loader = Corpus().val_dataloader()
    assert not isinstance(loader.sampler, SequentialSampler)
    assert callable(getattr(loader.sampler, "set_epoch", None))
    assert len(loader) == 1


@pytest.mark.parametrize("epoch", [0, 3])
def test_a_resumed_run_begins_with_the_order_of_its_epoch(epoch: int) -> None:
    corpus = Corpus(batch_size=1)
    current = SimpleNamespace(processed=epoch)
    loop = SimpleNamespace(epoch_progress=SimpleNamespace(current=current))
    corpus.trainer = cast(Any, SimpleNamespace(fit_loop=loop))
    sampler = corpus.train_dataloader().sampler
    assert isinstance(sampler, BucketSampler)
    expected = BucketSampler(sampler.lengths, 1, 4096, shuffle=True, seed=corpus.seed)
    expected.set_epoch(epoch)
    assert [b.tolist() for b in sampler] == [b.tolist() for b in expected]


@pytest.mark.parametrize("name", ["batch_size", "tokens_per_batch", "eval_tokens_per_batch"])
@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_of_nothing_is_refused(name: str, size: int) -> None:
    arguments: dict[str, Any] = {name: size}
    with pytest.raises(RecipeError) as error:
        SequenceDataModule(**arguments)
    assert str(error.value) == f"data.{name} is {size}: it must be 1 or more."


@pytest.mark.parametrize(("rank", "said"), [(0, "seqlab: 3 lines were skipped.\n"), (1, "")])
def test_a_note_is_said_once_and_by_the_first_process(
    rank: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "is_first", lambda: rank == 0)
    corpus = Corpus()
    corpus.note("3 lines were skipped.")
    corpus.note("3 lines were skipped.")
    captured = capsys.readouterr()
    assert (captured.err, captured.out) == (said, "")
    assert corpus.notes == ["3 lines were skipped."]


def test_a_bundle_lends_its_vocabularies(tmp_path: Path) -> None:
    tags = Vocabulary(["O", "X"])
    (tmp_path / "source_vocab.json").write_text(WORDS.to_json(), encoding="utf-8")
    (tmp_path / "target_vocab.json").write_text(tags.to_json(), encoding="utf-8")
    assert vocabularies_of(tmp_path) == {"source": WORDS, "target": tags}


def test_a_bundle_that_translates_lends_its_own_and_to_translators_alone(tmp_path: Path) -> None:
    texts = ["a b", "b c"]
    pieces = [
        SubwordVocabulary(train_tokenizer(iter(texts), "words", 9), language=language)
        for language in ("de", "en")
    ]
    for side, vocabulary in zip(("source", "target"), pieces, strict=True):
        (tmp_path / f"{side}_vocab.json").write_text(vocabulary.to_json(), encoding="utf-8")
    lent = subword_vocabularies_of(tmp_path)
    assert [lent["source"].language, lent["target"].language] == ["de", "en"]
    assert lent["source"] == lent["target"] == pieces[0]
    with pytest.raises(DataError) as error:
        vocabularies_of(tmp_path)
    assert str(error.value) == (
        f"the model in {tmp_path} translates: give it pairs of sentences as seqlab.TranslationData."
    )
    (tmp_path / "source_vocab.json").write_text(WORDS.to_json(), encoding="utf-8")
    with pytest.raises(DataError, match=f"the model in {tmp_path} does not translate: give it"):
        subword_vocabularies_of(tmp_path)


def test_a_folder_without_vocabularies_is_named(tmp_path: Path) -> None:
    (tmp_path / "source_vocab.json").write_text(WORDS.to_json(), encoding="utf-8")
    with pytest.raises(DataError) as error:
        vocabularies_of(tmp_path)
    assert str(error.value) == (
        f"{tmp_path} is no bundle: it lacks target_vocab.json; give the folder `bundle` of a run."
    )


def test_damaged_vocabularies_are_a_damaged_bundle(tmp_path: Path) -> None:
    (tmp_path / "source_vocab.json").write_text("{", encoding="utf-8")
    with pytest.raises(BundleError, match="a vocabulary is no valid JSON"):
        vocabularies_of(tmp_path)
