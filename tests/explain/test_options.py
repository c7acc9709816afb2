from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from seqlab.errors import DataError, UsageError
from seqlab.explain.options import Options, parse, read_text


def piped(patch: pytest.MonkeyPatch, data: bytes) -> None:
    patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), "utf-8"))


def test_a_model_and_a_text_are_enough() -> None:
    assert parse(["runs/ner/latest", "It rains."]) == Options("runs/ner/latest", "It rains.")


def test_options_may_stand_anywhere() -> None:
    words = "--from 2 model --layer 1 text --direction backward --unit 3 --to 5 --json --trust"
    assert parse([*words.split(), "--html", "p.html"]) == Options(
        "model", "text", None, 2, 5, 1, "backward", 3, True, "p.html", True
    )


def test_pieces_can_be_asked_for() -> None:
    assert parse(["model", "text", "--pieces"]) == Options("model", "text", pieces=True)
    with pytest.raises(UsageError, match="--pieces is given beside --cost, which looks at no"):
        parse(["model", "--cost", "--pieces"])


def test_after_two_hyphens_everything_is_text() -> None:
    assert parse(["model", "--json", "--", "--to"]) == Options("model", "--to", json=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no MODEL is given: name a run folder or a bundle, and a text."),
        (["m", "a", "b"], "TEXT 'a' is given beside 'b': explain takes one text; quote a text"),
        (["m", "a", "--input", "f"], "TEXT 'a' is given beside --input: explain takes one text"),
        (["m", "a", "--unit", "0"], "'0' is no whole number from 1 on; see `seqlab explain"),
        (["m", "a", "--from", "-3"], "expected one argument|no whole number"),
        (["m", "a", "--layer", "two"], "argument --layer: 'two' is no whole number from 1 on"),
        (["m", "a", "--from", "5", "--to", "4"], "--from 5 is after --to 4: swap them."),
        (["m", "a", "--htm", "f"], "unrecognized arguments: --htm"),
    ],
)
def test_what_is_written_wrongly_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse(words)


def test_no_text_at_a_terminal_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match="no text to explain: give a text, `--input FILE`, or"):
        parse(["model"])


def test_what_is_piped_in_is_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    piped(monkeypatch, "\ufeffJosé\nslept.".encode())
    options = parse(["model"])
    assert options.input == "-"
    assert read_text(options) == "José\nslept."


def test_a_file_is_one_text(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("It rains.\nIt pours.\n", encoding="utf-8")
    assert read_text(parse(["model", "--input", str(file)])) == "It rains.\nIt pours.\n"


def test_a_text_that_is_given_is_the_text() -> None:
    assert read_text(Options("model", text="")) == ""


@pytest.mark.parametrize("name", ["-", "latin1.txt"])
def test_other_encodings_are_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = "José".encode("latin1")
    Path("latin1.txt").write_bytes(data)
    piped(monkeypatch, data)
    said = "standard input" if name == "-" else name
    with pytest.raises(DataError, match=rf"{said}: not UTF-8 \(.*at byte 4\); convert it"):
        read_text(Options("model", input=name))


@pytest.mark.parametrize("name", ["nothing.txt", "."])
def test_a_file_that_cannot_be_read_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"cannot read {name}: .*; name a file of text\."):
        read_text(Options("model", input=name))


def test_help_tells_every_option(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    shown = capsys.readouterr().out
    for option in ("--input", "--from", "--to", "--layer", "--direction", "--unit", "--json"):
        assert f"{option} " in shown
    assert "--html FILE" in shown
