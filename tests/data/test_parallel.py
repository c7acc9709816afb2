from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from seqlab.data.pair_rows import Languages, PairRow
from seqlab.data.parallel import Found, ParallelFiles, find_parallel, read_parallel
from seqlab.data.rows import Dirt
from seqlab.errors import DataError

NONE = {"train": None, "validation": None, "test": None}
DE_EN = Languages("de", "en")


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("ja\n", encoding="utf-8")
    return folder


def names_of(found: Found) -> dict[str, tuple[str, str]]:
    return {split: (one.name, other.name) for split, (one, other) in found.splits.items()}


def find(folder: Path, languages: Languages = DE_EN, **files: str) -> Found:
    return find_parallel(str(folder), {**NONE, **files}, languages)


@pytest.mark.parametrize(
    "stems",
    [
        ("train", "val", "test"),
        ("train.de-en", "dev.de-en", "tst2012.de-en"),
        ("TRAIN.clean", "valid_1", "test_2016_flickr"),
        ("data/train", "data/dev", "data/test"),
    ],
)
def test_a_folder_gives_its_splits(stems: tuple[str, ...], tmp_path: Path) -> None:
    fill(tmp_path, *(f"{stem}.{side}" for stem in stems for side in ("de", "en")))
    fill(tmp_path, "README.md", "train.py", "test.fr", "notes.de", "notes.en")
    found = find(tmp_path)
    stem = {split: Path(name).name for split, name in zip(NONE, stems, strict=True)}
    assert names_of(found) == {split: (f"{s}.de", f"{s}.en") for split, s in stem.items()}
    assert list(found.splits) == list(NONE)
    assert (found.languages, found.path, found.files) == (DE_EN, None, NONE)
    turned = find(tmp_path, Languages("en", "de"))
    assert names_of(turned)["test"] == (f"{stem['test']}.en", f"{stem['test']}.de")


def test_files_may_be_gzipped_but_not_there_twice(tmp_path: Path) -> None:
    fill(tmp_path, "train.de.gz", "train.en")
    assert names_of(find(tmp_path)) == {"train": ("train.de.gz", "train.en")}
    fill(tmp_path, "train.de")
    with pytest.raises(DataError, match=r"both train\.de and train\.de\.gz are there: remove one"):
        find(tmp_path)


def test_two_files_for_one_split_are_an_error_until_one_is_chosen(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{s}.{e}" for s in ("train", "test2016", "test2017") for e in DE_EN if e))
    with pytest.raises(DataError) as caught:
        find(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: test2016 and test2017 could all be the test split: say which, as in "
        "data.test: test2016."
    )
    assert names_of(find(tmp_path, test="test2017"))["test"] == ("test2017.de", "test2017.en")


def test_stems_are_seen_from_here_or_from_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "here", "more/test.de", "more/test.en")
    fill(tmp_path / "corpus", "train.de", "train.en", "extra.de", "extra.en", "extra.tsv")
    monkeypatch.chdir(tmp_path / "here")
    folder = tmp_path / "corpus"
    found = find(folder, test="more/test", validation="extra")
    assert found.splits["test"].source == Path("more/test.de")
    assert found.splits["validation"].source == folder / "extra.de"
    other = find(folder, validation="extra.tsv")
    assert list(other.splits) == ["train"]
    assert (other.path, other.files["validation"]) == (None, str(folder / "extra.tsv"))


def test_files_that_are_not_parallel_are_left_to_others(tmp_path: Path) -> None:
    fill(tmp_path, "train.tsv", "dev.tsv", "more.de", "more.en", "README.md")
    found = find(tmp_path, test="dev.tsv")
    assert (found.splits, found.path) == ({}, str(tmp_path))
    assert found.files == {**NONE, "test": "dev.tsv"}
    mixed = find(tmp_path, test=str(tmp_path / "more"))
    assert (names_of(mixed), mixed.path) == ({"test": ("more.de", "more.en")}, str(tmp_path))
    assert mixed.files == NONE
    for path in (None, "sample:translation", "org/name@main"):
        assert find_parallel(path, NONE, DE_EN) == Found({}, DE_EN, path, NONE)


def test_the_stem_of_two_files_is_the_training_split(tmp_path: Path) -> None:
    fill(tmp_path, "test2016.de", "test2016.en")
    found = find(tmp_path / "test2016")
    assert (names_of(found), found.path) == ({"train": ("test2016.de", "test2016.en")}, None)


def test_one_language_tells_the_other_and_none_is_an_error(tmp_path: Path) -> None:
    fill(tmp_path, "train.de", "train.en", "test.de", "test.en", "test.fr")
    found = find(tmp_path, Languages("en", None))
    assert found.languages == ("en", "de")
    assert names_of(found)["test"] == ("test.en", "test.de")
    with pytest.raises(DataError) as caught:
        find(tmp_path, Languages(None, None))
    assert str(caught.value) == (
        f"{tmp_path / 'train'} is there in de, en: say which is translated into which, as in "
        "data.source_language: de and data.target_language: en."
    )


@pytest.mark.parametrize("sides", [("src", "tgt"), ("source", "target"), ("src", "trg")])
def test_files_may_be_named_for_their_sides(sides: tuple[str, str], tmp_path: Path) -> None:
    fill(tmp_path, *(f"train.{side}" for side in sides))
    for languages in (Languages(None, None), DE_EN):
        found = find(tmp_path, languages)
        assert names_of(found) == {"train": (f"train.{sides[0]}", f"train.{sides[1]}")}
        assert found.languages == languages


def test_any_extension_may_be_a_language_that_is_named(tmp_path: Path) -> None:
    fill(tmp_path, "train.x1", "train.tok")
    assert names_of(find(tmp_path, Languages("tok", "x1"))) == {"train": ("train.tok", "train.x1")}
    assert find(tmp_path, Languages(None, None)).splits == {}


def test_a_missing_side_is_an_error(tmp_path: Path) -> None:
    fill(tmp_path, "train.fr", "train.en", "more.en")
    with pytest.raises(DataError) as caught:
        find(tmp_path)
    assert str(caught.value) == (
        f"there is no {tmp_path / 'train'}.de, only en, fr: add it, or choose others with "
        "data.source_language and data.target_language."
    )
    with pytest.raises(DataError, match="line by line, as more.de"):
        find(tmp_path / "more")
    with pytest.raises(DataError, match="line by line, as more.LANGUAGE"):
        find(tmp_path / "more", Languages(None, None))


# Reading


def written(folder: Path, source: bytes, target: bytes) -> ParallelFiles:
    files = ParallelFiles(folder / "train.de", folder / "train.en.gz")
    files.source.write_bytes(source)
    files.target.write_bytes(gzip.compress(target))
    return files


def test_line_n_of_one_is_the_translation_of_line_n_of_the_other(tmp_path: Path) -> None:
    files = written(
        tmp_path,
        "\ufeffHallo\u2028du\r\n\n \nCafe\u0301\n\nja".encode(),
        "Hello you\n\nno\ncoffee\nempty\n👍\n".encode(),
    )
    dirt = Dirt()
    assert list(read_parallel(files, dirt)) == [
        PairRow("Hallo du", "Hello you", 1),
        PairRow("Café", "coffee", 4),
        PairRow("ja", "👍", 6),
    ]
    assert dirt.sentences() == [
        "train.de and train.en.gz: 1 line empty on both sides was skipped (line 2).",
        "train.de and train.en.gz: 2 lines empty on one side were skipped (lines 3, 5).",
    ]


def test_sides_of_different_length_are_refused_with_the_first_line_too_many(
    tmp_path: Path,
) -> None:
    files = written(tmp_path, b"a\nb\nc\n" + b"d" * 50 + b"\n", b"A\nB\n")
    read = read_parallel(files, Dirt())
    assert [next(read).source, next(read).source] == ["a", "b"]
    with pytest.raises(DataError) as caught:
        next(read)
    assert str(caught.value) == (
        f"{files.source} has 4 lines and {files.target} 2: line 3 of train.de ('c') is the first "
        "without a counterpart; mend the files until line n of one is the translation of line n "
        "of the other."
    )
    files = written(tmp_path, b"a\n", b"A\n" + b"d" * 50)
    with pytest.raises(DataError, match=rf"en\.gz has 2 lines .* line 2 .*'{'d' * 40}\.\.\.'\)"):
        list(read_parallel(files, Dirt()))


def test_what_is_not_utf_8_is_named_with_its_line(tmp_path: Path) -> None:
    files = written(tmp_path, b"a\n\xff\n", b"A\nB\n")
    with pytest.raises(DataError, match=r"train\.de:2: not UTF-8"):
        list(read_parallel(files, Dirt()))
