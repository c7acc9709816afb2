"""Every error of ``docs/errors.md`` is brought about, and says what the page says."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import shlex
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as lightning
import pytest

from seqlab.__main__ import main
from seqlab.callbacks import RunKeeper
from seqlab.nn.kernels import library
from tests.nn.test_bert import pretrained

PAGE = Path(__file__).resolve().parents[1] / "docs" / "errors.md"
NER = Path(__file__).resolve().parents[1] / "recipes" / "ner.yaml"
GOOD = "Ada\tB-PER\nsaw\tO\nParis\tB-LOC\n.\tO\n\nBob\tB-PER\nslept\tO\n\n"
RECORD = '{"text": "Ada slept.", "spans": [{"start": 0, "end": 3, "label": "PER"}]}\n'
HEADER = "text\tlabel\n"
PAIRS = "The cat sleeps.\tLe chat dort.\nA dog runs.\tUn chien court.\n"
OPINIONS = "What a film.\tpos\nA waste of time.\tneg\n"
TOPICS = (
    '{"text": "The cup final was on all channels.", "labels": ["sports", "media"]}\n'
    '{"text": "The council met.", "labels": []}\n'
)
ENCODER = """
import torch


class Window(torch.nn.Module):
    def __init__(self, input_size):
        super().__init__()
        self.output_size = 4
        self.mix = torch.nn.Linear(input_size, 4)

    def forward(self, x, lengths):
        return self.mix(x)
"""
TEXT = "Ada Lovelace was born in London."
ODD = "I \U0001f469\u200d\U0001f680 fly\x00 to\x07 Pa\u0301ris \u202eand\u200b back\x1f.\n"
LONG = 100_000
BUNDLE = Path("runs/ner/1/bundle")

pytestmark = pytest.mark.skipif(
    not PAGE.is_file(), reason="an installed package carries no documentation"
)


class Entry(NamedTuple):
    """An error as the page tells it."""

    title: str
    command: str
    said: str
    code: int


def entries_of(page: str) -> list[Entry]:
    """Read the page: heading, block of a command and what it says, exit code."""
    pattern = r"### (.+)\n\n```text\n\$ seqlab (.+)\n((?:.*\n)*?)```\n\nExit code (\d)\. \S"
    return [Entry(t, c, s, int(n)) for t, c, s, n in re.findall(pattern, page)]


ENTRIES = entries_of(PAGE.read_text(encoding="utf-8")) if PAGE.is_file() else []
Prepare = Callable[[pytest.MonkeyPatch], object]


def write(name: str, content: str | bytes) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def file(name: str, content: str | bytes) -> Prepare:
    return lambda patch: write(name, content)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """What is said while an entry is prepared is not what the page shows."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        yield


def both(*steps: Prepare) -> Prepare:
    return lambda patch: [step(patch) for step in steps]


def splits(form: str, good: str, files: Mapping[str, str | bytes]) -> Prepare:
    """A folder of good splits, but for those that are given; ``_`` stands for the dot."""

    def prepare(patch: pytest.MonkeyPatch) -> None:
        whole = {f"{split}_{form}": good for split in ("train", "dev", "test")}
        whole = {k: v for k, v in whole.items() if k[:3] not in {name[:3] for name in files}}
        for name, content in {**whole, **files}.items():
            if content != "none":
                write(f"my_corpus/{name.replace('_', '.')}", content)

    return prepare


def corpus(**files: str | bytes) -> Prepare:
    """A corpus of tagged sentences."""
    return splits("conll", GOOD * 20, files)


def texts(**files: str | bytes) -> Prepare:
    """A corpus of labelled texts."""
    return splits("tsv", HEADER + OPINIONS * 20, files)


def first(lines: str) -> Prepare:
    """A corpus whose training file begins with some lines."""
    return corpus(train_conll=lines + GOOD * 20)


def records(line: str) -> Prepare:
    return corpus(train_jsonl=RECORD + line + RECORD * 20)


def recipe(name: str, old: str, new: str) -> Prepare:
    text = NER.read_text(encoding="utf-8")
    assert old in text
    return file(name, text.replace(old, new))


def started(patch: pytest.MonkeyPatch) -> None:
    """A run in its first epoch."""
    Path("runs/ner/1").mkdir(parents=True)
    Path("runs/ner/latest").symlink_to("1")
    shutil.copyfile(NER, "runs/ner/1/recipe.yaml")


def trained(harm: Callable[[], object] = lambda: None) -> Prepare:
    """The folder with a trained model, and what was done to that."""

    def prepare(patch: pytest.MonkeyPatch) -> None:
        shutil.copytree(Path("../models/plain"), "runs", symlinks=True)
        harm()

    return prepare


def model(name: str) -> Prepare:
    """Another of the trained models."""
    return lambda patch: shutil.copytree(Path("../models", name), "runs", symlinks=True)


def typed(patch: pytest.MonkeyPatch) -> None:
    """A terminal, into which nobody types."""
    terminal = io.StringIO()
    patch.setattr(terminal, "isatty", lambda: True)
    patch.setattr(sys, "stdin", terminal)


def flip() -> None:
    file = BUNDLE / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def unscored() -> None:
    """As a run is left that was stopped: its best model is there, its scores are not."""
    file = BUNDLE / "metrics.json"
    metrics = json.loads(file.read_text(encoding="utf-8"))
    del metrics["split"]
    file.write_text(json.dumps(metrics), encoding="utf-8")


def second() -> None:
    """A run on another corpus, by the same recipe."""
    write("my_corpus/train.conll", GOOD * 20)
    write("my_corpus/dev.conll", GOOD * 5)
    write("my_corpus/test.conll", GOOD * 10)
    few = ["--trainer.max_epochs", "1", "--model.hidden_size", "8"]
    with silent():
        assert main(["fit", "ner", "--data.path", "my_corpus", *few]) == 0


def configured(**changes: object) -> Callable[[], None]:
    def change() -> None:
        file = BUNDLE / "config.json"
        config = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps({**config, **changes}), encoding="utf-8")

    return change


def interrupted(epoch: int) -> Prepare:
    """Ctrl-C in an epoch."""

    def prepare(patch: pytest.MonkeyPatch) -> None:
        def hook(keeper: RunKeeper, trainer: lightning.Trainer, *rest: Any) -> None:
            if trainer.current_epoch == epoch:
                raise KeyboardInterrupt

        patch.setattr(RunKeeper, "on_validation_start", hook)

    return prepare


def full_disk(patch: pytest.MonkeyPatch) -> None:
    save = lightning.Trainer.save_checkpoint

    def full(trainer: lightning.Trainer, *arguments: Any, **options: Any) -> None:
        if trainer.current_epoch == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(trainer, *arguments, **options)

    patch.setattr(lightning.Trainer, "save_checkpoint", full)


def offline(patch: pytest.MonkeyPatch) -> None:
    """No network: what the library datasets then raises."""
    import datasets

    def load(*arguments: object, **options: object) -> None:
        raise ConnectionError("Couldn't reach the Hub")

    patch.setattr(datasets, "load_dataset", load)


def encoder(patch: pytest.MonkeyPatch) -> None:
    """A small encoder in the folder my_bert."""
    with silent():
        pretrained(Path("my_bert"))


def without_minilm(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("seqlab.nn.bert._PACKAGE", "no_such_package_of_an_encoder")


def without_peft(patch: pytest.MonkeyPatch) -> None:
    encoder(patch)
    patch.setitem(sys.modules, "peft", None)


def unreachable(patch: pytest.MonkeyPatch) -> None:
    """No network: what the library huggingface_hub then raises."""
    import huggingface_hub

    def download(*arguments: object, **options: object) -> None:
        raise ConnectionError("Got: ConnectError: [Errno -2] Name or service not known")

    patch.setattr(huggingface_hub, "snapshot_download", download)


def no_gpu(patch: pytest.MonkeyPatch) -> None:
    import torch

    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("this machine has a GPU")


def no_cuda(patch: pytest.MonkeyPatch) -> None:
    no_gpu(patch)
    trained()(patch)


def compiling(compiler: str, kernels: str = "auto") -> Prepare:
    """A trained model, no kernels in the cache, and a C++ compiler to build them with."""

    def prepare(patch: pytest.MonkeyPatch) -> None:
        no_cuda(patch)
        patch.setattr(library, "_loaded", [])
        patch.setattr(library, "_said", set())
        patch.setenv("SEQLAB_CACHE", "cache")
        patch.setenv("CXX", compiler)
        patch.setenv("SEQLAB_KERNELS", kernels)

    return prepare


def failing(patch: pytest.MonkeyPatch) -> None:
    if os.name == "nt":
        pytest.skip("the compiler is a shell script here")
    said = "c++: fatal error: cannot execute 'cc1plus': No such file or directory"
    write("c++", f'#!/bin/sh\necho "{said}" >&2\nexit 1\n')
    Path("c++").chmod(0o755)
    compiling("./c++")(patch)


def unkept(patch: pytest.MonkeyPatch) -> None:
    """What is compiled is there already, as the compiler needs some seconds."""
    if library.obstacle() or library._compiler() is None or os.name == "nt":
        pytest.skip(f"no compiler, or no compiled kernels: {library.obstacle()}")
    built = Path(library.library()._name).read_bytes()
    compiling("")(patch)

    def compiled(compiler: object, folder: Path) -> Path:
        (folder / "kernels.so").write_bytes(built)
        return folder / "kernels.so"

    patch.setattr(library, "_built", compiled)
    write("cache/kernels", "a file in the way")


def occupied(patch: pytest.MonkeyPatch) -> None:
    if os.name == "nt":
        pytest.skip("the system's own words are others")
    write("runs", "a file in the way")


def installed(*folders: str) -> Prepare:
    """A model that is packed, and unpacked as pip does it into folders that Python looks in."""

    def prepare(patch: pytest.MonkeyPatch) -> None:
        named = ["--name", "en-try", "--version", "1.0.0"]
        with silent():
            assert main(["package", "runs/ner/latest", *named]) == 0
        for folder in folders:
            with zipfile.ZipFile("dist/en_try-1.0.0-py3-none-any.whl") as wheel:
                wheel.extractall(folder)
            patch.syspath_prepend(folder)

    return prepare


def changed(patch: pytest.MonkeyPatch) -> None:
    with open("site/seqlab_models/en_try/target_vocab.json", "a", encoding="utf-8") as out:
        out.write(" ")


PREPARE: dict[str, Prepare] = {
    "A key without a value": corpus(),
    "An unknown key in a recipe": recipe("mine.yaml", "hidden_size", "hiden_size"),
    "A recipe that is not valid YAML": recipe("broken.yaml", "model:", "model: ["),
    "A class that does not exist": recipe("other.yaml", "seqlab.Tagger", "seqlab.Taggr"),
    "A copy that would overwrite a file": file("mine.yaml", "mine"),
    "A folder or file that does not exist": corpus(),
    "A dataset of the hub without a network": offline,
    "An environment variable that is not set": lambda patch: patch.delenv("SEQLAB_DATA", False),
    "A folder without splits": file("my_corpus/corpus.conll", GOOD),
    "A folder without a training split": corpus(train_conll="none"),
    "A file that is joined twice": corpus(),
    "Two files for one split": corpus(train_conll=GOOD, train_txt=GOOD),
    "A test split that is not there": both(trained(), corpus(test_conll="none")),
    "An empty file": corpus(train_conll="\n\n"),
    "A line with too few or too many columns": first("Ada\tB-PER\nslept\n\n"),
    "A file without a column of tags": corpus(train_conll="Ada\nslept\n\nBob\nslept\n\n" * 20),
    "A column that is not there": corpus(),
    "A tag outside the scheme": first("Ada\tPERSON\nslept\tO\n\n"),
    "Schemes that are mixed": first("A.\tB-PER\nB.\tE-PER\n\nA.\tB-PER\nB.\tL-PER\n\n"),
    "A label that the recipe does not list": corpus(),
    "Another name for a label that is not there": corpus(),
    "A file that is not UTF-8": corpus(train_conll=b"Jos\xe9\tB-PER\n\n" + GOOD.encode() * 20),
    "A line that is not JSON": records(RECORD[:20] + "\n"),
    "Tokens and tags that differ in number": corpus(
        train_jsonl='{"tokens": ["Ada", "slept"], "tags": ["B-PER"]}\n'
    ),
    "A span outside its text": records(RECORD.replace("3", "30")),
    "Spans that overlap": records(RECORD.replace("[", '[{"start": 0, "end": 9, "label": "ORG"}, ')),
    "Too few sentences to hold some out": file("my_corpus/train.conll", GOOD),
    "Texts that all have the same label": texts(train_tsv=HEADER + "What a film.\tpos\n" * 20),
    "A corpus without a column of labels": texts(train_tsv="text\tstars\n" + OPINIONS * 20),
    "A table without names of columns": texts(train_tsv=OPINIONS * 20),
    "A text without labels in a corpus of several labels": texts(
        train_jsonl=TOPICS + '{"text": "It rains."}\n' + TOPICS * 20
    ),
    "A text with an empty label": texts(train_tsv=HEADER + "So so.\t\n" + OPINIONS * 20),
    "Several labels where one is expected": texts(train_jsonl=TOPICS * 20),
    "A list of labels in a cell": texts(
        train_csv="text,label\nThe cup final.,\"['sports', 'media']\"\n"
    ),
    "A corpus of texts without a word": texts(train_jsonl='{"text": " ", "label": "pos"}\n' * 20),
    "Labelled texts for a tagger": texts(),
    "A line of vectors that is too short or too long": file(
        "vectors.txt", "the 0.1 0.2 0.3\nof 0.1 0.2\n"
    ),
    "An encoder that is not installed": without_minilm,
    "Low-rank changes without their package": without_peft,
    "An encoder of the hub without a network": unreachable,
    "A model that is no encoder": file("my_gpt/config.json", '{"model_type": "gpt2"}'),
    "An unknown key of an encoder": encoder,
    "No GPU": no_gpu,
    "Ctrl-C": interrupted(1),
    "Ctrl-C before the first epoch is over": interrupted(0),
    "A disk that is full": full_disk,
    "A folder that cannot be written": occupied,
    "A run without a checkpoint": started,
    "A checkpoint that is damaged": trained(lambda: write("runs/ner/1/last.ckpt", "PK\x03\x04")),
    "A checkpoint of another model": trained(),
    "A model that is nothing": trained(),
    "A run without a model": started,
    "A model with a changed byte": trained(flip),
    "A model with a missing file": trained(lambda: (BUNDLE / "model.safetensors").unlink()),
    "A model that names code of others": trained(configured(**{"class": "elsewhere.Tagger"})),
    "A model of a newer seqlab": trained(configured(format=3, seqlab="9.0")),
    "A corpus without a column that the model needs": both(model("featured"), corpus()),
    "An input that is not UTF-8": both(
        trained(), file("latin1.txt", "Ada was in Paris.\nJosé was in London.\n".encode("latin1"))
    ),
    "An input that does not exist": trained(),
    "Raw text for a model that needs another column": both(model("featured"), corpus()),
    "A tab inside a token": both(
        trained(), file("tab.jsonl", '{"tokens": ["Ada\\tLovelace", "slept"]}\n')
    ),
    "An output in a folder that does not exist": trained(),
    "A pattern that no file fits": both(trained(), corpus()),
    "Many files without a folder for the answers": corpus(),
    "A folder with other files than answers": both(
        trained(), file("my_corpus/a.txt", TEXT), file("answers/notes.txt", "mine")
    ),
    "A cluster without Ray": both(corpus(), lambda patch: patch.setitem(sys.modules, "ray", None)),
    "A device that is not there": no_cuda,
    "More processes than sentences": corpus(),
    "Scoring in several processes": trained(),
    "Kernels that do not exist": compiling("", kernels="nativ"),
    "Compiled kernels that cannot be had": compiling("/nonexistent/c++", kernels="native"),
    "Attention of a model that has none": model("labelled"),
    "A format of another task": model("labelled"),
    "An option of another task": trained(),
    "A beam without a place": model("translating"),
    "More translations than the beam holds": model("translating"),
    "A model of other languages": model("translating"),
    "An input without a text": both(model("translating"), file("empty.txt", "")),
    "No text to explain": both(trained(), typed),
    "A text without a word": trained(),
    "A layer that does not exist": trained(),
    "An encoder of another package": model("own"),
    "Nothing to compare with": trained(),
    "A name that pip would refuse": trained(),
    "A version that is none": trained(),
    "A run without its final scores": trained(unscored),
    "A model that was changed after it was packed": both(trained(), installed("site"), changed),
    "Two installed models of one name": both(trained(), installed("site", "other")),
    "A run that was never finished": trained(unscored),
    "Models of other tasks": trained(lambda: shutil.copytree("../texts", "texts")),
    "Models of other corpora": trained(second),
    "A line of 100,000 tokens": both(trained(), file("long.txt", "word " * (LONG - 1) + "end\n")),
    "Emoji and control characters": both(trained(), file("odd.txt", ODD)),
    "No C++ compiler": compiling("/nonexistent/c++"),
    "A C++ compiler that fails": failing,
    "A cache that cannot be written": unkept,
    "A corpus without a validation and a test split": file("my_corpus/train.conll", GOOD * 20),
    "Labels that the model has never seen": both(
        trained(), corpus(test_conll=GOOD.replace("LOC", "PLANET") * 3)
    ),
    "Labels that only the validation split has": texts(
        dev_tsv=HEADER + "So so.\tneutral\n" + OPINIONS * 20
    ),
}


def columns_of(name: str) -> list[list[str]]:
    lines = Path(name).read_text(encoding="utf-8").split("\n")
    return [line.split("\t") for line in lines if line]


def check_long() -> None:
    rows = columns_of("long.conll")
    assert [row[0] for row in rows] == ["word"] * (LONG - 1) + ["end"]
    assert {len(row) for row in rows} == {2}


def check_odd() -> None:
    (line,) = Path("odd.jsonl").read_text(encoding="utf-8").splitlines()
    found = json.loads(line)
    assert found["text"] == ODD.removesuffix("\n")
    assert found["tokens"] == ["I", ODD[2:5], "fly", "to", "Pa\u0301ris", "and", "back", "."]
    assert [found["text"][a:b] for a, b in found["offsets"]] == found["tokens"]


def check_model() -> None:
    assert main(["predict", "runs/ner/latest", TEXT]) == 0


CHECK: dict[str, Callable[[], None]] = {
    "Ctrl-C": check_model,
    "A disk that is full": check_model,
    "A line of 100,000 tokens": check_long,
    "Emoji and control characters": check_odd,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, working_in: Any) -> Iterator[Path]:
    """The folder with one folder an entry, beside ``models``.

    They are a plain tagger, one with a feature, one with an encoder of its own, a classifier
    without attention, and a translator.
    """
    folder = tmp_path_factory.mktemp("errors")
    with working_in(folder) as patch:
        patch.syspath_prepend(folder)
        write("my_encoders.py", ENCODER)
        for split in ("train", "dev", "test"):
            write(f"columns/{split}.conll", "Ada\tNNP\tB-PER\nslept\tVBD\tO\n\n" * 20)
            write(f"texts/{split}.tsv", HEADER + OPINIONS * 20)
            write(f"pairs/{split}.tsv", PAIRS * 20)
        columns = "--data.path columns --data.columns '{tokens: 0, pos: 1, tags: 2}'"
        for name, command in {
            "plain": "fit ner --model.hidden_size 20",
            "featured": f"fit ner --model.hidden_size 8 {columns}",
            "own": "fit ner --data.path columns --model.encoder.class_path my_encoders.Window",
            "labelled": "fit sentiment --data.path texts --model.pooling mean",
            "translating": "fit translate --data.path pairs --data.vocabulary_size 270 "
            "--model.hidden_size 8 --model.embedding_size 8 --model.decoder_size 8",
        }.items():
            patch.setenv("SEQLAB_RUNS", f"models/{name}")
            shown = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "3"]
            assert main([*shlex.split(command), *shown]) == 0
    yield folder
    del sys.modules["my_encoders"]


@pytest.fixture
def place(
    home: Path, request: pytest.FixtureRequest, working_in: Any
) -> Iterator[pytest.MonkeyPatch]:
    """An empty folder to work in."""
    folder = home / re.sub(r"\W", "", request.node.name)
    folder.mkdir()
    with working_in(folder) as patch:
        yield patch


def pattern_of(said: str) -> str:
    """What the page shows as a pattern: ``...`` stands for any lines."""
    return "".join(
        r"(?:.*\n)*" if line == "..." else re.escape(f"{line}\n") for line in said.splitlines()
    )


def marked(entry: Entry) -> Any:
    marks = [pytest.mark.slow] if "100,000" in entry.title else []
    return pytest.param(entry, marks=marks, id=entry.title)


@pytest.mark.parametrize("entry", [marked(entry) for entry in ENTRIES])
def test_an_error_says_what_the_page_says(
    entry: Entry, place: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if entry.title in PREPARE:
        PREPARE[entry.title](place)
    before = sorted(Path().rglob("*"))
    assert main(shlex.split(entry.command)) == entry.code
    output, said = capsys.readouterr()
    said = said.replace(str(Path.cwd().resolve()), "/home/ada").replace(os.sep, "/")
    assert re.fullmatch(pattern_of(entry.said), said), said
    if entry.code:
        assert output == ""
        assert all(re.match(r"seqlab: |epoch \d+: ", line) for line in said.splitlines())
    if entry.code == 2:
        assert sorted(Path().rglob("*")) == before  # a wrong command leaves nothing behind
    if entry.title in CHECK:
        CHECK[entry.title]()


def test_the_page_has_all_its_entries() -> None:
    text = PAGE.read_text(encoding="utf-8")
    titles = [entry.title for entry in ENTRIES]
    assert titles == re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert len(titles) == len(set(titles)) == 132
    assert set(PREPARE) <= set(titles)
    assert set(CHECK) <= set(titles)


def test_every_sentence_is_one_line_with_a_remedy() -> None:
    for entry in ENTRIES:
        last = entry.said.splitlines()[-1:]
        assert (last != []) or entry.code == 0, entry.title
        for line in entry.said.splitlines():
            assert line == "..." or line.startswith("seqlab: "), entry.title
        if entry.code:
            assert re.search(r"[.?]$", last[0]), entry.title
            assert len(re.findall(r"[:;,.?] ", last[0])) >= 2, entry.title


def test_the_contents_of_the_page_lead_to_its_sections() -> None:
    text = PAGE.read_text(encoding="utf-8")
    sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
    links = re.findall(r"\[([^\]]+)\]\(#([^)]+)\)", text)
    assert [title for title, _ in links] == sections
    assert [anchor for _, anchor in links] == [s.lower().replace(" ", "-") for s in sections]
