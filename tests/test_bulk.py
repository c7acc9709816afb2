from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from seqlab.bulk import inputs
from seqlab.bulk.engines import LocalCrew
from seqlab.bulk.writing import partials
from seqlab.bundle import save_bundle
from seqlab.errors import DataError, SeqlabError, UsageError
from seqlab.models.classifier import Classifier
from seqlab.models.tagger import Tagger
from seqlab.predict import run
from seqlab.vocabulary import Vocabulary
from seqlab.zoo import load

WORDS = ["Ada", "Lovelace", "was", "born", "in", "London"]


def tagger(features: dict[str, Vocabulary] | None = None, seed: int = 5) -> Tagger:
    torch.manual_seed(seed)
    letters = Vocabulary("abcdefghijklmnopqrstuvwxyz", padding=True, unknown=1)
    tags = ["O", "B-PER", "I-PER", "E-PER", "S-PER"]
    target = Vocabulary(tags, scheme="bioes", written="iob2")
    words = Vocabulary(WORDS, padding=True, unknown=1, characters=letters, features=features or {})
    return Tagger(words, target, hidden_size=8, embedding_size=8, character_size=8)


def classifier() -> Classifier:
    torch.manual_seed(8)
    letters = Vocabulary("abcdefghijklmnopqrstuvwxyz", padding=True, unknown=1)
    words = Vocabulary(WORDS, padding=True, unknown=1, characters=letters)
    target = Vocabulary(["good", "bad"], scheme="label", written="label")
    return Classifier(words, target, hidden_size=8, embedding_size=8, character_size=8)


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory, make_translator: Any) -> Path:
    """A folder with small models of every kind."""
    folder = tmp_path_factory.mktemp("bundles")
    posed = {"pos": Vocabulary(["NN", "VB"], unknown=0)}
    save_bundle(tagger(), folder / "tagger")
    save_bundle(tagger(seed=6), folder / "other")
    save_bundle(tagger(posed), folder / "featured")
    save_bundle(classifier(), folder / "classifier")
    save_bundle(make_translator(max_ratio=1.0, max_extra=3), folder / "translator")
    return folder


@pytest.fixture(autouse=True)
def _few_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQLAB_KERNELS", "plain")


@pytest.fixture
def predict(bundles: Path, tmp_path: Path, capfd: Any) -> Callable[..., str]:
    """Run the verb on the files of a folder and return what it said on standard error."""

    def call(*argv: str, model: str = "tagger", code: int = 0, source: str = "in") -> str:
        given = ["--input", str(tmp_path / source), "--output", str(tmp_path / "out")]
        threads = torch.get_num_threads()
        done = run([str(bundles / model), *given, "--device", "cpu", "--workers", "1", *argv])
        assert torch.get_num_threads() == threads
        said: str = capfd.readouterr().err
        assert done == code, said
        return said

    return call


def write(folder: Path, **files: list[Any] | str | bytes) -> Path:
    """Write files of records, or of what is given; `_` stands for the dot."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        path = folder / name.replace("_", ".")
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif path.suffix == ".parquet" and isinstance(content, list):
            pq.write_table(pa.Table.from_pylist(content), path, row_group_size=7)
        elif isinstance(content, list):
            path.write_text("".join(json.dumps(one) + "\n" for one in content), encoding="utf-8")
        else:
            path.write_text(content, encoding="utf-8")
    return folder


def records(number: int, start: int = 0) -> list[dict[str, Any]]:
    """Records of texts, of which each has a word that no other has."""
    return [
        {"id": f"r{row}", "text": f"Ada w{row} " + " ".join(WORDS[: row % 6])}
        for row in range(start, start + number)
    ]


def read(folder: Path, name: str = "") -> list[dict[str, Any]]:
    """Read all answers whose files begin so, in the order of the files."""
    return [
        json.loads(line)
        for path in sorted(folder.glob(f"{name}*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]


@contextmanager
def killing(folder: Path, which: str, times: int) -> Iterator[list[int]]:
    """Kill whoever writes a shard whose output begins so, so many times."""
    killed: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while len(killed) < times and not over.is_set():
            for path in partials(folder) if folder.exists() else ():
                pid = int(path.name.split(".")[-2])
                if path.name.startswith(f".{which}") and pid not in killed:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
                    killed.append(pid)
                    if len(killed) == times:
                        return
            time.sleep(0.001)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def test_every_row_is_answered_once_and_in_order_as_predict_does(
    predict: Any, tmp_path: Path, bundles: Path
) -> None:
    rows = records(30)
    write(tmp_path / "in", a_parquet=rows[:10], b_jsonl=rows[10:20])
    text = "".join(f"{row['text']}\n" for row in rows[20:])
    write(tmp_path / "in", c_txt_gz=gzip.compress(text.encode()))
    write(tmp_path / "in", _hidden_txt="Ada", d_csv="text\nAda")
    said = predict()
    assert "30 rows in " in said
    assert "0 of them bad" in said
    answers = read(tmp_path / "out")
    assert [answer["row"] for answer in answers] == [*range(10)] * 3
    assert [answer.get("id") for answer in answers] == [r["id"] for r in rows[:20]] + [None] * 10
    pipeline: Any = load(bundles / "tagger", device="cpu")
    wanted = [found.to_dict() for found in pipeline([row["text"] for row in rows])]
    plain = [{k: v for k, v in found.items() if k not in ("row", "id")} for found in answers]
    assert plain == json.loads(json.dumps(wanted))
    files = sorted(path.name for path in (tmp_path / "out").iterdir() if path.name[0] != ".")
    assert files == ["a-00000.jsonl", "b-00000.jsonl", "c-00000.jsonl", "job.json"]


def test_a_pattern_finds_files_of_any_depth_and_names_stay_apart(
    predict: Any, tmp_path: Path
) -> None:
    for folder in ("x", "y"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        write(tmp_path / "in" / folder, part_jsonl=records(2))
    predict(source="in/**/*.jsonl")
    assert len(read(tmp_path / "out", "part-0")) == 2
    assert len(read(tmp_path / "out", "part.jsonl-0")) == 2


@pytest.mark.parametrize("model", ["classifier", "translator"])
def test_classifiers_and_translators_answer_too(predict: Any, tmp_path: Path, model: str) -> None:
    write(tmp_path / "in", a_jsonl=records(5), b_txt="Ada\n\nLondon\n")
    predict(model=model)
    key = "label" if model == "classifier" else "translation"
    answers = read(tmp_path / "out")
    assert [answer["row"] for answer in answers] == [0, 1, 2, 3, 4, 0, 1, 2]
    assert all(key in answer for answer in answers)


@pytest.mark.parametrize("model", ["tagger", "classifier", "translator"])
def test_answers_in_parquet_are_those_in_json(predict: Any, tmp_path: Path, model: str) -> None:
    write(tmp_path / "in", a_jsonl=[*records(5), {"id": 7, "text": None}, {"text": ""}])
    predict("--format", "parquet", model=model)
    (tmp_path / "out").rename(tmp_path / "parquet")
    predict(model=model)
    table = pq.read_table(tmp_path / "parquet" / "a-00000.parquet").to_pylist(
        maps_as_pydicts="strict"
    )
    plain = [{k: v for k, v in row.items() if v is not None} for row in table]
    wanted = [{k: v for k, v in row.items() if v is not None} for row in read(tmp_path / "out")]
    wanted[5]["id"] = "7"
    assert json.loads(json.dumps(plain)) == wanted


def test_bad_rows_and_bad_files_stop_nothing(predict: Any, tmp_path: Path) -> None:
    good = gzip.compress("".join("Ada was born\n" for _ in range(2000)).encode())
    write(tmp_path / "in", a_jsonl='{"text": "Ada"}\n{"text": 3}\nAda\n\n{"text": "London"}\n')
    write(tmp_path / "in", b_txt=b"Ada\nJos\xe9\nLondon", c_txt_gz=good[:-20])
    write(tmp_path / "in", d_parquet=records(3), e_parquet=[{"other": 1}])
    whole = (tmp_path / "in" / "d.parquet").read_bytes()
    (tmp_path / "in" / "f.parquet").write_bytes(whole[: len(whole) // 2])
    said = predict(code=1)
    assert "11 rows in " in said
    assert "4 of them bad" in said
    assert "the first is row 1 of " in said
    assert "no text: 'text' is neither a text nor a list of words." in said
    for name, reason in (
        ("c.txt.gz", "ends or breaks after line"),
        ("e.parquet", "has no column of texts: its columns are other"),
        ("f.parquet", "not a whole parquet file"),
    ):
        assert f"set aside: {tmp_path / 'in' / name}" in said
        assert reason in said
    assert [answer.get("error", "")[:8] for answer in read(tmp_path / "out", "a")] == [
        "",
        "no text:",
        "not JSON",
        "no text:",
        "",
    ]
    assert (
        read(tmp_path / "out", "b")[1]
        == {
            "row": 1,
            "error": "not UTF-8 (invalid continuation byte at byte 4 of the line).",
        }
        or "not UTF-8" in read(tmp_path / "out", "b")[1]["error"]
    )
    assert sorted(p.name for p in (tmp_path / "out").glob("*.jsonl")) == [
        "a-00000.jsonl",
        "b-00000.jsonl",
        "d-00000.jsonl",
    ]


def test_what_is_done_is_not_done_again(
    predict: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "ROWS", 10)
    rows = records(35)
    write(tmp_path / "in", a_jsonl=rows, b_jsonl=records(5))
    predict()
    out = tmp_path / "out"
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.jsonl")}
    assert sorted(before) == [*(f"a-0000{n}.jsonl" for n in range(4)), "b-00000.jsonl"]
    (out / "a-00002.jsonl").unlink()
    (out / ".a-00002.jsonl.host.1.partial").write_text("half", encoding="utf-8")
    os.utime(tmp_path / "in" / "a.jsonl")  # touched, and the same
    said = predict()
    assert "10 rows in " in said
    assert "; 4 shards done before." in said
    assert [answer["id"] for answer in read(out, "a")] == [row["id"] for row in rows]
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.jsonl")}
    assert {name for name in before if before[name] != after[name]} == {"a-00002.jsonl"}
    assert partials(out) == []
    write(tmp_path / "in", a_jsonl=rows[5:20], c_jsonl=records(1))
    said = predict()
    assert f"{tmp_path / 'in' / 'a.jsonl'} has changed: its rows are answered again." in said
    assert "16 rows in " in said
    assert [answer["id"] for answer in read(out, "a")] == [row["id"] for row in rows[5:20]]
    assert "0 rows in " in predict()


def test_a_folder_of_another_model_or_other_options_is_left_alone(
    predict: Any, tmp_path: Path
) -> None:
    write(tmp_path / "in", a_jsonl=records(3))
    predict()
    before = read(tmp_path / "out")
    with pytest.raises(UsageError, match=r"holds the answers of another model \(.*tagger\)"):
        predict(model="other")
    with pytest.raises(UsageError, match=r"other options \(confidence: True, and now False\)"):
        predict("--no-confidence")
    with pytest.raises(UsageError, match=r"other options \(format: jsonl, and now parquet\)"):
        predict("--format", "parquet")
    assert read(tmp_path / "out") == before


@pytest.mark.slow
def test_a_killed_worker_costs_no_row(
    predict: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "ROWS", 6000)
    rows = records(20_000)
    write(tmp_path / "in", a_jsonl=rows[:12_000], b_jsonl=rows[12_000:])
    with killing(tmp_path / "out", "a-00001", 2) as killed:
        said = predict("--workers", "2")
    assert len(killed) == 2
    assert "20,000 rows in " in said
    assert [answer["id"] for answer in read(tmp_path / "out")] == [row["id"] for row in rows]
    assert partials(tmp_path / "out") == []
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_a_shard_that_kills_its_workers_is_set_aside(
    predict: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in", a_jsonl=records(8_000), b_jsonl=records(10))
    with killing(tmp_path / "out", "a-", 3):
        said = predict(code=1)
    assert "a.jsonl, rows 0 to 7,999: 3 workers were killed while they read it (signal 9)." in said
    assert len(read(tmp_path / "out", "b")) == 10
    assert "8,000 rows in " in predict()


def test_ctrl_c_leaves_what_is_done(
    predict: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "ROWS", 10)
    write(tmp_path / "in", a_jsonl=records(40))
    hear, seen = LocalCrew.hear, []

    def interrupted(crew: LocalCrew) -> Any:
        if len(seen) == 2:
            raise KeyboardInterrupt
        messages = hear(crew)
        seen.extend(one for one in messages if one.kind == "done")
        return messages

    with monkeypatch.context() as patch:
        patch.setattr(LocalCrew, "hear", interrupted)
        with pytest.raises(SeqlabError, match=r"Ctrl-C: 2 of 4 shards are done; the same command"):
            predict()
    assert multiprocessing.active_children() == []
    assert "2 shards done before" in predict()
    assert len(read(tmp_path / "out")) == 40


def test_a_model_that_needs_columns(predict: Any, tmp_path: Path) -> None:
    rows = [{"tokens": ["Ada", "was"], "pos": ["NN", "VB"]}, {"tokens": ["Ada"], "pos": []}]
    write(tmp_path / "in", a_jsonl=rows, b_parquet=rows, c_parquet=records(2), d_txt="Ada\n")
    with pytest.raises(UsageError, match=r"featured needs the column pos .*--columns pos=KEY"):
        predict(model="featured")
    said = predict("--columns", "pos=pos", model="featured", code=1)
    assert "no key 'pos' for the pos; the keys are id, text." in said
    assert "d.txt has a text a line, which has no --columns" in said
    for name in "ab":
        first, second = read(tmp_path / "out", name)
        assert first["tokens"] == ["Ada", "was"]
        assert second["error"] == "1 tokens but 0 pos; give one for every token."


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--engine", "rey"], r"--engine is 'rey': choose local or ray\. Did you mean 'ray'\?"),
        (["--workers", "0"], r"--workers is 0: it must be 1 or more\."),
        (["--workers", "two"], r"--workers is two: it must be 1 or more\."),
        (["--format", "conll"], r"--format conll is for one file: use jsonl or parquet"),
        (["--explain"], r"--explain is for one file"),
        (["--beam", "3"], r"--beam is for translators, and .*tagger is a tagger"),
        (["--columns", "text=a"], r"--columns text: .*tagger is a tagger, which reads tokens"),
        (["--device", "cuda:9"], r"device 'cuda:9' is not there"),
        (["Ada"], r"TEXT 'Ada' is given beside --input"),
    ],
)
def test_wrong_commands_are_one_sentence(
    predict: Any, tmp_path: Path, argv: list[str], message: str
) -> None:
    write(tmp_path / "in", a_jsonl=records(1))
    with pytest.raises(SeqlabError, match=message):
        predict(*argv)
    assert not (tmp_path / "out").exists()


def test_wrong_places_are_one_sentence(predict: Any, tmp_path: Path) -> None:
    folder = write(tmp_path / "in", a_jsonl=records(1), b_csv="")
    with pytest.raises(DataError, match=r"no file fits --input .*\*\.parquet: mend the pattern"):
        predict(source="in/*.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"the folder .*empty holds no \.parquet, \.jsonl"):
        predict(source="empty")
    with pytest.raises(UsageError, match=r"--engine is for many files: give --input a folder"):
        predict("--engine", "local", source="in/a.jsonl")
    with pytest.raises(UsageError, match=r"in is many files: name a folder with --output"):
        run(["MODEL", "--input", str(folder)])
    with pytest.raises(UsageError, match=r"same folder"):
        run(["MODEL", "--input", str(folder), "--output", str(folder)], lambda *a, **k: None)
    (tmp_path / "out").write_text("a file", encoding="utf-8")
    with pytest.raises(UsageError, match=r"cannot write to .*out: File exists; give --output a"):
        predict()
    (tmp_path / "out").unlink()
    write(tmp_path / "out", x_txt="mine")
    with pytest.raises(UsageError, match=r"out holds files that are of no job"):
        predict()
