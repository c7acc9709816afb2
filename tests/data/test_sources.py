from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seqlab.data import cache, formats, sources
from seqlab.data.finding import SPLITS
from seqlab.data.sources import load_splits
from seqlab.errors import DataError

REAL = os.environ.get("SEQLAB_DATA")
real = pytest.mark.skipif(not REAL, reason="SEQLAB_DATA is not set: no real corpora to read")

ADA = "Ada\tNNP\tB-PER\nslept\tVBD\tO\n\nSo\tRB\tO\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEQLAB_CACHE", str(tmp_path / "cache"))
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    return corpus


def fill(folder: Path, *names: str, content: str = ADA) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")


# Loading


def test_columns_types_and_order_of_a_loaded_corpus(folder):
    fill(folder, "train.conll", "dev.conll")
    splits, notes = load_splits(str(folder), columns={"tokens": 0, "tags": 2, "pos": 1})
    assert (list(splits), notes) == (["train", "validation"], [])
    kinds = {name: kind.feature.dtype for name, kind in splits["train"].features.items()}
    assert kinds == {"tokens": "string", "tags": "string", "lines": "int32", "pos": "string"}
    assert list(splits["train"]) == [
        {
            "tokens": ["Ada", "slept"],
            "tags": ["B-PER", "O"],
            "lines": [1, 2],
            "pos": ["NNP", "VBD"],
        },
        {"tokens": ["So"], "tags": ["O"], "lines": [4], "pos": ["RB"]},
    ]


def test_tables_are_mapped_from_the_cache_folder(folder, tmp_path, monkeypatch):
    fill(folder, "train.conll")
    for variables, expected in (
        ({"SEQLAB_CACHE": "own"}, "own/datasets"),
        ({"XDG_CACHE_HOME": "xdg"}, "xdg/seqlab/datasets"),
        ({"HOME": "home"}, "home/.cache/seqlab/datasets"),
    ):
        for name in ("SEQLAB_CACHE", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, str(tmp_path / value))
        (table,) = load_splits(str(folder))[0]["train"].cache_files
        assert Path(table["filename"]).parents[1] == tmp_path / expected
    (table,) = load_splits(str(folder), cache_dir=tmp_path / "given")[0]["train"].cache_files
    assert Path(table["filename"]).parents[1] == tmp_path / "given"


def test_data_without_tags_has_no_column_for_them(folder):
    fill(folder, "train.txt", content="Hello there!\n")
    splits, _ = load_splits(str(folder), tagged=False)
    assert splits["train"].column_names == ["tokens", "lines"]
    assert splits["train"][0]["tokens"] == ["Hello", "there", "!"]


def test_a_second_load_reads_nothing_and_says_the_same(folder, monkeypatch):
    fill(folder, "train.conll", content=ADA + "\tX\tO\n")
    first, notes = load_splits(str(folder))
    assert notes == ["train.conll: 1 line with an empty token was skipped (line 5)."]

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(sources, "read_rows", fail)
    second, again = load_splits(str(folder))
    assert (list(second["train"]), again) == (list(first["train"]), notes)
    for changed in ({"columns": {"tags": 1}}, {"tagged": False}):
        with pytest.raises(AssertionError, match="read again"):
            load_splits(str(folder), **changed)
    fill(folder, "train.conll", content=ADA + "b\tX\tO\n")
    with pytest.raises(AssertionError, match="read again"):
        load_splits(str(folder))


@pytest.mark.parametrize("harm", ["cut", "changed", "removed", "notes", "no list", "emptied"])
def test_a_damaged_entry_is_made_anew(folder, harm):
    fill(folder, "train.conll", content=ADA + "\tX\tO\n")
    first, notes = load_splits(str(folder))
    expected = list(first["train"])
    table = Path(first["train"].cache_files[0]["filename"])
    del first
    good = table.read_bytes()
    about = table.with_name(cache.NOTES)
    if harm in ("notes", "no list"):
        about.write_text("{" if harm == "notes" else "[]")
    elif harm == "removed":
        table.unlink()
    else:
        table.write_bytes(
            {"cut": good[:-30], "emptied": b"", "changed": good.replace(b"Ada", b"Ida")}[harm]
        )
    again, said = load_splits(str(folder))
    assert (list(again["train"]), said) == (expected, notes)
    assert table.read_bytes() == good
    assert sorted(file.name for file in table.parent.iterdir()) == [cache.NOTES, cache.ROWS]


def test_an_error_while_reading_leaves_no_entry(folder, tmp_path):
    fill(folder, "train.conll", content=ADA + "b\tO\n")
    for _ in range(2):
        with pytest.raises(DataError, match="train.conll:5: 2 columns"):
            load_splits(str(folder))
    assert [file for file in (tmp_path / "cache").rglob("*") if file.is_file()] == []


def test_a_cache_that_cannot_be_written_is_an_error(folder, tmp_path):
    fill(folder, "train.conll")
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match="cannot write the cache .*; set SEQLAB_CACHE"):
        load_splits(str(folder))


def test_two_processes_may_load_at_once(folder):
    fill(folder, "train.conll", content=ADA + "\n" + "a\tX\tO\n\n" * 20_000)
    code = (
        "import sys; from seqlab.data.sources import load_splits;"
        "splits, _ = load_splits(sys.argv[1]); print(len(splits['train']), splits['train'][-1])"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120) for process in running]
    assert said[0] == said[1]
    assert said[0] == (b"20002 {'tokens': ['a'], 'tags': ['O'], 'lines': [40004]}\n", b"")


def test_rows_are_written_the_same_in_batches_of_bounded_size(tmp_path):
    import pyarrow as pa

    def rows():
        for at in range(2501):
            size = 150_000 if at == 1200 else 1
            yield formats.Row(["a"] * size, None, [at] * size, {})

    for name in ("one", "two"):
        with (tmp_path / name).open("wb") as sink:
            cache.write_rows(rows(), sink)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with pa.ipc.open_stream(tmp_path / "one") as stream:
        assert [batch.num_rows for batch in stream] == [1000, 201, 1000, 300]


def test_rows_with_and_without_tags_do_not_mix(folder):
    content = json.dumps({"text": "a", "spans": []}) + "\n"
    fill(folder, "train.jsonl", content=content + '{"tokens": ["b"]}\n')
    with pytest.raises(DataError, match="train.jsonl:2: no 'text'"):
        load_splits(str(folder), tagged=False)


def test_long_readings_say_how_far_they_are(folder, monkeypatch, capfd):
    fill(folder, "train.conll", content="a\tO\n\n" * 2500)
    load_splits(str(folder))
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(cache, "_PATIENCE", 0.0)
    load_splits(str(folder), tagged=False)
    assert capfd.readouterr().err.splitlines() == [
        "reading train.conll: 1,000 sentences so far",
        "reading train.conll: 2,000 sentences so far",
    ]


def test_a_feature_cannot_take_the_name_of_the_lines(folder):
    fill(folder, "train.conll")
    with pytest.raises(DataError, match=r"data\.columns\.lines: the name is taken"):
        load_splits(str(folder), columns={"lines": 1})


def test_importing_sources_imports_nothing_heavy():
    code = (
        "import sys, seqlab.data.sources;"
        "print(sorted({'datasets', 'pyarrow', 'torch', 'yaml', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout == "[]\n"


# The hub


def hub_data():
    import datasets

    features = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=["O", "B-PER"])),
            "id": datasets.Value("string"),
        }
    )
    rows = {"tokens": [["Ada", "slept"], ["So"]], "ner_tags": [[1, 0], [0]], "id": ["a", "b"]}
    data = datasets.Dataset.from_dict(rows, features=features)
    return datasets.DatasetDict(
        {"test": data.select([1]), "dev": data, "train": data, "more": data}
    )


def test_a_hub_dataset_is_loaded_at_its_revision_with_names_for_numbers(monkeypatch):
    import datasets

    asked = []

    def load(name, revision, cache_dir):
        asked.append((name, revision, cache_dir))
        return hub_data()

    monkeypatch.setattr(datasets, "load_dataset", load)
    splits, notes = load_splits("org/name@refs/pr/1")
    assert asked == [("org/name", "refs/pr/1", None)]
    assert list(splits) == list(SPLITS)
    assert list(splits["validation"]) == [
        {"tokens": ["Ada", "slept"], "tags": ["B-PER", "O"], "lines": [1, 1]},
        {"tokens": ["So"], "tags": ["O"], "lines": [2]},
    ]
    assert list(splits["test"]["tokens"]) == [["So"]]
    assert notes == ["org/name@refs/pr/1: the split more is not used."]
    assert load_splits("org/name@refs/pr/1")[1] == notes


def test_a_file_replaces_a_split_of_the_hub(folder, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: hub_data())
    fill(folder, "mine.conll")
    splits, _ = load_splits("org/name@v1", test=str(folder / "mine.conll"))
    assert splits["test"][0]["lines"] == [1, 2]
    assert splits["train"][0]["lines"] == [1, 1]


def test_hub_datasets_for_other_tasks_list_their_columns(monkeypatch):
    import datasets

    data = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": ["a"], "y": [0]})})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: data)
    with pytest.raises(DataError, match="org/name@v1 train, row 1: no tokens .* are text, y"):
        load_splits("org/name@v1")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            ConnectionError("no route"),
            "cannot reach the Hugging Face hub for org/name@v1: download",
        ),
        (FileNotFoundError("no\nsuch"), r"cannot load the dataset org/name@v1 \(no such\); name"),
        (RuntimeError("Dataset scripts"), r"cannot load the dataset org/name@v1 \(Dataset scripts"),
    ],
)
def test_what_the_hub_cannot_give_is_one_sentence(monkeypatch, error, expected):
    import datasets

    def load(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match=expected):
        load_splits("org/name@v1")
    assert not datasets.are_progress_bars_disabled()


def test_an_offline_hub_is_said_to_be_out_of_reach():
    code = "from seqlab.data.sources import load_splits; load_splits('org/name@v1')"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert "DataError: cannot reach the Hugging Face hub for org/name@v1: " in done.stderr


def test_a_folder_laid_out_for_the_hub_follows_its_readme(folder):
    data = hub_data()
    (folder / "parts").mkdir()
    data["train"].to_parquet(str(folder / "parts" / "a.parquet"))
    data["test"].to_parquet(str(folder / "parts" / "b.parquet"))
    files = (
        "  - split: train\n    path: parts/a.parquet\n  - split: dev\n    path: parts/b.parquet\n"
    )
    head = f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n# A corpus\n"
    (folder / "README.md").write_text(head)
    splits, notes = load_splits(str(folder))
    assert {name: list(data["tags"]) for name, data in splits.items()} == {
        "train": [["B-PER", "O"], ["O"]],
        "validation": [["O"]],
    }
    assert notes == []


def test_shards_of_a_split_are_put_together(folder):
    data = hub_data()["train"]
    for shard in range(2):
        part = data.shard(2, shard, contiguous=True)
        part.to_parquet(str(folder / f"train-{shard:05}-of-00002.parquet"))
    splits, _ = load_splits(str(folder))
    assert list(splits["train"]["tokens"]) == [["Ada", "slept"], ["So"]]
    assert splits["train"][1]["tags"] == ["O"]


def test_a_single_parquet_a_split_needs_no_hub(folder, monkeypatch):
    import datasets

    hub_data()["train"].to_parquet(str(folder / "train-00000-of-00001.parquet"))
    monkeypatch.setattr(datasets, "load_dataset", None)
    splits, _ = load_splits(str(folder))
    assert list(splits["train"]["tags"]) == [["B-PER", "O"], ["O"]]


# Real corpora

COUNTS = {
    "ud-en-ewt": [(12544, 204577), (2001, 25147), (2077, 25094)],
    "ud-fr-sequoia": [(2231, 50502), (412, 9999), (456, 10044)],
    "wnut17": [(3394, 62730), (1009, 15733), (1287, 23394)],
    "conll2000": [(7936, 188059), (1000, 23668), (2012, 47377)],
    "btc": [(6338, 98344), (1000, 16612), (2000, 35425)],
}


@real
@pytest.mark.real
@pytest.mark.parametrize("name", COUNTS)
def test_real_corpora_load_with_their_counts(name):
    splits, notes = load_splits(f"$SEQLAB_DATA/{name}")
    assert list(splits) == list(SPLITS)
    counts = [(len(data), sum(map(len, data["tokens"]))) for data in splits.values()]
    assert counts == COUNTS[name]
    assert len(notes) == (2 if name == "btc" else 0)


@real
@pytest.mark.real
def test_a_real_treebank_is_read_in_seconds(folder):
    import datasets  # noqa: F401  (its import is not what is timed)

    packed = Path(str(REAL), "ud-en-ewt", "en_ewt-ud-train.conllu.gz").read_bytes()
    (folder / "train.conllu").write_bytes(gzip.decompress(packed))
    start = time.perf_counter()
    splits, _ = load_splits(str(folder))
    taken = time.perf_counter() - start
    assert len(splits["train"]) == 12544
    assert taken < 10.0  # about 1 s when nothing else runs
