from __future__ import annotations

from pathlib import Path

import pytest

from seqlab.data import finding
from seqlab.data.finding import SPLITS, find_splits, split_of
from seqlab.data.sources import load_splits
from seqlab.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    return corpus


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("Ada\tO\n", encoding="utf-8")


def names_of(splits: dict[str, Path]) -> dict[str, str]:
    return {split: file.name for split, file in splits.items()}


@pytest.mark.parametrize(
    "names",
    [
        ("train.txt", "dev.txt", "test.txt"),
        ("en_ewt-ud-train.conllu.gz", "en_ewt-ud-dev.conllu", "en_ewt-ud-test.conllu"),
        ("eng.train", "eng.testa", "eng.testb"),
        ("TRAIN.csv", "Valid.csv", "TEST.csv"),
        ("train-00000-of-00001.parquet", "validation-00000-of-00001.parquet", "test.parquet"),
        ("data/train.conll", "data/val.conll", "data/test.conll"),
    ],
)
def test_a_folder_gives_its_splits_and_nothing_else(folder, names):
    fill(folder, *names, "LICENSE.txt", "README.md", "train.md", ".train.txt.swp", "trainer.py")
    (folder / "test").mkdir()
    found = find_splits(str(folder))
    assert list(found) == list(SPLITS)
    assert names_of(found) == dict(zip(SPLITS, (Path(name).name for name in names), strict=True))


def test_splits_may_be_missing_but_not_all(folder):
    with pytest.raises(DataError, match="no split in .*corpus: name the files train, dev and test"):
        find_splits(str(folder))
    fill(folder, "test.conll")
    assert list(find_splits(str(folder))) == ["test"]
    with pytest.raises(DataError, match="give data.path"):
        find_splits("")


def test_two_candidates_for_a_split_are_an_error_naming_both(folder):
    fill(folder, "train.de", "train.en", "dev.en")
    with pytest.raises(DataError, match="both train.de and train.en could be the train split"):
        find_splits(str(folder))


def test_one_file_is_the_training_split(folder):
    fill(folder, "all.conll", "dev.conll")
    path = str(folder / "all.conll")
    assert names_of(find_splits(path)) == {"train": "all.conll"}
    both = find_splits(path, validation=str(folder / "dev.conll"))
    assert names_of(both) == {"train": "all.conll", "validation": "dev.conll"}
    with pytest.raises(DataError, match="give one of the two"):
        find_splits(path, train=path)


def test_files_given_by_split_win_over_the_folder(folder, tmp_path):
    fill(folder, "train.txt", "test.txt", "gold.txt")
    fill(tmp_path, "other.txt")
    found = find_splits(str(folder), test="gold.txt", validation=str(tmp_path / "other.txt"))
    assert names_of(found) == {"train": "train.txt", "validation": "other.txt", "test": "gold.txt"}
    alone = find_splits(None, test=str(folder / "gold.txt"))
    assert names_of(alone) == {"test": "gold.txt"}


def test_variables_and_home_are_expanded(folder, monkeypatch):
    fill(folder, "train.txt")
    monkeypatch.setenv("CORPORA", str(folder.parent))
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.delenv("NOWHERE", raising=False)
    for path in ("$CORPORA/corpus", "${CORPORA}/corpus", "~/corpus"):
        assert find_splits(path)["train"] == folder / "train.txt"
    with pytest.raises(
        DataError, match=r"data.test: \$NOWHERE/x uses .* variable NOWHERE, .* `exp"
    ):
        find_splits(None, test="$NOWHERE/x")


def test_a_missing_path_is_an_error_with_what_is_near(folder):
    fill(folder, "train.txt")
    for load in (find_splits, load_splits):
        with pytest.raises(DataError) as caught:
            load(str(folder.parent / "corpsu"))
        assert str(caught.value).startswith("data.path: no such file or folder: ")
        assert str(caught.value).endswith("ORG/NAME@REVISION. Did you mean 'corpus'?")


def test_samples_are_named_and_listed(folder, monkeypatch):
    fill(folder, "ner/train.conll", "ner/dev.conll", "ner/test.conll", "pos/train.conll", "x.py")
    monkeypatch.setattr(finding, "SAMPLES", folder)
    assert names_of(find_splits("sample:ner"))["validation"] == "dev.conll"
    with pytest.raises(DataError, match="no sample 'nre'; .* ner, pos. Did you mean 'ner'?"):
        load_splits("sample:nre")


# Folders of texts


@pytest.mark.parametrize("below", ["", "data/"])
def test_folders_of_texts_are_splits_where_they_are_asked_for(folder, below):
    for split in ("train", "dev", "20news-bydate-test"):
        fill(folder, f"{below}{split}/pos/1.txt", f"{below}{split}/neg/1.txt.gz")
    fill(folder, "LICENSE.txt", "pos/1.txt", ".train/pos/1.txt")
    found = find_splits(str(folder), folders=True)
    assert names_of(found) == {"train": "train", "validation": "dev", "test": "20news-bydate-test"}
    with pytest.raises(DataError, match=r"no split in .*\(train\.conll, \.\.\.\), or give them"):
        find_splits(str(folder))


def test_a_folder_with_a_folder_for_each_label_is_the_training_split(folder):
    fill(folder, "pos/1.txt", "test/1.txt")
    assert find_splits(str(folder), folders=True) == {"train": folder}
    assert find_splits(None, train=str(folder), folders=True) == {"train": folder}


def test_texts_in_a_folder_that_is_named_for_a_split_have_no_label(folder):
    fill(folder, "train/1.txt", "test/1.txt")
    with pytest.raises(DataError, match=r"no split in .*train/LABEL/1\.txt"):
        find_splits(str(folder), folders=True)


def test_a_file_and_a_folder_for_one_split_are_an_error_naming_both(folder):
    fill(folder, "train/pos/1.txt", "train.tsv", "dev.tsv")
    with pytest.raises(DataError, match=r"both train and train.tsv could be the train split"):
        find_splits(str(folder), folders=True)
    assert find_splits(str(folder))["train"] == folder / "train.tsv"


def test_splits_of_data_sets_have_other_names_elsewhere():
    assert [split_of(name) for name in ("dev", "test", "unsupervised")] == [
        "validation",
        "test",
        None,
    ]
