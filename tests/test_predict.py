from __future__ import annotations

import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from seqlab.data.labelled import LabelledReader
from seqlab.data.rows import Dirt
from seqlab.errors import DataError, SeqlabError, UsageError
from seqlab.models.classifier import Classifier
from seqlab.models.tagger import Tagger
from seqlab.pipeline import Pipeline
from seqlab.predict import parse, run
from seqlab.printing import weighed_words
from seqlab.vocabulary import Vocabulary

WORDS = ["Ada", "Lovelace", "was", "born", "in", "London"]


def tagger(features: dict[str, Vocabulary] | None = None, tags: list[str] | None = None) -> Tagger:
    torch.manual_seed(5)
    letters = Vocabulary("abcdefghijklmnopqrstuvwxyz", padding=True, unknown=1)
    target = Vocabulary(
        tags or ["O", "B-PER", "I-PER", "E-PER", "S-PER"],
        scheme="none" if tags else "bioes",
        written="none" if tags else "iob2",
    )
    words = Vocabulary(WORDS, padding=True, unknown=1, characters=letters, features=features or {})
    return Tagger(words, target, hidden_size=8, embedding_size=8, character_size=8)


def classifier(
    pooling: str | list[str] = "attention",
    labels: tuple[str, ...] = ("good", "bad"),
    scheme: str = "label",
) -> Classifier:
    torch.manual_seed(8)
    letters = Vocabulary("abcdefghijklmnopqrstuvwxyz", padding=True, unknown=1)
    words = Vocabulary(WORDS, padding=True, unknown=1, characters=letters)
    target = Vocabulary(labels, scheme=scheme, written=scheme)
    sizes = {"hidden_size": 8, "embedding_size": 8, "character_size": 8}
    return Classifier(words, target, pooling=pooling, **sizes)


@pytest.fixture(scope="module")
def model() -> Tagger:
    return tagger()


@pytest.fixture(scope="module")
def judge() -> Classifier:
    return classifier()


def loader(model: Tagger | Classifier) -> Any:
    def load(name: str, *, device: str) -> Pipeline:
        assert name == "MODEL"
        return Pipeline(model, device=device)

    return load


class Stream(io.TextIOWrapper):
    """Standard input or output of bytes that may pretend to be a terminal."""

    def __init__(self, data: bytes = b"", terminal: bool = False) -> None:
        super().__init__(io.BufferedReader(io.BytesIO(data)), encoding="utf-8")
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Stream(terminal=True))


@pytest.fixture
def predict(model: Tagger, capfdbinary: pytest.CaptureFixture[bytes]) -> Any:
    """Run the verb on the model and return what it wrote to standard output."""

    def call(*argv: str, model: Tagger | Classifier = model) -> str:
        capfdbinary.readouterr()
        assert run(["MODEL", "--device", "cpu", *argv], loader(model)) == 0
        written: bytes = capfdbinary.readouterr().out
        return written.decode()

    return call


def tags_of(model: Tagger, tokens: list[str]) -> list[str]:
    return Pipeline(model, device="cpu")([tokens])[0].tags


def columns(model: Tagger, *sentences: list[str]) -> str:
    """What the format conll must be for these sentences."""
    lines = []
    for tokens in sentences:
        pairs = zip(tokens, tags_of(model, tokens), strict=True)
        lines += [f"{token}\t{tag}\n" for token, tag in pairs] + ["\n"]
    return "".join(lines)


def test_texts_are_marked_one_a_line(predict: Any, model: Tagger) -> None:
    pipeline = Pipeline(model, device="cpu")
    texts = ["Ada  Lovelace was born in London.", "", "London"]
    assert predict(*texts) == "".join(f"{found}\n" for found in pipeline(texts))
    plain = predict(*texts, "--no-confidence")
    assert "(PER)" in plain
    assert "(PER 0" not in plain


def test_the_precision_is_that_of_the_pipeline(
    model: Tagger, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    pipeline = Pipeline(model, device="cpu")
    seen = []
    for options, expected in (([], "exact"), (["--precision=fast"], "fast")):
        assert run(["MODEL", "Ada", *options], lambda name, *, device: pipeline) == 0
        assert pipeline.precision == expected
        seen.append(capfdbinary.readouterr().out)
    assert b"Ada" in seen[0]
    assert b"Ada" in seen[1]


def test_options_may_stand_before_between_and_after_texts(predict: Any) -> None:
    expected = predict("--format", "conll", "Ada", "London")
    assert expected.count("\n\n") == 2
    assert predict("Ada", "--format", "conll", "London") == expected
    assert predict("Ada", "London", "--format=conll") == expected
    assert predict("--format=conll", "--", "Ada", "London") == expected
    assert parse(["--format", "conll", "--", "m", "-a", "--", "b"]).texts == ["-a", "--", "b"]


def test_models_without_spans_print_each_token_with_its_tag(predict: Any) -> None:
    tags = ["NOUN", "VERB"]
    written = predict("Ada was born.", model=tagger(tags=tags))
    assert [pair.rpartition("/")[0] for pair in written.split()] == ["Ada", "was", "born", "."]
    assert {pair.rpartition("/")[2] for pair in written.split()} <= set(tags)


def test_json_lines_hold_everything(predict: Any, model: Tagger) -> None:
    text = "Ada in Zürich\u2028\U0001f642"
    written = predict(text, "", "--format", "jsonl")
    assert "Zürich" in written
    first, second = [json.loads(line) for line in written.rstrip("\n").split("\n")]
    assert first == Pipeline(model, device="cpu")(text).to_dict()
    assert second == {
        "text": "",
        "tokens": [],
        "offsets": [],
        "tags": [],
        "spans": [],
        "confidences": [],
    }


def test_half_of_a_character_is_written_as_json_only(predict: Any) -> None:
    text = "Ada \udcff was"
    (line,) = predict(text, "--format", "jsonl").splitlines()
    assert json.loads(line)["text"] == text
    with pytest.raises(DataError, match=r"sentence 2 holds '\\udcff'.*--format jsonl"):
        predict("Ada", text)


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_of_columns_keeps_its_tokens(
    predict: Any, model: Tagger, tmp_path: Path, packed: bool
) -> None:
    sentences = [["Ada", "Love\u00a0lace", "..."], ["in", "don't", "\u200b?"]]
    text = "\n".join("".join(f"{t}\tNN\tO\n" for t in tokens) for tokens in sentences)
    file = tmp_path / "corpus"
    file.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    assert predict("--input", str(file), "--format", "conll") == columns(model, *sentences)


def test_a_file_of_records_is_read(predict: Any, model: Tagger, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    records = [{"tokens": ["Ada", "was"]}, {"tokens": ["London"]}]
    file.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    written = predict("--input", str(file), "--format", "conll")
    assert written == columns(model, ["Ada", "was"], ["London"])


def test_a_text_file_gives_a_line_for_every_line(
    predict: Any, model: Tagger, tmp_path: Path
) -> None:
    lines = ["Ada was born in London.", "", "Ada\u2028Lovelace, born in 1815, wrote."]
    file = tmp_path / "x.txt"
    file.write_bytes("\r\n".join(lines).encode())
    found = Pipeline(model, device="cpu")(lines)
    assert predict("--input", str(file)) == "".join(f"{one}\n" for one in found)


def test_lines_are_texts_whatever_they_look_like(predict: Any, tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    file.write_text("Ada B-PER\nwas O\n", encoding="utf-8")
    assert len(predict("--input", str(file), "--format", "jsonl").splitlines()) == 1
    written = predict("--input", str(file), "--format", "jsonl", "--lines").splitlines()
    assert [json.loads(line)["text"] for line in written] == ["Ada B-PER", "was O"]


def test_feature_columns_are_named_on_the_command_line(predict: Any, tmp_path: Path) -> None:
    needy = tagger({"pos": Vocabulary(["NN", "VB"], padding=True, unknown=1)})
    file = tmp_path / "x.conll"
    file.write_text("NN\tAda\nVB\twas\n", encoding="utf-8")
    with pytest.raises(SeqlabError, match=r"needs the column pos .*`--input FILE --columns pos=1`"):
        predict("--input", str(file), model=needy)
    arguments = ["--columns", "tokens=1", "--columns", "pos=0", "--format", "conll"]
    written = predict("--input", str(file), *arguments, model=needy)
    assert [line.split("\t")[0] for line in written.splitlines()] == ["Ada", "was", ""]
    with pytest.raises(SeqlabError, match="needs the column pos"):
        predict("Ada was", model=needy)


def test_what_a_file_lacks_is_noted_on_standard_error(
    model: Tagger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.conll"
    file.write_text("Ada\tO\n\u0001\tO\nwas\tO\n", encoding="utf-8")
    assert run(["MODEL", "--input", str(file)], loader(model)) == 0
    assert capsys.readouterr().err == (
        "x.conll: 1 line with an empty token was skipped (line 2).\n"
    )


@pytest.mark.parametrize("arguments", [[], ["--input", "-"], ["--lines"]])
def test_raw_text_may_be_piped_in(
    predict: Any, model: Tagger, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    lines = ["\ufeffAda was born in London.", "", f"Zürich is not far from {'x' * 1000}."] * 500
    data = "\n".join(lines).encode()
    assert len(data) > 1 << 18
    monkeypatch.setattr(sys, "stdin", Stream(data))
    written = predict(*arguments, "--format", "jsonl").split("\n")
    assert written.pop() == ""
    assert len(written) == 1_500
    assert [json.loads(line)["text"] for line in written[:4]] == [lines[0][1:], *lines[1:4]]
    assert json.loads(written[1_499])["text"] == lines[2]


@pytest.mark.parametrize("packed", [False, True])
def test_other_formats_may_be_piped_in(
    predict: Any, model: Tagger, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    long = "x" * 1000
    data = f"Ada\tO\n{long}\tO\n\n".encode() * 500
    assert len(data) > 1 << 18
    monkeypatch.setattr(sys, "stdin", Stream(gzip.compress(data) if packed else data))
    written = predict("--format", "conll", "--no-confidence")
    assert written == columns(model, ["Ada", long]) * 500


def test_what_is_wrong_with_piped_input_names_it_as_such(
    predict: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Stream(b"Ada\tO\nwas\tO\tO\n"))
    with pytest.raises(DataError, match=r"^standard input:2: 3 columns"):
        predict()
    monkeypatch.setattr(sys, "stdin", Stream(b"Ada was born here.\nZ\xfcrich was not.\n"))
    with pytest.raises(DataError, match=r"^standard input:2: not UTF-8 .* at byte 2 of"):
        predict()


class Typing(io.RawIOBase):
    """A terminal where each line is typed only once the one before is answered."""

    def __init__(self, lines: list[bytes], answers: io.BytesIO) -> None:
        self.lines, self.answers, self.counts = lines, answers, [0]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.counts.append(self.answers.getvalue().count(b"\n"))
        line = self.lines.pop(0) if self.lines else b""
        buffer[: len(line)] = line
        return len(line)


@pytest.mark.parametrize("arguments", [["--lines"], ["--input", "-"]])
def test_answers_come_line_by_line(
    model: Tagger, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    answers = io.BytesIO()
    typing = Typing([b"Ada was\n", b"born in ", b"London\n", b"end"], answers)
    stdin = io.TextIOWrapper(io.BufferedReader(typing))
    monkeypatch.setattr(stdin, "isatty", lambda: "-" in arguments, raising=False)
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(answers, write_through=True))
    run(["MODEL", *arguments], loader(model))
    assert typing.counts == [0, 0, 1, 1, 2, 2]
    assert answers.getvalue().count(b"\n") == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are a Unix thing")
def test_a_named_pipe_is_read_once(predict: Any, model: Tagger, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    feeder = threading.Thread(target=pipe.write_bytes, args=(b"Ada\tO\nwas\tO\n",))
    feeder.start()
    written = predict("--input", str(pipe), "--format", "conll")
    feeder.join()
    assert written == columns(model, ["Ada", "was"])


def test_an_output_file_appears_whole(predict: Any, tmp_path: Path) -> None:
    expected = predict("Ada was", "London")
    file = tmp_path / "out.txt"
    file.write_text("old", encoding="utf-8")
    assert predict("Ada was", "London", "--output", str(file)) == ""
    assert file.read_text(encoding="utf-8") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]
    assert predict("Ada was", "London", "--output", "-") == expected


def test_a_link_and_a_device_are_written_through(predict: Any, tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("old", encoding="utf-8")
    try:
        link.symlink_to(file)
    except OSError:
        pytest.skip("no links here")
    predict("Ada", "--output", str(link))
    assert link.is_symlink()
    assert "Ada" in file.read_text(encoding="utf-8")
    if os.path.exists("/dev/null"):
        predict("Ada", "--output", "/dev/null")
        assert not os.path.isfile("/dev/null")


def test_what_was_written_before_an_error_is_kept(
    model: Tagger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, file = tmp_path / "in.conll", tmp_path / "out"
    source.write_text("Ada\tO\n\n" * 70 + "was\tO\tO\n", encoding="utf-8")
    file.write_text("old", encoding="utf-8")
    arguments = ["MODEL", "--input", str(source), "--output", str(file), "--no-confidence"]
    small = Pipeline(model, device="cpu", tokens_per_batch=2)
    with pytest.raises(DataError, match=r"in\.conll:141: 3 columns"):
        run(arguments, lambda name, *, device: small)
    partial = tmp_path / "out.partial"
    assert capsys.readouterr().err == (f"not finished: what was written so far is in {partial}.\n")
    assert partial.read_text(encoding="utf-8").count("\n") == 64
    assert file.read_text(encoding="utf-8") == "old"


def test_an_error_before_the_first_result_leaves_nothing(
    model: Tagger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.conll"
    source.write_text("Ada\tO\nwas\tO\tO\n", encoding="utf-8")
    with pytest.raises(DataError):
        run(["MODEL", "--input", str(source), "--output", str(tmp_path / "x")], loader(model))
    assert [path.name for path in tmp_path.iterdir()] == ["in.conll"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("how", ["interrupt", "kill"])
def test_what_was_written_before_a_stop_is_kept(
    model: Tagger, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    if how == "kill" and sys.platform == "win32":
        pytest.skip("a kill cannot be handled there")

    class Stopped(Pipeline):
        def stream(self, inputs: Any) -> Iterator[Any]:
            yield from super().stream(inputs)
            if how == "interrupt":
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGTERM)
            yield from super().stream(inputs)

    file = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt if how == "interrupt" else SystemExit):
        run(
            ["MODEL", "Ada was", "--output", str(file)],
            lambda name, *, device: Stopped(model, device="cpu"),
        )
    assert "what was written so far is in" in capsys.readouterr().err
    assert not file.exists()
    assert "Ada" in (tmp_path / "out.partial").read_text(encoding="utf-8")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.skipif(sys.platform == "win32", reason="pipes close otherwise there")
def test_a_reader_that_has_enough_ends_the_work_quietly(
    model: Tagger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stdout = open(writing, "w", encoding="utf-8")  # noqa: SIM115
    monkeypatch.setattr(sys, "stdout", stdout)
    assert run(["MODEL", "Ada", "was"], loader(model)) == 0
    stdout.close()  # as Python does at its end: what was left in memory must trouble nobody
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_full_disk_is_a_sentence(model: Tagger, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("Ada", "Ada" * 10_000):
        with pytest.raises(SeqlabError, match=r"cannot write /dev/full: No space left on device"):
            run(["MODEL", text, "--output", "/dev/full"], loader(model))
    with open("/dev/full", "w", encoding="utf-8") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(SeqlabError, match=r"cannot write to standard output: No space"):
            run(["MODEL", "Ada"], loader(model))


@pytest.mark.parametrize("token", ["a\tb", "a\nb", "a\rb"])
def test_tokens_that_break_columns_are_refused_by_sentence(
    predict: Any, tmp_path: Path, token: str
) -> None:
    file = tmp_path / "x.jsonl"
    records = [{"tokens": ["Ada"]}, {"tokens": ["was", token]}]
    file.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    with pytest.raises(DataError, match=r"sentence 2: the token .* use --format jsonl"):
        predict("--input", str(file), "--format", "conll")
    written = predict("--input", str(file), "--format", "jsonl").splitlines()
    assert json.loads(written[1])["tokens"] == ["was", token]


def test_progress_is_shown_on_a_terminal_only(
    model: Tagger, judge: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seqlab.progress._EVERY", 0.0)
    source = tmp_path / "x.conll"
    source.write_text("Ada\tO\nwas\tO\n\n" * 3, encoding="utf-8")
    for terminal in (True, False):
        said = io.StringIO()
        monkeypatch.setattr(said, "isatty", lambda answer=terminal: answer, raising=False)
        monkeypatch.setattr(sys, "stderr", said)
        run(["MODEL", "--input", str(source), "--output", str(tmp_path / "y")], loader(model))
        assert ("\r3 sentences, " in said.getvalue()) == terminal
        lines = ["MODEL", "--lines", "--input", str(source), "--output", str(tmp_path / "y")]
        run(lines, loader(judge))
        assert ("\r9 texts, " in said.getvalue()) == terminal


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], r"no MODEL is given: name a run folder or a bundle"),
        (["MODEL"], r"nothing to tag: give a text, `--input FILE`, or pipe text in"),
        (["MODEL", "Ada", "--input", "-"], r"TEXT 'Ada' is given beside --input"),
        (["MODEL", "Ada", "--lines"], r"TEXT 'Ada' is given beside --input, --lines or"),
        (["MODEL", "Ada", "--format", "xml"], r"invalid choice: 'xml'"),
        (["MODEL", "Ada", "--precision", "fats"], r"invalid choice: 'fats'"),
        (["MODEL", "Ada", "--out", "x"], r"unrecognized arguments: --out.*`seqlab predict --help`"),
        (["MODEL", "--input", "-", "--columns", "pos"], r"--columns pos: write NAME=VALUE"),
        (["MODEL", "--input", "-", "--lines", "--columns", "a=1"], r"leave one of them out"),
    ],
)
def test_a_wrong_command_is_one_sentence_before_anything_is_loaded(
    argv: list[str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run(argv)


def test_files_are_checked_before_anything_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "x"
    with pytest.raises(DataError, match=r"cannot read .*x: there is no such file"):
        run(["MODEL", "--input", str(file)])
    with pytest.raises(UsageError, match=r"is many files: name a folder with --output"):
        run(["MODEL", "--input", str(tmp_path)])
    file.write_text("Ada", encoding="utf-8")
    with pytest.raises(UsageError, match=r"--input and --output are the same file"):
        run(["MODEL", "--input", str(file), "--output", str(tmp_path / "." / "x")])
    partial = tmp_path / "y.partial"
    partial.write_text("Ada", encoding="utf-8")
    with pytest.raises(UsageError, match=r"--input and --output are the same file"):
        run(["MODEL", "--input", str(partial), "--output", str(tmp_path / "y")])


@pytest.mark.parametrize("name", ["", "missing/x"])
def test_an_output_that_cannot_be_written_is_a_sentence(
    predict: Any, tmp_path: Path, name: str
) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        predict("Ada", "--output", str(tmp_path / name))


def test_a_classifier_puts_its_labels_before_each_text(predict: Any, judge: Classifier) -> None:
    pipeline = Pipeline(judge, device="cpu")
    texts = ["Ada  Lovelace was\nborn in London.", "", "London"]
    written = predict(*texts, model=judge)
    assert written == "".join(f"{found}\n" for found in pipeline(texts))
    lines = written.splitlines()
    assert lines[0].endswith(" | Ada Lovelace was born in London.")
    assert re.fullmatch(r"(good|bad) 0\.\d\d, (good|bad) 0\.\d\d \| London", lines[2])
    plain = predict(*texts, "--no-confidence", model=judge).splitlines()
    assert plain == [f"{pipeline(texts[0]).label} | {lines[0].partition(' | ')[2]}"] + [
        "(no words) |",
        f"{pipeline('London').label} | London",
    ]


def test_json_lines_of_a_classifier_hold_everything(predict: Any, judge: Classifier) -> None:
    text = "Ada in Zürich\u2028\U0001f642\tas\nwell"
    for attending in (judge, classifier("mean")):
        pipeline = Pipeline(attending, device="cpu")
        for arguments in ([], ["--no-confidence"]):
            written = predict(text, "", "--format", "jsonl", *arguments, model=attending)
            pipeline.confidence = not arguments
            found = [json.loads(line) for line in written.rstrip("\n").split("\n")]
            assert found == [pipeline(text).to_dict(), pipeline("").to_dict()]
            assert (found[0]["attention"] is None) == (attending is not judge)
            assert (found[0]["probabilities"] is None) == bool(arguments)


def test_a_table_of_labels_can_be_read_again(
    predict: Any, judge: Classifier, tmp_path: Path
) -> None:
    texts = ['Ada "Lovelace" was', "born, in | London", "'in'"]
    found = Pipeline(judge, device="cpu")(texts)
    written = predict(*texts, "--format", "tsv", model=judge)
    assert [line.split("\t") for line in written.splitlines()] == [
        ["label", "probability", "text"],
        *(
            [str(one.label), f"{(one.probabilities or {})[str(one.label)]:.4f}", one.text]
            for one in found
        ),
    ]
    file = tmp_path / "x.tsv"
    file.write_text(written, encoding="utf-8")
    assert predict("--input", str(file), "--format", "tsv", model=judge) == written
    trained = LabelledReader({}).rows(file, Dirt())
    assert [row.labels for row in trained] == [one.labels for one in found]
    plain = predict(texts[0], "", "--format", "tsv", "--no-confidence", model=judge)
    assert plain == f"label\ttext\n{found[0].label}\t{texts[0]}\n\t\n"


TEXTS = ["Ada was born, in London.", "", "Lovelace, born in 1815, wrote"]


@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        "".join(json.dumps({"label": "a", "text": text}) + "\n" for text in TEXTS),
        "text\tlabel\n" + "".join(f"{text}\tgood\n" for text in TEXTS),
        "id,text\n" + "".join(f'1,"{text}"\n' for text in TEXTS),
        "\r\n".join(TEXTS),
    ],
    ids=["jsonl", "tsv", "csv", "text"],
)
def test_a_classifier_reads_labelled_files_and_lines(
    predict: Any,
    judge: Classifier,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    piped: bool,
) -> None:
    file = tmp_path / "x"
    file.write_text(text, encoding="utf-8", newline="")
    monkeypatch.setattr(sys, "stdin", Stream(text.encode()))
    written = predict("--input", "-" if piped else str(file), model=judge)
    assert written == "".join(f"{found}\n" for found in Pipeline(judge, device="cpu")(TEXTS))


def test_lines_of_columns_are_texts_to_a_classifier(
    predict: Any, judge: Classifier, tmp_path: Path
) -> None:
    file = tmp_path / "x"
    file.write_text("Ada\tO\nwas\tO\n", encoding="utf-8")
    assert [
        line.partition(" | ")[2] for line in predict("--input", str(file), model=judge).splitlines()
    ] == ["Ada O", "was O"]
    file.write_text('{"text": "Ada"}\n', encoding="utf-8")
    assert predict("--input", str(file), "--lines", model=judge).endswith(' | {"text": "Ada"}\n')


def test_the_column_of_the_text_is_named_on_the_command_line(
    predict: Any, judge: Classifier, tmp_path: Path
) -> None:
    file = tmp_path / "x.csv"
    file.write_text("said,text\nAda was,no\n", encoding="utf-8")
    for wanted, text in (("said", "Ada was"), ("0", "Ada was"), ("text", "no")):
        written = predict("--input", str(file), "--columns", f"text={wanted}", model=judge)
        assert written.endswith(f" | {text}\n")
    with pytest.raises(UsageError, match=r"^--columns pos: MODEL is a classifier, which reads one"):
        predict("--input", str(file), "--columns", "text=0", "--columns", "pos=1", model=judge)
    with pytest.raises(DataError, match=r"x\.csv: no column 'sad' for the text.*mean 'said'"):
        predict("--input", str(file), "--columns", "text=sad", model=judge)


def test_several_labels_stand_in_one_cell(predict: Any) -> None:
    several = classifier(labels=("a", "b", "c"), scheme="labels")
    for threshold, value in zip(several.thresholds, (0.0, 0.0, 1.0), strict=True):
        threshold.fill_(value)
    found = Pipeline(several, device="cpu")("Ada was")
    assert sorted(found.labels) == ["a", "b"]
    chances = [f"{(found.probabilities or {})[label]:.4f}" for label in found.labels]
    written = predict("Ada was", "", "--format", "tsv", model=several)
    assert written.splitlines()[1:] == [
        f"{'|'.join(found.labels)}\t{'|'.join(chances)}\tAda was",
        "\t\t",
    ]
    assert predict("Ada was", model=several).startswith(f"*{found.labels[0]} 0.")


@pytest.mark.parametrize("text", ["a\tb", "a\nb", "a\rb"])
def test_texts_that_break_a_table_are_refused(predict: Any, judge: Classifier, text: str) -> None:
    with pytest.raises(DataError, match=r"^text 2: the text holds a tab or a .* --format jsonl"):
        predict("Ada", text, "--format", "tsv", model=judge)
    assert len(predict("Ada", text, "--format", "jsonl", model=judge).splitlines()) == 2


def test_labels_that_break_a_table_are_refused(predict: Any) -> None:
    odd = classifier(labels=("a|b",), scheme="labels")
    odd.thresholds.fill_(0.0)
    with pytest.raises(DataError, match=r"^text 1: the label holds a '\|', which columns cannot"):
        predict("Ada", "--format", "tsv", model=odd)
    parted, broken = (classifier(labels=labels) for labels in (("a|b", "c|d"), ("a\nb", "c\nd")))
    assert predict("Ada", "--format", "tsv", model=parted).splitlines()[1][1] == "|"
    with pytest.raises(DataError, match=r"^text 1: the label holds a tab or a line break"):
        predict("Ada", "--format", "tsv", model=broken)


def test_half_of_a_character_in_a_text_is_named(predict: Any, judge: Classifier) -> None:
    for form in ("text", "tsv"):
        with pytest.raises(DataError, match=r"^text 2 holds '\\udcff'.*--format jsonl"):
            predict("Ada", "was \udcff", "--format", form, model=judge)


def test_attention_is_shown_below_each_text(predict: Any, judge: Classifier) -> None:
    texts = ["Ada was born.", "", "London"]
    first, nothing, last = Pipeline(judge, device="cpu")(texts)
    assert predict(*texts, "--explain", model=judge) == (
        f"{first}\n{weighed_words(first.tokens, first.attention or [])}"
        f"{nothing}\n"
        f"{last}\n{weighed_words(last.tokens, last.attention or [])}"
    )
    assert "  London\n  1.00\n" in predict("London", "--explain", "--no-confidence", model=judge)
    explained = predict(*texts, "--explain", "--format", "jsonl", model=judge)
    assert explained == predict(*texts, "--format", "jsonl", model=judge)


@pytest.mark.parametrize(
    ("terminal", "setting", "arguments", "coloured"),
    [
        (True, None, [], True),
        (True, "", [], True),
        (True, "1", [], False),
        (False, None, [], False),
        (True, None, ["--output", "x"], False),
    ],
)
def test_attention_is_coloured_on_a_terminal_only(
    judge: Classifier,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
    setting: str | None,
    arguments: list[str],
    coloured: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "TERM", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    if setting is not None:
        monkeypatch.setenv("NO_COLOR", setting)
    stdout = io.TextIOWrapper(io.BytesIO(), "utf-8")
    monkeypatch.setattr(stdout, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stdout", stdout)
    assert run(["MODEL", "Ada was", "--explain", *arguments], loader(judge)) == 0
    buffer = stdout.buffer
    assert isinstance(buffer, io.BytesIO)
    written = (tmp_path / "x").read_bytes() if arguments else buffer.getvalue()
    assert (b"\x1b[" in written) == coloured
    plain = re.sub(rb"\x1b\[[0-9;]*m", b"", written).decode()
    assert plain.splitlines()[1].split() == ["Ada", "was"]


def test_what_the_model_cannot_give_is_a_sentence(predict: Any, judge: Classifier) -> None:
    for arguments, asked, message in (
        (
            ["--format", "conll"],
            judge,
            "--format conll writes a tag for every token, and MODEL is "
            "a classifier: use text, tsv or jsonl.",
        ),
        (
            ["--format", "tsv"],
            tagger(),
            "--format tsv writes a label for every text, and MODEL is "
            "a tagger: use text, conll or jsonl.",
        ),
        (
            ["--explain"],
            tagger(),
            "--explain shows the attention of a classifier, and MODEL is a tagger: leave it out.",
        ),
        (
            ["--explain"],
            classifier("mean"),
            "--explain shows attention weights, and MODEL has "
            "none: leave it out, or train the model with model.pooling attention.",
        ),
        (
            ["--explain", "--format", "jsonl"],
            classifier(["max", "last"]),
            "--explain shows "
            "attention weights, and MODEL has none: leave it out, or train the model with "
            "model.pooling attention.",
        ),
        (
            ["--explain", "--format", "tsv"],
            judge,
            "--explain is for the formats text and jsonl, not tsv: leave it out.",
        ),
    ):
        with pytest.raises(UsageError) as error:
            predict("Ada", *arguments, model=asked)
        assert str(error.value) == message
        assert error.value.exit_code == 2


def test_columns_are_numbers_or_names() -> None:
    options = parse(["m", "--input", "-", "--columns", "tokens=-2", "--columns", "pos=a=b"])
    assert options.columns == {"tokens": -2, "pos": "a=b"}


def test_help_and_mistakes_need_no_torch() -> None:
    program = (
        "import sys; from seqlab.predict import run\n"
        "try: run(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'lightning', 'datasets', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--no-confidence" in done.stdout
