from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import pytest
import torch

from seqlab.batch import Batch, FormTable
from seqlab.configuration import quiet
from seqlab.data import coded, sources
from seqlab.data.mapping import MappedIds
from seqlab.data.tag_ids import TagIds
from seqlab.data.tagging import TaggingData
from seqlab.errors import DataError, RecipeError
from seqlab.metrics import SpanF1
from seqlab.models.tagger import Tagger
from seqlab.tags import Span, tags_of
from seqlab.vocabulary import Vocabulary

Sentence = tuple[list[str], list[str]]
SCHEMES = ("iob1", "iob2", "bioes", "bilou")
WORDS = ["Ada", "Bo", "in", "London", "wrote", "the", "1843", "note", ".", "Dee"]


def sentences(count: int, scheme: str = "iob2", seed: int = 0, longest: int = 9) -> list[Sentence]:
    """Random sentences with spans, some of which touch."""
    rng, made = random.Random(seed), []
    for _ in range(count):
        length = rng.randint(1, longest)
        spans, start = [], 0
        while start < length:
            size = rng.randint(1, 3)
            if rng.random() < 0.4 and start + size <= length:
                spans.append(Span(rng.choice(["PER", "LOC", "PER"]), start, start + size))
            start += size
        made.append((rng.choices(WORDS, k=length), tags_of(spans, length, scheme)))
    return made


def text_of(rows: Sequence[tuple[Sequence[str], ...]]) -> str:
    """Columns as CoNLL files have them."""
    return "\n".join(
        "".join("\t".join(cells) + "\n" for cells in zip(*row, strict=True)) for row in rows
    )


def corpus(folder: Path, **splits: Sequence[tuple[Sequence[str], ...]]) -> str:
    folder.mkdir(exist_ok=True)
    for name, rows in splits.items():
        (folder / f"{name}.conll").write_text(text_of(rows), encoding="utf-8")
    return str(folder)


@pytest.fixture
def home(tmp_path: Path) -> str:
    """A corpus with three splits."""
    return corpus(
        tmp_path / "my", train=sentences(40), dev=sentences(9, seed=1), test=sentences(8, seed=2)
    )


def rows_of(batches: Sequence[Batch]) -> list[tuple[Any, ...]]:
    """Every sequence of some batches as plain data, in an order of its own."""
    rows: list[tuple[Any, ...]] = []
    for batch in batches:
        for i, n in enumerate(batch.lengths.tolist()):
            spelt = [
                tuple(x for x in batch.characters[f].tolist() if x) for f in batch.forms[i, :n]
            ]
            rows.append(
                (
                    batch.source[i, :n].tolist(),
                    spelt,
                    batch.casing[batch.forms[i, :n]].tolist(),
                    [column[i, :n].tolist() for column in batch.features],
                    None if batch.target is None else batch.target[i, :n].tolist(),
                    None if batch.gold is None else batch.gold[i],
                )
            )
    return sorted(rows, key=repr)


def train_rows(data: TaggingData) -> list[tuple[Any, ...]]:
    return rows_of(list(data.train_dataloader()))


def gold_of(data: TaggingData, split: str) -> list[list[str]]:
    dataset = data.dataset(split, scored=True)
    return [dataset[np.array([i])].gold[0] for i in range(len(dataset.encoded.lengths))]  # type: ignore[index]


@pytest.mark.parametrize("tag_scheme", ["bioes", "iob2"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_scheme_of_a_corpus_makes_no_difference(
    scheme: str, tag_scheme: Any, tmp_path: Path
) -> None:
    found = []
    for written in ("iob2", scheme):
        splits = {"train": sentences(60, written), "dev": sentences(20, written, seed=1)}
        path = corpus(tmp_path / written, **splits)
        found.append(TaggingData(path, tag_scheme=tag_scheme, seed=1))
    expected, data = found
    assert data.target_vocab.written == scheme
    assert data.target_vocab.scheme == tag_scheme
    assert data.target_vocab.tokens == expected.target_vocab.tokens
    assert train_rows(data) == train_rows(expected)
    assert gold_of(data, "validation") == gold_of(expected, "validation")
    wanted = [tags for _, tags in sentences(20, tag_scheme, seed=1)]
    assert gold_of(data, "validation") == wanted


def test_tags_without_prefixes_are_learnt_as_they_are(tmp_path: Path) -> None:
    rows = [(["the", "note", "."], ["DET", "NOUN", "PUNCT"]), (["wrote"], ["VERB"])]
    data = TaggingData(corpus(tmp_path / "my", train=rows, dev=rows))
    assert (data.target_vocab.scheme, data.target_vocab.written) == ("none", "none")
    assert sorted(data.target_vocab.tokens) == ["DET", "NOUN", "PUNCT", "VERB"]
    assert gold_of(data, "validation") == [tags for _, tags in rows]


def test_a_scheme_may_be_given_instead_of_found(tmp_path: Path) -> None:
    rows = [(["Ada", "wrote"], ["B-PER", "O"])]
    data = TaggingData(corpus(tmp_path / "my", train=rows, dev=rows), scheme="none")
    assert data.target_vocab.tokens == ("B-PER", "O")
    data = TaggingData(str(tmp_path / "my"), scheme="bilou")
    assert data.target_vocab.written == "bilou"


@pytest.mark.parametrize("part", ["train", "dev"])
def test_a_tag_outside_the_scheme_is_named_by_file_and_line(part: str, tmp_path: Path) -> None:
    splits = {"train": sentences(20), "dev": sentences(5, seed=1)}
    tokens, tags = splits[part][2]
    splits[part][2] = (tokens, ["PERSON", *tags[1:]])
    path = corpus(tmp_path / "my", **splits)
    line = sum(len(tokens) + 1 for tokens, _ in splits[part][:2]) + 1
    with pytest.raises(DataError) as error:
        TaggingData(path).setup("fit")
    assert str(error.value).startswith(
        f"{tmp_path}/my/{part}.conll:{line}: tag 'PERSON' does not belong to the scheme of the "
        "other tags, expected O or PREFIX-LABEL"
    )


def test_mixed_schemes_are_named_by_the_first_line_of_both(tmp_path: Path) -> None:
    train = [(["Ada", "Bo"], ["B-PER", "E-PER"]), (["Dee", "Bo"], ["B-PER", "L-PER"])]
    path = corpus(tmp_path / "my", train=train, dev=train)
    file = tmp_path / "my" / "train.conll"
    with pytest.raises(DataError) as error:
        TaggingData(path).setup("fit")
    assert str(error.value).startswith(
        f"the tags mix schemes: {file}:2: E-PER belongs to bioes, but {file}:5: L-PER belongs to "
        "bilou."
    )


def test_lines_of_what_was_held_out_are_lines_of_its_file(tmp_path: Path) -> None:
    rows = [(["Ada"], ["B-PER"])] * 19 + [(["Bo"], ["PERSON"])]
    file = tmp_path / "all.conll"
    file.write_text(text_of(rows), encoding="utf-8")
    with pytest.raises(DataError, match=f"^{file}:39: tag 'PERSON' does not belong"):
        TaggingData(str(file)).setup("fit")


def test_a_tag_outside_a_given_scheme_is_named_by_file_and_line(tmp_path: Path) -> None:
    rows = [(["Ada", "wrote"], ["B-PER", "O"]), (["Bo"], ["PERSON"])]
    path = corpus(tmp_path / "my", train=rows, dev=rows[:1])
    with pytest.raises(DataError) as error:
        TaggingData(path, scheme="iob2").setup("fit")
    assert str(error.value) == (
        f"{path}/train.conll:4: tag 'PERSON' is neither O nor PREFIX-LABEL such as B-PER. The "
        "known schemes are iob1, iob2, bioes and bilou. Mend it, or set data.scheme to none."
    )


def test_a_tag_outside_a_given_scheme_is_found_in_what_is_scored(tmp_path: Path) -> None:
    rows = [(["Ada", "wrote"], ["B-PER", "O"]), (["Bo"], ["PERSON"])]
    path = corpus(tmp_path / "my", train=rows[:1], dev=rows)
    with pytest.raises(DataError, match=f"^{path}/dev.conll:4: tag 'PERSON' is neither O nor"):
        list(TaggingData(path, scheme="iob2").val_dataloader())


def test_a_little_dirt_is_repaired_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(["Ada", "wrote"], ["B-PER", "O"])] * 200 + [(["Bo", "wrote"], ["I-PER", "O"])]
    path = corpus(tmp_path / "my", train=rows, dev=rows[-1:])
    data = TaggingData(path)
    assert gold_of(data, "validation") == [["S-PER", "O"]]
    said = (
        f"2 tags do not fit iob2 and are read as conlleval reads them (the first at "
        f"{path}/train.conll:601, {path}/dev.conll:1)."
    )
    assert data.notes == [said]
    assert capsys.readouterr().err == f"seqlab: {said}\n"


def test_what_a_file_has_of_dirt_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = corpus(tmp_path / "my", train=sentences(5), dev=sentences(3))
    with open(f"{path}/train.conll", "a", encoding="utf-8") as file:
        file.write("\n \tO\nAda\tB-PER\n")
    line = len(text_of(sentences(5)).splitlines()) + 2
    said = f"seqlab: train.conll: 1 line with an empty token was skipped (line {line}).\n"
    for _ in range(2):  # the second time from the cache
        data = TaggingData(path)
        data.setup("fit")
        data.setup("test")
        list(data.train_dataloader())
        assert capsys.readouterr().err == said
    assert len(data.splits["train"]) == 6


def test_a_lone_file_is_split_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "all.conll"
    file.write_text(text_of(sentences(30)), encoding="utf-8")
    for given in ({"path": str(file)}, {"train": str(file)}):
        data = TaggingData(**given, hold_out=0.2)  # type: ignore[arg-type]
        assert {part: len(rows) for part, rows in data.splits.items()} == {
            "train": 18,
            "validation": 6,
            "test": 6,
        }
        assert capsys.readouterr().err == (
            f"seqlab: {file} has no validation or test split: 6 of its 30 training sentences, "
            "drawn once and for all, stand in for each.\n"
        )


def test_nothing_of_what_is_held_out_is_trained_on(tmp_path: Path) -> None:
    rows = [([f"word{i}"], ["O"]) for i in range(50)]
    data = TaggingData(corpus(tmp_path / "my", train=rows, test=rows[:3]))
    assert [len(data.splits[part]) for part in ("train", "validation", "test")] == [45, 5, 3]
    held = {tokens[0] for tokens in data.splits["validation"]["tokens"]}
    trained = {tokens[0] for tokens in data.splits["train"]["tokens"]}
    assert not held & trained
    assert len(held | trained) == 50


def test_with_nothing_held_out_a_lone_file_serves_as_every_split(tmp_path: Path) -> None:
    file = tmp_path / "all.conll"
    file.write_text(text_of(sentences(3)), encoding="utf-8")
    data = TaggingData(str(file), hold_out=0.0)
    wanted = [tags for _, tags in sentences(3, "bioes")]
    assert gold_of(data, "train") == gold_of(data, "validation") == gold_of(data, "test") == wanted
    assert data.notes == []


@pytest.mark.parametrize("share", [-0.1, 0.5, 1.0])
def test_a_share_that_leaves_nothing_is_refused(share: float) -> None:
    with pytest.raises(RecipeError) as error:
        TaggingData("my", hold_out=share)
    assert str(error.value) == (
        f"data.hold_out is {share}: it must be 0 or more and less than 0.5."
    )


def test_a_corpus_without_a_training_split_cannot_be_trained_on(tmp_path: Path) -> None:
    path = corpus(tmp_path / "my", test=sentences(3))
    for data in (TaggingData(path), TaggingData(test=f"{path}/test.conll")):
        with pytest.raises(DataError) as error:
            data.setup("fit")
        assert str(error.value) == (
            f"{data.path or data.files['test'][0]} has no training split (only test): name a file "
            "train.*, or give it as data.train."
        )
        with pytest.raises(DataError, match="has no training split"):
            _ = data.source_vocab


def test_a_missing_split_is_named_when_it_is_asked_for(tmp_path: Path) -> None:
    data = TaggingData(corpus(tmp_path / "my", train=sentences(3), dev=sentences(3)))
    with pytest.raises(DataError) as error:
        data.test_dataloader()
    assert str(error.value) == (
        f"{tmp_path}/my has no test split (only train, validation): give data.test a file."
    )


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    path = corpus(tmp_path / "my", train=sentences(3), dev=[])
    with pytest.raises(DataError, match=f"^{path}/dev.conll holds no sentence: give a file"):
        TaggingData(path).setup("fit")


def test_given_labels_are_the_labels_in_their_order(home: str) -> None:
    data = TaggingData(home, labels=["PER", "ORG", "LOC"], tag_scheme="iob2")
    assert data.target_vocab.tokens == (
        "O",
        *(f"{p}-{label}" for label in ("PER", "ORG", "LOC") for p in "BI"),
    )
    counts = Counter(t[2:] for _, tags in sentences(40) for t in tags)
    assert counts["PER"] > counts["LOC"]
    assert TaggingData(home, tag_scheme="iob2").target_vocab.tokens == (
        *("O", "B-PER", "I-PER", "B-LOC", "I-LOC"),
    )


def test_a_label_that_is_not_given_is_named_by_file_and_line(home: str) -> None:
    with pytest.raises(DataError) as error:
        TaggingData(home, labels=["PER", "LOK"]).setup("fit")
    flat = [tag for _, tags in sentences(40) for tag in [*tags, ""]]
    line = next(i for i, tag in enumerate(flat, 1) if tag.endswith("LOC"))
    assert str(error.value) == (
        f"{home}/train.conll:{line}: label 'LOC' is not among data.labels (PER, LOK). Did you mean "
        "'LOK'?"
    )


def test_a_tag_that_is_not_given_is_named_where_there_are_no_spans(tmp_path: Path) -> None:
    rows = [(["the", "note"], ["DET", "NOUN"])]
    path = corpus(tmp_path / "my", train=rows, dev=rows)
    with pytest.raises(DataError, match=r"train\.conll:2: label 'NOUN' is not among data\.labels"):
        TaggingData(path, labels=["DET"]).setup("fit")


def test_a_label_given_twice_is_refused() -> None:
    with pytest.raises(RecipeError) as error:
        TaggingData("my", labels=["PER", "LOC", "PER"])
    assert str(error.value) == "duplicate label 'PER' in data.labels: name each label once."


@pytest.mark.parametrize("length", [1, 0, -5])
def test_pieces_of_one_token_are_refused(length: int) -> None:
    with pytest.raises(RecipeError, match=f"data.max_length is {length}: it must be 2 or more."):
        TaggingData("my", max_length=length)


def dumb_rows(
    data: TaggingData, rows: Sequence[tuple[list[str], ...]], names: Sequence[str] = ()
) -> list[tuple[Any, ...]]:
    """What `rows_of` gives, token by token: (tokens, tags in bioes, *features)."""
    vocab, made = data.source_vocab, []
    assert vocab.characters is not None
    for tokens, tags, *features in rows:
        table = FormTable(vocab)
        batch = table.batch(table.index(tokens), [len(tokens)])
        made.append(
            (
                [vocab.id(token) for token in tokens],
                [tuple(vocab.characters.encode(token)) for token in tokens],
                batch.casing[batch.forms[0]].tolist(),
                [
                    [vocab.features[name].id(value) for value in values]
                    for name, values in zip(names, features, strict=True)
                ],
                [data.target_vocab.id(tag) for tag in tags],
                None,
            )
        )
    return sorted(made, key=repr)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lowercase": False},
        {"min_count": 35},
        {"unknown_rows": 5, "min_count": 35},
        {"batch_size": 1},
        {"max_length": 9},
    ],
    ids=str,
)
def test_batches_hold_what_encoding_token_by_token_gives(
    options: dict[str, Any], tmp_path: Path
) -> None:
    path = corpus(tmp_path / "my", train=sentences(70), dev=sentences(30, seed=9))
    data = TaggingData(path, hide_rare=0.0, **options)
    assert 4 < len(data.source_vocab.tokens) < 10 or "min_count" not in options
    assert train_rows(data) == dumb_rows(data, sentences(70, "bioes"))
    expected = dumb_rows(data, sentences(30, "bioes", seed=9))
    found = rows_of(list(data.val_dataloader()))
    assert [row[:4] for row in found] == [row[:4] for row in expected]
    assert all(row[4] is None for row in found)
    golds = [tags for _, tags in sentences(30, "bioes", seed=9)]
    assert sorted(row[5] for row in found) == sorted(golds)


def featured(count: int, seed: int = 0) -> list[tuple[list[str], list[str], list[str]]]:
    rng = random.Random(seed)
    return [
        (tokens, rng.choices(["NN", "VB"], k=len(tokens)), tags)
        for tokens, tags in sentences(count, seed=seed)
    ]


COLUMNS: dict[str, int | str] = {"tokens": 0, "pos": 1, "tags": 2}


def test_further_columns_become_features(tmp_path: Path) -> None:
    dev = [(["Ada", "runs"], ["XX", "VB"], ["B-PER", "O"])]
    path = corpus(tmp_path / "my", train=featured(40), dev=dev)
    data = TaggingData(path, columns=COLUMNS, hide_rare=0.0)
    assert set(data.source_vocab.features) == {"pos"}
    pos = data.source_vocab.features["pos"]
    assert (sorted(pos.tokens), pos.padding, pos.unknown) == (["NN", "VB"], True, 1)
    plain = sentences(40, "bioes")
    rows = [(t, g, p) for (t, g), (_, p, _) in zip(plain, featured(40), strict=True)]
    assert train_rows(data) == dumb_rows(data, rows, ["pos"])
    (batch,) = data.val_dataloader()
    assert batch.features[0].tolist() == [[pos.first_unknown, pos.id("VB")]]


def bundle_of(data: TaggingData, folder: Path) -> str:
    folder.mkdir()
    for side, vocab in (("source", data.source_vocab), ("target", data.target_vocab)):
        (folder / f"{side}_vocab.json").write_text(vocab.to_json(), encoding="utf-8")
    return str(folder)


def test_the_vocabularies_of_a_bundle_are_used_as_they_are(home: str, tmp_path: Path) -> None:
    bundle = bundle_of(TaggingData(home), tmp_path / "bundle")
    rows = [(["Ada", "unheard"], ["B-PER", "O"])]
    other = corpus(tmp_path / "other", train=rows, test=rows)
    data = TaggingData(other, vocabularies_from=bundle, hold_out=0.0)
    assert data.source_vocab == TaggingData(home).source_vocab
    assert data.target_vocab == TaggingData(home).target_vocab
    (batch,) = data.test_dataloader()
    assert batch.source.tolist() == [[data.source_vocab.id("ada"), 1]]
    assert batch.gold == [["S-PER", "O"]]


def test_a_test_split_alone_is_enough_for_a_bundle(home: str, tmp_path: Path) -> None:
    bundle = bundle_of(TaggingData(home), tmp_path / "bundle")
    data = TaggingData(test=f"{home}/test.conll", vocabularies_from=bundle)
    data.setup("test")
    assert len(gold_of(data, "test")) == 8


def test_a_feature_that_the_model_needs_is_asked_for(tmp_path: Path) -> None:
    path = corpus(tmp_path / "my", train=featured(20), dev=featured(5))
    bundle = bundle_of(TaggingData(path, columns=COLUMNS), tmp_path / "bundle")
    with pytest.raises(DataError) as error:
        TaggingData(path, columns={"tokens": 0, "tags": 2}, vocabularies_from=bundle).setup("test")
    assert str(error.value) == (
        "the model needs the feature column 'pos', which the train split lacks: say where it "
        "stands, as in --data.columns.pos 1."
    )


def test_tags_of_another_kind_than_the_model_learnt_are_refused(home: str, tmp_path: Path) -> None:
    bundle = bundle_of(TaggingData(home), tmp_path / "bundle")
    rows = [(["the", "note"], ["DET", "NOUN"])]
    other = corpus(tmp_path / "other", train=rows, test=rows)
    with pytest.raises(DataError) as error:
        TaggingData(other, vocabularies_from=bundle, hold_out=0.0).setup("test")
    assert str(error.value) == (
        f"the model tags in scheme bioes, and the tags of {other} are in scheme none: say in "
        "data.columns where the tags stand that the model learnt."
    )


def test_a_tag_that_the_model_does_not_know_cannot_be_trained(home: str, tmp_path: Path) -> None:
    bundle = bundle_of(TaggingData(home), tmp_path / "bundle")
    rows = [(["Ada", "wrote"], ["B-PER", "O"]), (["Dee"], ["B-PET"])]
    other = corpus(tmp_path / "other", train=rows, dev=rows)
    data = TaggingData(other, vocabularies_from=bundle)
    with pytest.raises(DataError) as error:
        data.train_dataloader()
    assert str(error.value) == (
        f"{other}/train.conll:4: the model does not know the tag 'B-PET'. Did you mean 'S-PER'?"
    )


def rare_corpus(folder: Path) -> str:
    rows = [
        (["Ada", "wrote", "the", "note"], ["B-PER", "O", "O", "O"]),
        (["ADA", "saw", "the", "42", "note"], ["B-PER", "O", "O", "O", "O"]),
        (["Bo", "read", "17", "the"], ["B-PER", "O", "O", "O"]),
    ]
    return corpus(folder, train=rows, dev=rows)


def shown(batches: Sequence[Batch], vocab: Vocabulary) -> set[str]:
    return {w for batch in batches for w in vocab.decode(batch.source[batch.mask].tolist())}


def test_words_met_once_are_hidden_in_training_and_no_others(tmp_path: Path) -> None:
    data = TaggingData(rare_corpus(tmp_path / "my"), hide_rare=1.0)
    vocab = data.source_vocab
    assert {"wrote", "saw", "bo", "read"} <= set(vocab.tokens)
    # Both numbers are looked up as 00, and Ada and ADA as ada, so these are met twice.
    assert shown(list(data.train_dataloader()), vocab) == {"<unk>", "ada", "the", "note", "00"}
    assert "<unk>" not in shown(list(data.val_dataloader()), vocab)
    never = TaggingData(rare_corpus(tmp_path / "my"), hide_rare=0.0)
    assert "<unk>" not in shown(list(never.train_dataloader()), never.source_vocab)


def test_a_word_with_a_vector_is_never_hidden(tmp_path: Path) -> None:
    (tmp_path / "vectors.txt").write_text("saw 1 2\nmoon 3 4\n", encoding="utf-8")
    data = TaggingData(
        rare_corpus(tmp_path / "my"), hide_rare=1.0, vectors=str(tmp_path / "vectors.txt")
    )
    seen = shown(list(data.train_dataloader()), data.source_vocab)
    assert seen == {"<unk>", "ada", "the", "note", "00", "saw"}


def test_what_is_hidden_is_the_same_every_time_a_batch_comes(home: str) -> None:
    def epochs(seed: int) -> list[list[list[Any]]]:
        data = TaggingData(home, hide_rare=0.5, seed=seed, batch_size=8, min_count=1)
        loader = data.train_dataloader()
        made = []
        for epoch in (0, 1, 0):
            loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
            made.append([batch.source.tolist() for batch in loader])
        return made

    first, second, again = epochs(1)
    assert first == again == epochs(1)[0]
    assert first != second
    assert first != epochs(2)[0]


def test_vectors_are_placed_and_their_coverage_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "vectors.txt"
    file.write_text("saw 1 2\nADA 5 6\nmoon 3 4\n", encoding="utf-8")
    data = TaggingData(rare_corpus(tmp_path / "my"), vectors=str(file))
    vocab = data.source_vocab
    assert vocab.vectors is not None
    assert vocab.vectors.shape == (len(vocab), 2)
    rows = vocab.encode(["Saw", "ada", "moon"])
    assert vocab.vectors[rows].tolist() == [[1, 2], [5, 6], [3, 4]]
    assert vocab.vectors.isfinite().all(1).sum() == 3
    said = (
        f"vectors: 3 of 10 word types (30.0%) and 23.1% of the training tokens have one of the 3 "
        f"vectors of size 2 in {file}."
    )
    assert data.notes == [said]
    assert capsys.readouterr().err == f"seqlab: {said}\n"


def test_rare_words_share_the_unknown_rows(tmp_path: Path) -> None:
    path = rare_corpus(tmp_path / "my")
    vocab = TaggingData(path, min_count=2).source_vocab
    assert set(vocab.tokens) == {"the", "ada", "note", "00"}
    assert {vocab.id(word) for word in ("saw", "read", "never-met")} == {1}
    hashed = TaggingData(path, min_count=2, unknown_rows=50).source_vocab
    rows = {hashed.id(word) for word in ("saw", "read", "Bo", "wrote")}
    assert len(rows) > 1
    assert rows <= set(range(1, 51))
    assert hashed.id("Saw") == hashed.id("saw")
    assert len(hashed) == len(vocab) + 49


def test_a_hidden_word_falls_into_an_unknown_row(tmp_path: Path) -> None:
    path = rare_corpus(tmp_path / "my")
    data = TaggingData(path, hide_rare=1.0, unknown_rows=3)
    sources = torch.cat([batch.source[batch.mask] for batch in data.train_dataloader()])
    assert sources.min() >= 1
    assert (sources <= 3).sum() == 4  # wrote, saw, Bo, read


def test_unknown_tags_are_partial_labels(tmp_path: Path) -> None:
    rows = [(["Ada", "Bo", "wrote"], ["B-PER", "?", "O"]), (["the"], ["?"])]
    data = TaggingData(corpus(tmp_path / "my", train=rows, dev=rows), tag_scheme="iob2")
    assert data.target_vocab.tokens == ("O", "B-PER", "I-PER")
    targets = [row[4] for row in train_rows(data)]
    assert sorted(targets) == [[-1], [1, -1, 0]]
    assert gold_of(data, "validation") == [["B-PER", "?", "O"], ["?"]]


def test_tags_without_prefixes_may_be_unknown_too(tmp_path: Path) -> None:
    rows = [(["the", "note", "."], ["DET", "?", "PUNCT"])]
    data = TaggingData(corpus(tmp_path / "my", train=rows, dev=rows))
    assert data.target_vocab.tokens == ("DET", "PUNCT")
    assert [row[4] for row in train_rows(data)] == [[0, -1, 1]]


def test_long_documents_are_cut_for_training_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = sentences(6, longest=200, seed=4) + sentences(10)
    path = corpus(tmp_path / "my", train=long, dev=long)
    data = TaggingData(path, max_length=20, hide_rare=0.0)
    lengths = [len(tokens) for tokens, _ in long]
    pieces = list(data.train_dataloader())
    assert sum(int(batch.lengths.sum()) for batch in pieces) == sum(lengths)
    assert max(int(batch.lengths.max()) for batch in pieces) <= 24
    many = sum(n > 20 for n in lengths)
    assert data.notes == [
        f"{many} training documents of more than 20 tokens were cut into pieces between spans; "
        "nothing was left out (data.max_length)."
    ]
    assert capsys.readouterr().err.count("seqlab:") == 1
    tags = [data.target_vocab.decode(row[4]) for row in rows_of(pieces)]
    spans = SpanF1(["LOC", "PER"], scheme="bioes")
    spans.update(tags, tags)
    whole = SpanF1(["LOC", "PER"], scheme="bioes")
    golds = [gold for batch in data.val_dataloader() for gold in batch.gold or []]
    whole.update(golds, golds)
    assert torch.equal(spans.counts, whole.counts)  # no span was torn or lost
    assert sorted(map(len, golds)) == sorted(lengths)


class Oracle(Tagger):
    """Knows the gold tags, but writes those that it never learnt as O."""

    def score(self, batch: Batch, stage: Any) -> None:
        known = self.target_vocab
        told = [[t if t in known else "O" for t in tags] for tags in batch.gold or []]
        self.decode = lambda emissions, mask: told  # type: ignore[method-assign]
        super().score(batch, stage)


def scores_of(data: TaggingData, split: str = "val") -> Mapping[str, Any]:
    model = Oracle(data.source_vocab, data.target_vocab, hidden_size=2, embedding_size=2)
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with quiet():
        trainer.validate(model, datamodule=data, verbose=False)
    return model.last_scores


def test_a_label_that_training_lacks_counts_as_missed(tmp_path: Path) -> None:
    train = [(["Ada", "wrote"], ["B-PER", "O"])]
    dev = [*train, *train, (["London", "wrote"], ["B-LOC", "O"])]
    found = scores_of(TaggingData(corpus(tmp_path / "my", train=train, dev=dev)))
    assert found["val/recall"] == pytest.approx(2 / 3)
    assert found["val/precision"] == 1.0
    assert found["val/accuracy"] == pytest.approx(5 / 6)


def test_a_tag_that_training_lacks_counts_as_wrong(tmp_path: Path) -> None:
    train = [(["the", "O"], ["DET", "O"])]
    dev = [*train, (["note", "the"], ["NOUN", "DET"])]
    found = scores_of(TaggingData(corpus(tmp_path / "my", train=train, dev=dev)))
    assert found["val/accuracy"] == pytest.approx(3 / 4)


def test_documents_are_scored_whole_and_every_token_counts(tmp_path: Path) -> None:
    long = sentences(4, longest=150, seed=4)
    data = TaggingData(corpus(tmp_path / "my", train=long, dev=long), max_length=10)
    found = scores_of(data)
    total = sum(tag[0] == "B" for _, tags in long for tag in tags)
    assert sum(row["gold"] for row in found["val/per_type"].values()) == total
    assert found["val/span_f1"] == 1.0


def test_batches_keep_to_their_budgets(home: str) -> None:
    data = TaggingData(home, batch_size=3, tokens_per_batch=12, eval_tokens_per_batch=40)
    for batch in data.train_dataloader():
        assert len(batch) <= 3
        assert len(batch) == 1 or batch.source.numel() <= 12
    sizes = [batch.source.shape for batch in data.val_dataloader()]
    assert all(n == 1 or n * time <= 40 for n, time in sizes)
    assert max(n for n, _ in sizes) > 3


def test_other_formats_give_the_same_batches(home: str, tmp_path: Path) -> None:
    other = tmp_path / "json"
    other.mkdir()
    for name, rows in (("train", sentences(40)), ("dev", sentences(9, seed=1))):
        lines = [json.dumps({"tokens": tokens, "tags": tags}) for tokens, tags in rows]
        (other / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert train_rows(TaggingData(str(other))) == train_rows(TaggingData(home))


def test_the_sample_is_there() -> None:
    data = TaggingData("sample:ner")
    assert set(data.splits) == {"train", "validation", "test"}
    assert data.notes == []
    labels = {tag[2:] for tag in data.target_vocab.tokens if tag != "O"}
    assert labels == {"PER", "LOC", "ORG", "MISC"}


def test_several_files_are_trained_on_as_one(tmp_path: Path) -> None:
    rows = sentences(60)
    corpus(tmp_path / "my", train=rows[:20], more=rows[20:45], rest=rows[45:], dev=rows[:3])
    whole = corpus(tmp_path / "one", train=rows, dev=rows[:3])
    joined = TaggingData(
        str(tmp_path / "my"), train=["train.conll", "more.conll", str(tmp_path / "my/rest.conll")]
    )
    assert gold_of(joined, "train") == gold_of(TaggingData(whole), "train")
    assert joined.source_vocab.tokens == TaggingData(whole).source_vocab.tokens
    assert joined.source_vocab.features == {}
    one, other = (data.dataset("train", scored=False) for data in (joined, TaggingData(whole)))
    assert one[np.arange(60)].target.tolist() == other[np.arange(60)].target.tolist()  # type: ignore[index, union-attr]
    assert joined.digests["train"] not in TaggingData(whole).digests.values()
    assert joined.digests["validation"] == TaggingData(whole).digests["validation"]


def test_errors_name_the_file_that_a_line_is_in(tmp_path: Path) -> None:
    good, bad = sentences(30), [(["Ada", "Bo"], ["O", "B-NEW"])]
    path = corpus(tmp_path / "my", train=good, more=bad, dev=good[:2])
    for scheme in ("auto", "iob2"):
        data = TaggingData(
            path, train=["train.conll", "more.conll"], labels=["PER", "LOC"], scheme=scheme
        )  # type: ignore[arg-type]
        with pytest.raises(DataError, match=rf"^{path}/more.conll:2: label 'NEW' is not among"):
            data.setup("fit")


def test_gold_that_is_outside_the_scheme_is_named_with_its_file(tmp_path: Path) -> None:
    good, bad = sentences(30), [(["Ada", "Bo"], ["O", "PER"])]
    path = corpus(tmp_path / "my", train=good, dev=good[:2], test=good, more=bad)
    data = TaggingData(path, test=["test.conll", "more.conll"], scheme="iob2")
    with pytest.raises(DataError, match=rf"^{path}/more.conll:1: "):
        gold_of(data, "test")


def test_held_out_rows_of_several_files_know_their_lines(tmp_path: Path) -> None:
    path = corpus(tmp_path / "my", train=sentences(40), more=sentences(40, seed=1))
    data = TaggingData(train=[f"{path}/train.conll", f"{path}/more.conll"])
    data.setup("fit")
    for split, rows in data.splits.items():
        for row in range(len(rows)):
            text = Path(data._file_of(split, row)).read_text(encoding="utf-8").splitlines()
            assert [text[n - 1].split("\t")[0] for n in rows[row]["lines"]] == rows[row]["tokens"]


def test_corpora_with_other_names_for_labels_are_joined(tmp_path: Path) -> None:
    path = corpus(
        tmp_path / "my",
        train=[(["Ada", "in", "London"], ["B-PER", "O", "B-LOC"])],
        other=[(["Bo", "Dee", "wrote"], ["B-person", "I-person", "B-work"])],
        dev=[(["Bo"], ["B-person"])],
    )
    names = {"person": "PER", "work": None}
    data = TaggingData(path, train=["train.conll", "other.conll"], rename=names)
    data.setup("fit")
    wanted = [["S-PER", "O", "S-LOC"], ["B-PER", "E-PER", "O"]]
    assert gold_of(data, "train") == wanted
    assert gold_of(data, "validation") == [["S-PER"]]
    target = data.dataset("train", scored=False)[np.arange(2)].target
    assert target is not None
    assert [data.target_vocab.decode(row.tolist()) for row in target] == wanted
    assert {t[2:] for t in data.target_vocab.tokens} == {"", "PER", "LOC"}


def test_names_are_checked_where_a_model_is_made_and_not_where_it_is_scored(
    tmp_path: Path,
) -> None:
    path = corpus(tmp_path / "my", train=[(["Ada"], ["B-PER"])], dev=[(["Ada"], ["B-PER"])])
    with pytest.raises(RecipeError, match=r"no tag of .* has the label 'person'"):
        TaggingData(path, rename={"person": "PER"}).setup("fit")
    first = TaggingData(path)
    first.setup("fit")
    from seqlab.bundle import save_bundle

    save_bundle(Tagger(first.source_vocab, first.target_vocab), tmp_path / "bundle")
    again = TaggingData(path, rename={"person": "PER"}, vocabularies_from=str(tmp_path / "bundle"))
    again.setup("test")
    assert gold_of(again, "validation") == [["S-PER"]]


def test_a_file_that_is_named_twice_is_refused() -> None:
    with pytest.raises(RecipeError) as error:
        TaggingData(train=["a.conll", "b.conll", "a.conll"])
    assert str(error.value) == "data.train names a.conll twice: name each file once."


# On disk


@pytest.mark.parametrize("scheme", ["auto", "none"])
def test_numbers_of_a_split_are_mapped_from_disk(home: str, scheme: Any) -> None:
    encoded = TaggingData(home, scheme=scheme).dataset("train", scored=False).encoded
    assert isinstance(encoded.forms, MappedIds)
    assert isinstance(encoded.target, MappedIds)
    assert isinstance(encoded.offsets.base, np.memmap)


def test_a_second_module_reads_no_text(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def batches() -> list[Batch]:
        return list(TaggingData(home, batch_size=4).train_dataloader())

    first = batches()
    for module, name in ((coded, "flat_ids"), (coded, "token_counts"), (sources, "read_rows")):
        monkeypatch.setattr(module, name, None)
    for name in ("_of", "_written"):
        monkeypatch.setattr(TagIds, name, None)
    monkeypatch.setattr(TaggingData, "_sentences", None)
    for one, other in zip(first, batches(), strict=True):
        assert one.target is not None
        assert other.target is not None
        assert torch.equal(one.source, other.source)
        assert torch.equal(one.target, other.target)
    with pytest.raises(TypeError):
        TaggingData(home, tag_scheme="iob2").dataset("train", scored=False)
