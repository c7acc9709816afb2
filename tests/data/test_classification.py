from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqlab.batch import Batch, FormTable
from seqlab.data import coded
from seqlab.data.base import Encoded
from seqlab.data.classification import ClassificationData, LabelledDataset, TextLabels
from seqlab.data.mapping import MappedIds
from seqlab.errors import DataError, RecipeError
from seqlab.vocabulary import Vocabulary

Text = tuple[str, Any]  # a text and its label or labels
WORDS = ["good", "bad", "film", "the", "plot", "1999", "Oh"]
LABELS = ["pos", "neg", "meh"]


def texts(count: int, seed: int = 0, longest: int = 9) -> list[Text]:
    """Random texts with one label."""
    rng = random.Random(seed)
    return [
        (" ".join(rng.choices(WORDS, k=rng.randint(1, longest))), rng.choice(LABELS))
        for _ in range(count)
    ]


def several(count: int, seed: int = 0, longest: int = 9) -> list[Text]:
    """The same texts with any number of labels."""
    rng = random.Random(seed)
    found = texts(count, seed, longest)
    return [(text, rng.sample(LABELS, rng.randint(0, 3))) for text, _ in found]


def jsonl(rows: Sequence[Text]) -> str:
    return "".join(
        json.dumps({"text": text, "labels" if isinstance(label, list) else "label": label}) + "\n"
        for text, label in rows
    )


def corpus(folder: Path, **splits: Sequence[Text]) -> str:
    folder.mkdir(exist_ok=True)
    for name, rows in splits.items():
        (folder / f"{name}.jsonl").write_text(jsonl(rows), encoding="utf-8")
    return str(folder)


def spelt(batch: Batch, row: int, vocab: Vocabulary) -> str:
    """What a row of a batch says; digits are patterns."""
    return " ".join(vocab.decode(batch.source[row, : batch.lengths[row]].tolist()))


def trained(data: ClassificationData) -> list[tuple[str, Any]]:
    """Every training text as the model sees it, with its target."""
    found = []
    for batch in data.train_dataloader():
        assert batch.target is not None
        assert batch.gold is None
        for row, target in enumerate(batch.target.tolist()):
            found.append((spelt(batch, row, data.source_vocab), target))
    return sorted(found)


def scored(data: ClassificationData, split: str = "validation") -> list[list[str]]:
    dataset = data.dataset(split, scored=True)
    batch = dataset[np.arange(len(dataset.encoded.lengths))]
    assert batch.target is None
    assert batch.gold is not None
    return batch.gold


def as_seen(text: str) -> str:
    return text.lower().replace("1999", "0000")


def failure(data: ClassificationData) -> str:
    with pytest.raises(DataError) as error:
        data.setup("fit")
    return str(error.value)


# Labels


def test_one_label_a_text_is_learnt_as_its_number(tmp_path: Path) -> None:
    rows = texts(70)
    data = ClassificationData(corpus(tmp_path / "my", train=rows, dev=texts(9, 1)), hide_rare=0.0)
    counts = Counter(label for _, label in rows)
    assert data.target_vocab.tokens == tuple(sorted(counts, key=lambda x: (-counts[x], x)))
    assert (data.target_vocab.scheme, data.target_vocab.written) == ("label", "label")
    ids = {label: i for i, label in enumerate(data.target_vocab.tokens)}
    assert trained(data) == sorted((as_seen(text), ids[label]) for text, label in rows)
    assert scored(data) == [[label] for _, label in texts(9, 1)]
    (batch, *_) = data.train_dataloader()
    assert batch.target is not None
    assert (batch.target.shape, batch.target.dtype) == ((len(batch),), torch.int64)


def test_several_labels_a_text_are_learnt_as_a_row_of_zeros_and_ones(tmp_path: Path) -> None:
    rows = several(70)
    assert {len(labels) for _, labels in rows} == {0, 1, 2, 3}
    path = corpus(tmp_path / "my", train=rows, dev=several(9, 1))
    data = ClassificationData(path, hide_rare=0.0)
    assert (data.target_vocab.scheme, data.target_vocab.written) == ("labels", "labels")
    known = data.target_vocab.tokens
    expected = [
        (as_seen(text), [float(label in labels) for label in known]) for text, labels in rows
    ]
    assert trained(data) == sorted(expected)
    assert scored(data) == [labels for _, labels in several(9, 1)]
    (batch, *_) = data.train_dataloader()
    assert batch.target is not None
    assert (batch.target.shape, batch.target.dtype) == ((len(batch), 3), torch.float32)


@pytest.mark.parametrize("make", [texts, several])
def test_training_texts_are_counted_for_every_label_and_nothing_is_saved(
    make: Any, tmp_path: Path
) -> None:
    rows = make(40)
    data = ClassificationData(corpus(tmp_path / "my", train=rows, dev=make(5, 1)))
    flat = [x for _, labels in rows for x in (labels if isinstance(labels, list) else [labels])]
    assert data.target_vocab.counts == Counter(flat)
    again = Vocabulary.from_json(data.target_vocab.to_json())
    assert again == data.target_vocab
    assert again.counts is None
    assert data.source_vocab.counts is None


@pytest.mark.parametrize(
    ("multi_label", "separator", "train", "scheme"),
    [
        ("auto", None, texts(9), "label"),
        ("auto", None, several(9), "labels"),
        ("auto", None, [("a", ["x"]), ("b", ["y"])], "labels"),
        (False, None, [("a", ["x"]), ("b", ["y"])], "label"),
        (True, None, texts(9), "labels"),
        ("auto", "|", [("a", "x|y"), ("b", "")], "labels"),
        (True, "|", [("a", "x|y"), ("b", "x")], "labels"),
    ],
    ids=str,
)
def test_the_files_tell_whether_texts_have_several_labels_unless_the_recipe_does(
    multi_label: Any, separator: str | None, train: list[Text], scheme: str, tmp_path: Path
) -> None:
    path = corpus(tmp_path / "my", train=train, dev=train)
    data = ClassificationData(path, multi_label=multi_label, label_separator=separator)
    assert data.target_vocab.scheme == scheme
    target = next(iter(data.train_dataloader())).target
    assert target is not None
    assert target.ndim == (1 if scheme == "label" else 2)


def test_splits_of_two_kinds_are_refused_unless_the_recipe_says_which(tmp_path: Path) -> None:
    path = corpus(tmp_path / "my", train=[("a", "x"), ("b", "y")], dev=[("a", ["x"])])
    assert failure(ClassificationData(path)) == (
        f"{path}/train.jsonl:1: one label a text here, but lists of labels in the validation "
        "split: write them alike, or set data.multi_label to true or false."
    )
    assert ClassificationData(path, multi_label=True).target_vocab.scheme == "labels"
    assert ClassificationData(path, multi_label=False).target_vocab.scheme == "label"


def test_given_labels_are_the_labels_in_their_order(tmp_path: Path) -> None:
    path = corpus(tmp_path / "my", train=[("a", "x"), ("b", "y"), ("c", "y")], dev=[("a", "x")])
    data = ClassificationData(path, labels=["x", "z", "y"], hide_rare=0.0)
    assert data.target_vocab.tokens == ("x", "z", "y")
    assert data.target_vocab.counts == {"x": 1, "z": 0, "y": 2}
    assert trained(data) == [("a", 0), ("b", 2), ("c", 2)]


@pytest.mark.parametrize("part", ["train", "dev"])
def test_a_label_that_is_not_given_is_named_by_file_and_line(part: str, tmp_path: Path) -> None:
    splits: dict[str, list[Text]] = {
        name: [("a", "pos"), ("b", "neg")] for name in ("train", "dev")
    }
    splits[part] += [("c", "pos"), ("d", "poss"), ("e", "poss")]
    path = corpus(tmp_path / "my", **splits)
    assert failure(ClassificationData(path, labels=["pos", "neg"])) == (
        f"{path}/{part}.jsonl:4: label 'poss' is not among data.labels (pos, neg). Did you mean "
        "'pos'?"
    )


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (
            [("a", "x"), ("b", "x")],
            "this and all other training texts have the label 'x', so there is nothing to tell "
            "apart:",
        ),
        (
            [("a", ["x"]), ("b", ["x"])],
            "this and all other training texts have the label 'x', so there is nothing to tell "
            "apart:",
        ),
        ([("a", []), ("b", [])], "neither this nor any other training text has a label:"),
    ],
    ids=str,
)
def test_a_training_split_with_nothing_to_tell_apart_is_refused(
    train: list[Text], said: str, tmp_path: Path
) -> None:
    path = corpus(tmp_path / "my", train=train, dev=train)
    assert failure(ClassificationData(path)) == (
        f"{path}/train.jsonl:1: {said} add texts with other labels, or say with "
        "data.columns.label where they stand."
    )


def test_one_label_of_several_that_only_some_texts_have_can_be_learnt(tmp_path: Path) -> None:
    rows = [("a", ["x"]), ("a", [])]
    data = ClassificationData(corpus(tmp_path / "my", train=rows, dev=rows))
    assert trained(data) == [("a", [0.0]), ("a", [1.0])]


def test_texts_may_come_again(tmp_path: Path) -> None:
    rows = [("a", "x"), ("a", "x"), ("a", "y")]
    data = ClassificationData(corpus(tmp_path / "my", train=rows, dev=rows))
    assert trained(data) == [("a", 0), ("a", 0), ("a", 1)]


# Labels that cannot be right


def test_a_scored_label_that_training_lacks_is_kept_and_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dev = [("a", "x"), ("b", "odd"), ("c", "odd"), ("d", "rare")]
    path = corpus(tmp_path / "my", train=[("a", "x"), ("b", "y")], dev=dev)
    data = ClassificationData(path)
    for _ in range(2):
        assert scored(data) == [["x"], ["odd"], ["odd"], ["rare"]]
        list(data.val_dataloader())
    said = (
        "3 texts of the validation split have a label that the training split lacks ('odd', "
        f"'rare'): it cannot be predicted and counts as missed (the first at {path}/dev.jsonl:2)."
    )
    assert data.notes == [said]
    assert capsys.readouterr().err == f"seqlab: {said}\n"


def test_of_many_unknown_labels_a_few_are_named_and_all_counted(tmp_path: Path) -> None:
    dev = [("a", []), ("b", ["x", *(f"l{i}" for i in range(7))])]
    path = corpus(tmp_path / "my", train=[("a", ["x"]), ("b", ["y"])], dev=dev)
    data = ClassificationData(path)
    assert scored(data) == [labels for _, labels in dev]
    assert data.notes == [
        "1 text of the validation split has a label that the training split lacks ('l0', 'l1', "
        "'l2', 'l3', 'l4' and 2 more): it cannot be predicted and counts as missed (the first at "
        f"{path}/dev.jsonl:2)."
    ]


def bundle_of(data: ClassificationData, folder: Path) -> str:
    folder.mkdir()
    for side, vocab in (("source", data.source_vocab), ("target", data.target_vocab)):
        (folder / f"{side}_vocab.json").write_text(vocab.to_json(), encoding="utf-8")
    return str(folder)


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    home = corpus(tmp_path / "home", train=texts(40), dev=texts(9, 1))
    return bundle_of(ClassificationData(home), tmp_path / "bundle")


def test_the_vocabularies_of_a_bundle_are_used_as_they_are(bundle: str, tmp_path: Path) -> None:
    other = corpus(tmp_path / "other", test=[("good unheard", "neg"), ("bad", "new")])
    data = ClassificationData(other, vocabularies_from=bundle)
    data.setup("test")
    assert data.target_vocab == ClassificationData(str(tmp_path / "home")).target_vocab
    (batch,) = data.test_dataloader()
    assert batch.source[0].tolist() == [data.source_vocab.id("good"), 1]
    assert batch.gold == [["neg"], ["new"]]
    assert data.target_vocab.counts is None
    assert data.notes == [
        "1 text of the test split has a label that the model does not know ('new'): it cannot be "
        f"predicted and counts as missed (the first at {other}/test.jsonl:2)."
    ]


def test_training_on_with_a_bundle_counts_the_labels_that_it_knows(
    bundle: str, tmp_path: Path
) -> None:
    rows = [("good", "pos"), ("bad", "neg"), ("bad", "neg")]
    other = corpus(tmp_path / "other", train=rows, dev=rows)
    data = ClassificationData(other, vocabularies_from=bundle, hide_rare=0.0)
    assert data.target_vocab.counts == {"neg": 2, "pos": 1, "meh": 0}
    target = data.target_vocab
    assert trained(data) == [
        ("bad", target.id("neg")),
        ("bad", target.id("neg")),
        ("good", target.id("pos")),
    ]


def test_a_label_that_the_model_does_not_know_cannot_be_trained(
    bundle: str, tmp_path: Path
) -> None:
    rows = [("a", "pos"), ("b", "neg"), ("c", "mehh")]
    other = corpus(tmp_path / "other", train=rows, dev=rows)
    data = ClassificationData(other, vocabularies_from=bundle)
    with pytest.raises(DataError) as error:
        data.train_dataloader()
    assert str(error.value) == (
        f"{other}/train.jsonl:3: the model does not know the label 'mehh'. Did you mean 'meh'?"
    )


def test_several_labels_are_refused_by_a_model_of_one(bundle: str, tmp_path: Path) -> None:
    rows = [("a", ["pos"]), ("b", ["pos", "neg"])]
    other = corpus(tmp_path / "other", test=rows)
    assert failure_of_test(ClassificationData(other, vocabularies_from=bundle)) == (
        f"{other}/test.jsonl:2: 2 labels, where the model in {bundle} gives each text one: give it "
        "texts with one label."
    )
    one = corpus(tmp_path / "one", test=rows[:1])
    assert scored(ClassificationData(one, vocabularies_from=bundle), "test") == [["pos"]]


def failure_of_test(data: ClassificationData) -> str:
    with pytest.raises(DataError) as error:
        data.setup("test")
    return str(error.value)


def test_one_label_a_text_is_fine_for_a_model_of_several(tmp_path: Path) -> None:
    home = corpus(tmp_path / "home", train=several(40), dev=several(9, 1))
    bundle = bundle_of(ClassificationData(home), tmp_path / "bundle")
    rows = [("a", "pos"), ("b", "neg")]
    other = corpus(tmp_path / "other", train=rows, dev=rows)
    data = ClassificationData(other, vocabularies_from=bundle, hide_rare=0.0)
    tokens = data.target_vocab.tokens
    assert sorted(target for _, target in trained(data)) == sorted(
        [float(label == token) for token in tokens] for _, label in rows
    )


def test_a_tagger_is_told_to_take_tagged_sentences(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    for side, scheme in (("source", "none"), ("target", "bioes")):
        vocab = Vocabulary(["O"], scheme=scheme)
        (folder / f"{side}_vocab.json").write_text(vocab.to_json(), encoding="utf-8")
    path = corpus(tmp_path / "my", test=texts(3))
    assert failure_of_test(ClassificationData(path, vocabularies_from=str(folder))) == (
        f"the model in {folder} tags words, it does not label texts: give it a corpus of tagged "
        "sentences as seqlab.TaggingData."
    )


# Long texts


@pytest.mark.parametrize("make", [texts, several])
def test_long_training_texts_are_cut_and_their_pieces_have_all_labels(
    make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = make(6, 3, longest=90) + make(20)
    path = corpus(tmp_path / "my", train=rows, dev=rows)
    data = ClassificationData(path, max_length=8, hide_rare=0.0)
    whole = {
        as_seen(text): target for text, target in trained(ClassificationData(path, hide_rare=0))
    }
    expected = []
    for text, _ in rows:
        words = as_seen(text).split()
        pieces = np.array_split(words, -(-len(words) // 8))
        sizes = sorted(len(piece) for piece in pieces)
        expected += [(size, whole[as_seen(text)]) for size in sizes]
    found = trained(data)
    assert sorted((len(text.split()), target) for text, target in found) == sorted(expected)
    long = sum(len(text.split()) > 8 for text, _ in rows)
    assert data.notes == [
        f"{long} training texts of more than 8 tokens were cut into even pieces, each with the "
        "labels of its text; nothing was left out (data.max_length)."
    ]
    lengths = [int(n) for batch in data.val_dataloader() for n in batch.lengths]
    assert sorted(lengths) == sorted(len(text.split()) for text, _ in rows)
    assert len(scored(data)) == len(rows)
    assert capsys.readouterr().err.count("pieces") == 1


@pytest.mark.slow
def test_a_text_of_200_000_tokens_is_cut_for_training_and_scored_whole(tmp_path: Path) -> None:
    rows = [("good bad " * 100_000, "x"), ("bad", "y")]
    data = ClassificationData(corpus(tmp_path / "my", train=rows, dev=rows))
    batches = list(data.train_dataloader())
    assert sum(int(batch.lengths.sum()) for batch in batches) == 200_001
    assert max(batch.source.numel() for batch in batches) <= 4096
    targets = [int(x) for batch in batches if batch.target is not None for x in batch.target]
    assert Counter(targets) == {0: 391, 1: 1}
    assert [tuple(batch.source.shape) for batch in data.val_dataloader()] == [(1, 200_000), (1, 1)]


def test_pieces_of_a_text_bring_its_labels() -> None:
    table = FormTable(Vocabulary(["a"], padding=True, unknown=1))
    forms = table.index(["a"] * 6).astype(np.int32)
    encoded = Encoded(forms, np.array([0, 2, 4, 6]), rows=np.array([0, 0, 1]))
    labels = TextLabels(np.array([1, 2, 0], np.int32), np.array([0, 2, 3]))
    both = LabelledDataset(encoded, table, labels, 3)[np.array([2, 1, 0])].target
    assert both is not None
    assert both.tolist() == [[1, 0, 0], [0, 1, 1], [0, 1, 1]]
    single = TextLabels(np.array([4, 5], np.int32), np.array([0, 1, 2]))
    one = LabelledDataset(encoded, table, single, None)[np.array([2, 1, 0])].target
    assert one is not None
    assert one.tolist() == [5, 4, 4]


def test_texts_are_numbered_by_their_labels() -> None:
    labels = TextLabels(np.array([1, -1, -1, -1], np.int32), np.array([0, 1, 1, 3, 3, 4]))
    assert labels.texts(labels.ids < 0).tolist() == [2, 4]
    assert labels.texts(labels.ids == 1).tolist() == [0]
    assert labels.texts(labels.ids == 7).tolist() == []


# Files


def fill(folder: Path, content: dict[str, str]) -> str:
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return str(folder)


def test_all_formats_give_the_same_batches(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    splits = {"train": texts(30), "dev": texts(9, 1)}
    expected = ClassificationData(corpus(tmp_path / "json", **splits), seed=3)
    fill(
        tmp_path,
        {
            f"{form}/{name}.{form}": f"text{mark}label\n"
            + "".join(f"{text}{mark}{label}\n" for text, label in rows)
            for name, rows in splits.items()
            for form, mark in (("tsv", "\t"), ("csv", ","))
        },
    )
    (tmp_path / "parquet").mkdir()
    for name, rows in splits.items():
        table = pa.table({"sentence": [text for text, _ in rows], "label": [x for _, x in rows]})
        pq.write_table(table, tmp_path / "parquet" / f"{name}-00000-of-00001.parquet")
    for form in ("tsv", "csv", "parquet"):
        data = ClassificationData(str(tmp_path / form), seed=3)
        assert data.target_vocab == expected.target_vocab
        assert data.source_vocab == expected.source_vocab
        assert trained(data) == trained(expected)
        assert scored(data) == scored(expected)


def test_folders_of_texts_are_read_with_and_without_splits(tmp_path: Path) -> None:
    files = {f"{label}/{i}.txt": f"word{i}" for i in range(10) for label in ("pos", "neg")}
    plain = fill(tmp_path / "plain", files)
    data = ClassificationData(plain)
    assert {part: len(rows) for part, rows in data.splits.items()} == {
        "train": 16,
        "validation": 2,
        "test": 2,
    }
    assert data.notes == [
        f"{plain} has no validation or test split: 2 of its 20 training texts, drawn once and for "
        "all, stand in for each."
    ]
    split = {f"{part}/{name}": text for name, text in files.items() for part in ("train", "test")}
    data = ClassificationData(fill(tmp_path / "split", split), hold_out=0.0)
    assert {part: len(rows) for part, rows in data.splits.items()} == {"train": 20, "test": 20}
    assert scored(data, "test") == [["neg"]] * 10 + [["pos"]] * 10


def test_errors_on_folders_name_the_text(tmp_path: Path) -> None:
    files = {"train/pos/a.txt": "", "train/pos/b.txt": "good", "train/odd/a.txt": "what"}
    path = fill(tmp_path / "my", files)
    data = ClassificationData(path, labels=["pos", "neg"], hold_out=0.0)
    assert failure(data) == (
        f"{path}/train/odd/a.txt: label 'odd' is not among data.labels (pos, neg)."
    )
    data = ClassificationData(train=f"{path}/train", labels=["odd", "neg"], hold_out=0.0)
    assert failure(data).startswith(f"{path}/train/pos/b.txt: label 'pos' is not among")


def test_lines_of_what_was_held_out_are_lines_of_its_file(tmp_path: Path) -> None:
    rows = [(f"word{i}", f"label{i % 2}") for i in range(19)] + [("last", "odd")]
    file = tmp_path / "all.jsonl"
    file.write_text(jsonl(rows), encoding="utf-8")
    data = ClassificationData(str(file), labels=["label0", "label1"])
    assert failure(data).startswith(f"{file}:20: label 'odd' is not among data.labels")


def test_a_second_reading_comes_from_the_cache_and_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = corpus(tmp_path / "my", train=[*texts(9), (" ", "pos")], dev=texts(9, 1))
    first = ClassificationData(path)
    first.setup("fit")
    assert first.notes == ["train.jsonl: 1 line without any word was skipped (line 10)."]
    monkeypatch.setattr("seqlab.data.labelled.words_of", None)
    again = ClassificationData(path)
    assert trained(again) == trained(first)
    assert again.notes == first.notes
    with pytest.raises(TypeError):
        ClassificationData(path, multi_label=True).setup("fit")


def test_long_readings_say_how_far_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("seqlab.data.cache._PATIENCE", 0.0)
    ClassificationData(corpus(tmp_path / "my", train=texts(1200, 5), dev=texts(9))).setup("fit")
    assert capfd.readouterr().err == "reading train.jsonl: 1,000 texts so far\n"


# The hub


def hub_data(**splits: list[int]) -> Any:
    import datasets

    features = datasets.Features(
        {
            "sentence": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["neg", "pos"]),
            "idx": datasets.Value("int32"),
        }
    )
    return datasets.DatasetDict(
        {
            name: datasets.Dataset.from_dict(
                {
                    "sentence": [f"word{i}" for i in range(len(labels))],
                    "label": labels,
                    "idx": list(range(len(labels))),
                },
                features=features,
            )
            for name, labels in splits.items()
        }
    )


def test_a_hub_data_set_gives_the_names_of_its_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    found = hub_data(train=[1, 0, 1], validation=[0, 1], unsupervised=[-1, -1], test=[-1, -1])
    asked = []

    def load(name: str, revision: str, cache_dir: object) -> Any:
        asked.append((name, revision))
        return found

    monkeypatch.setattr(datasets, "load_dataset", load)
    data = ClassificationData("org/sst@v1", hold_out=0.0)
    assert list(data.splits) == ["train", "validation"]
    assert asked == [("org/sst", "v1")]
    assert data.target_vocab.counts == {"pos": 2, "neg": 1}
    assert scored(data) == [["neg"], ["pos"]]
    assert data.notes == [
        "org/sst@v1: the split unsupervised is not used.",
        "org/sst@v1 test: none of its texts has a label (all are -1). The split is not used.",
    ]


def test_a_folder_laid_out_for_the_hub_is_read_so(tmp_path: Path) -> None:
    found = hub_data(train=[1, 0, 1, 0], test=[0])
    for shard in range(2):
        part = found["train"].shard(2, shard, contiguous=True)
        part.to_parquet(str(tmp_path / f"train-{shard:05}-of-00002.parquet"))
    found["test"].to_parquet(str(tmp_path / "test-00000-of-00001.parquet"))
    data = ClassificationData(str(tmp_path), hold_out=0.25)
    assert {part: len(rows) for part, rows in data.splits.items()} == {
        "train": 3,
        "validation": 1,
        "test": 1,
    }
    assert scored(data, "test") == [["neg"]]
    bad = ClassificationData(str(tmp_path), labels=["pos"], hold_out=0.25)
    assert failure(bad).startswith(f"{tmp_path} (train):2: label 'neg' is not among data.labels")


# Options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"multi_label": "yes"}, "data.multi_label is 'yes': it must be auto, true or false."),
        (
            {"label_separator": ""},
            "data.label_separator is empty: give what stands between two labels.",
        ),
        (
            {"label_separator": ",", "multi_label": False},
            "data.label_separator parts several labels of a text, and data.multi_label is false: "
            "leave one of the two out.",
        ),
        (
            {"columns": {"lable": "x"}},
            "unknown key 'lable' in data.columns: labelled texts have the columns text and label. "
            "Did you mean 'label'?",
        ),
        ({"labels": ["x", "x"]}, "duplicate label 'x' in data.labels: name each label once."),
    ],
    ids=str,
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as error:
        ClassificationData("my", **options)
    assert str(error.value) == said


def test_a_misspelt_option_is_refused() -> None:
    with pytest.raises(TypeError, match="label_seperator"):
        ClassificationData("my", label_seperator="|")


# Corpora


def test_the_sample_is_there() -> None:
    data = ClassificationData("sample:sentiment")
    assert set(data.splits) == {"train", "validation", "test"}
    assert data.notes == []
    assert data.target_vocab.scheme == "label"
    assert len(data.target_vocab) >= 2


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "counts", "labels"),
    [("rotten-tomatoes", (8530, 1066, 1066), 2), ("banking77", (9003, 1000, 3080), 77)],
)
def test_real_corpora_load_with_their_counts(
    name: str, counts: tuple[int, ...], labels: int, corpora: Path
) -> None:
    data = ClassificationData(str(corpora / name))
    data.setup("fit")
    assert tuple(len(data.splits[part]) for part in ("train", "validation", "test")) == counts
    assert len(data.target_vocab) == labels
    assert data.target_vocab.scheme == "label"
    assert data.target_vocab.counts is not None
    assert sum(data.target_vocab.counts.values()) == counts[0]
    assert sum(len(batch) for batch in data.train_dataloader()) == counts[0]
    known = {label for gold in scored(data, "test") for label in gold}
    assert known == set(data.target_vocab.tokens)
    assert data.notes == []


def test_several_files_of_texts_are_joined_and_errors_name_their_file(tmp_path: Path) -> None:
    path = corpus(tmp_path / "my", train=texts(20), more=texts(20, seed=1), dev=texts(5, seed=2))
    data = ClassificationData(path, train=["train.jsonl", "more.jsonl"])
    whole = ClassificationData(corpus(tmp_path / "one", train=texts(20) + texts(20, seed=1)))
    assert data.dataset("train", scored=True).encoded.lengths.tolist() == [
        len(text.split()) for text, _ in texts(20) + texts(20, seed=1)
    ]
    assert (
        data.source_vocab.tokens
        == ClassificationData(
            corpus(tmp_path / "all", train=texts(20) + texts(20, seed=1), dev=texts(5, seed=2))
        ).source_vocab.tokens
    )
    assert whole.digests["train"] != data.digests["train"]
    corpus(tmp_path / "my", more=[("a plot", "neg"), ("a film", "odd")])
    with pytest.raises(DataError, match=rf"^{path}/more.jsonl:2: label 'odd' is not among"):
        ClassificationData(path, train=["train.jsonl", "more.jsonl"], labels=LABELS).setup("fit")


def test_numbers_of_a_split_are_mapped_from_disk_and_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = corpus(tmp_path / "my", train=texts(40), dev=texts(9, 1))
    encoded = ClassificationData(home).dataset("train", scored=False).encoded
    assert isinstance(encoded.forms, MappedIds)
    assert isinstance(encoded.offsets.base, np.memmap)
    for module, name in ((coded, "flat_ids"), (coded, "token_counts")):
        monkeypatch.setattr(module, name, None)
    again = ClassificationData(home).dataset("train", scored=False)
    assert again.encoded.forms[:].tolist() == encoded.forms[:].tolist()
