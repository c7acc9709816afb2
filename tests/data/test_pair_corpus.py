from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seqlab.data.pair_corpus import PairCorpus, load_pairs
from seqlab.data.pair_rows import Languages
from seqlab.errors import DataError, RecipeError

FILES = {"train": None, "validation": None, "test": None}
NONE = Languages(None, None)


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content, encoding="utf-8")
    return folder


def load(path: Path | str | None, languages: Languages = NONE, **given: Any) -> PairCorpus:
    columns = given.pop("columns", {})
    files = {**FILES, **given}
    return load_pairs(None if path is None else str(path), files, columns, languages)


def pairs_of(corpus: PairCorpus) -> dict[str, list[tuple[str, str, int]]]:
    return {
        split: [(row["source"][0], row["target"][0], row["lines"][0]) for row in rows]
        for split, rows in corpus.splits.items()
    }


def test_parallel_files_become_splits(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "c", train_de="Ja\n\nDu\n", train_en="Yes\n\nYou\n", val_de="a\n", val_en="b\n"
    )
    corpus = load(folder, Languages("de", "en"))
    assert pairs_of(corpus) == {
        "train": [("Ja", "Yes", 1), ("Du", "You", 3)],
        "validation": [("a", "b", 1)],
    }
    assert corpus.files == {
        "train": str(folder / "train.de"),
        "validation": str(folder / "val.de"),
    }
    assert corpus.notes == [
        "train.de and train.en: 1 line empty on both sides was skipped (line 2)."
    ]
    again = load(folder, Languages("de", "en"))
    assert (pairs_of(again), again.notes) == (pairs_of(corpus), corpus.notes)
    turned = load(folder, Languages("en", None))
    assert turned.languages == ("en", "de")
    assert pairs_of(turned)["validation"] == [("b", "a", 1)]


def test_what_moves_from_one_side_to_the_other_is_another_corpus(tmp_path: Path) -> None:
    folder = write(tmp_path / "c", train_de="a\nb\n", train_en="c\nd\n")
    assert pairs_of(load(folder, Languages("de", "en")))["train"][1] == ("b", "d", 2)
    write(folder, train_de="a\n", train_en="b\nc\nd\n")
    with pytest.raises(DataError, match=r"train\.en has 3 lines and .*train\.de 1: line 2"):
        load(folder, Languages("de", "en"))


def test_a_folder_of_tables_becomes_splits(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "c", train_tsv="en\tfr\nHi.\tSalut.\n", dev_jsonl='{"fr": "b", "en": "a"}\n'
    )
    corpus = load(folder)
    assert pairs_of(corpus) == {
        "train": [("Hi.", "Salut.", 2)],
        "validation": [("a", "b", 1)],
    }
    assert corpus.languages == ("en", "fr")
    assert corpus.notes == []
    assert load(folder, Languages("fr", None)).languages == ("fr", "en")


def test_splits_may_be_of_different_kinds(tmp_path: Path) -> None:
    tables = write(tmp_path / "a", train_tsv="x\ty\n", test_tsv="no\tno\n")
    files = write(tmp_path / "b", best_de="a\n", best_en="b\n")
    corpus = load(tables, Languages("de", "en"), test=str(files / "best"))
    assert pairs_of(corpus) == {"train": [("x", "y", 1)], "test": [("a", "b", 1)]}
    assert corpus.files == {
        "train": str(tables / "train.tsv"),
        "test": str(files / "best.de"),
    }
    write(files, train_de="c\n", train_en="d\n")
    corpus = load(files, Languages("de", "en"), test=str(tables / "test.tsv"))
    assert pairs_of(corpus) == {"train": [("c", "d", 1)], "test": [("no", "no", 1)]}


def test_languages_that_nothing_in_a_table_names_are_said_to_be_a_guess(tmp_path: Path) -> None:
    folder = write(tmp_path / "c", train_tsv="Hi.\tSalut.\n", dev_tsv="Hi.\tSalut.\n")
    file = folder / "train.tsv"
    corpus = load(folder, Languages("fr", "en"))
    assert corpus.notes == [
        f"{file} has no header: its first column is read as fr, its second as en (data.columns can "
        "say otherwise)."
    ]
    for languages, columns in (
        (NONE, {}),
        (Languages("fr", None), {}),
        (Languages("fr", "en"), {"source": 1, "target": 0}),
        (Languages("fr", "en"), {"source": 1, "target": -2}),
    ):
        quiet = load(folder, languages, columns=columns)
        assert quiet.notes == []
        assert quiet.languages == languages


def test_columns_may_name_the_languages(tmp_path: Path) -> None:
    folder = write(tmp_path / "c", train_tsv="id\ten\tfr\n1\tHi.\tSalut.\n")
    corpus = load(folder, columns={"source": "fr", "target": "en"})
    assert corpus.languages == ("fr", "en")
    assert pairs_of(corpus) == {"train": [("Salut.", "Hi.", 2)]}


def test_a_data_set_of_the_hub_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    rows = datasets.Dataset.from_dict(
        {"id": ["0", "1"], "translation": [{"de": "Ja", "en": "Yes"}, {"de": "", "en": "b"}]}
    )
    asked = []

    def answer(name: str, revision: str, cache_dir: Any) -> datasets.DatasetDict:
        asked.append((name, revision))
        return datasets.DatasetDict(train=rows, validation=rows)

    monkeypatch.setattr(datasets, "load_dataset", answer)
    corpus = load("org/pairs@1.0", Languages("en", "de"))
    assert asked == [("org/pairs", "1.0")]
    assert pairs_of(corpus) == {"train": [("Yes", "Ja", 1)], "validation": [("Yes", "Ja", 1)]}
    assert corpus.files["train"] == "org/pairs@1.0 train"
    assert corpus.notes[0].endswith("1 line empty on one side was skipped (line 2).")
    with pytest.raises(DataError, match=r"pairs@1\.0 train, row 1: no 'source' among de, en; say"):
        load("org/pairs@1.0")


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    folder = write(tmp_path / "c", train_de="a\n", train_en="b\n")
    for path, files, error in (
        (tmp_path / "d", {}, r"data\.path: no such file or folder: .*d; give a folder"),
        (folder, {"test": "tset"}, r"data\.test: no such file or folder: tset; give the file"),
        (None, {}, "no corpus: give data.path, or data.train"),
    ):
        with pytest.raises(DataError, match=error):
            load(path, Languages("de", "en"), **files)


def test_a_file_of_nothing_is_an_error(tmp_path: Path) -> None:
    folder = write(tmp_path / "c", train_de="", train_en="")
    with pytest.raises(DataError) as caught:
        load(folder, Languages("de", "en"))
    assert str(caught.value) == "train.de and train.en holds no pair: leave the split out."
    file = write(tmp_path / "d", train_tsv="\t\n") / "train.tsv"
    with pytest.raises(DataError, match=r"train\.tsv holds no pair"):
        load(file)


def test_a_language_is_not_translated_into_itself(tmp_path: Path) -> None:
    folder = write(tmp_path / "c", train_tsv="a\tb\n")
    with pytest.raises(RecipeError, match="are both de"):
        load(folder, Languages("de", "de"))
