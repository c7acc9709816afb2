"""fit, validate and test, through the command line: what a run leaves, says and scores."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml

import seqlab
from seqlab.__main__ import main
from seqlab.bundle import load_bundle
from seqlab.data.formats import read_rows
from seqlab.errors import BundleError, RecipeError, SeqlabError, UsageError
from seqlab.training import run as verb

NER = Path(__file__).resolve().parents[1] / "recipes" / "ner.yaml"
SAMPLE = Path(seqlab.__file__).parent / "samples" / "ner"
SMALL = ["--model.hidden_size", "24", "--model.character_size", "20"]
ROWS = (
    "Ada\tNNP\tB-PER\nslept\tVBD\tO\n.\t.\tO\n\nBob\tNNP\tB-PER\nsaw\tVBD\tO\nRome\tNNP\tB-LOC\n\n"
)
TEXT = "Ada Lovelace was born in London."


class Run(NamedTuple):
    """A run of the recipe ``ner``, made in ``home``, and what it said."""

    home: Path
    out: str
    err: str

    @property
    def folder(self) -> Path:
        return self.home / "runs" / "ner" / "1"

    @property
    def metrics(self) -> dict[str, Any]:
        return read_json(self.folder / "metrics.json")


def read_json(file: Path) -> dict[str, Any]:
    data = json.loads(file.read_text(encoding="utf-8"))
    assert isinstance(data, dict)
    return data


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, working_in: Any) -> Run:
    """Some epochs on the sample: enough for scores between nothing and all."""
    home = tmp_path_factory.mktemp("home")
    out, err = io.StringIO(), io.StringIO()
    with working_in(home), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main(["fit", "ner", "--trainer.max_epochs", "3", *SMALL]) == 0
    return Run(home, out.getvalue(), err.getvalue())


@pytest.fixture
def inside(fitted: Run, working_in: Any, tmp_path: Path) -> Iterator[Run]:
    """A copy of the run, to be worked on."""
    shutil.copytree(fitted.home, tmp_path, symlinks=True, dirs_exist_ok=True)
    with working_in(tmp_path):
        yield Run(tmp_path, fitted.out, fitted.err)


@pytest.fixture
def place(working_in: Any, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    with working_in(tmp_path) as patch:
        yield patch


def write_corpus(
    folder: str = "my_corpus", splits: tuple[str, ...] = ("train", "dev", "test")
) -> None:
    Path(folder).mkdir()
    for split in splits:
        rows = [re.sub(r"\t.*\t", "\t", line) for line in (ROWS * 15).splitlines()]
        Path(folder, f"{split}.conll").write_text("\n".join(rows) + "\n", encoding="utf-8")


# What a run leaves.


def test_a_run_leaves_its_folder(fitted: Run) -> None:
    assert sorted(path.name for path in fitted.folder.parent.iterdir()) == ["1", "latest"]
    assert sorted(path.name for path in fitted.folder.iterdir()) == [
        "bundle",
        "history.jsonl",
        "last.ckpt",
        "metrics.json",
        "recipe.yaml",
    ]
    assert sorted(path.name for path in (fitted.folder / "bundle").iterdir()) == [
        "README.md",
        "config.json",
        "metrics.json",
        "model.safetensors",
        "recipe.yaml",
        "source_vocab.json",
        "target_vocab.json",
    ]
    assert (fitted.folder.parent / "latest").resolve() == fitted.folder.resolve()


@pytest.mark.skipif(os.name == "nt", reason="permissions are others there")
def test_whoever_may_read_the_folder_may_read_the_model(fitted: Run) -> None:
    modes = {
        path.name: path.stat().st_mode & 0o777 for path in (fitted.folder / "bundle").iterdir()
    }
    assert len(set(modes.values())) == 1, modes


def test_metrics_say_what_was_scored_and_how(fitted: Run) -> None:
    metrics = fitted.metrics
    assert set(metrics) == {
        *(
            f"{s}/{k}"
            for s in ("val", "test")
            for k in ("accuracy", "sentence_accuracy", "span_f1")
        ),
        *(f"{s}/{k}" for s in ("val", "test") for k in ("precision", "recall", "macro_f1")),
        *(f"{s}/{k}" for s in ("val", "test") for k in ("per_type", "scorer", "tokens_per_second")),
        *(
            f"{s}/{k}"
            for s in ("val", "test")
            for k in ("ece", "ece_uncalibrated", "reliability", "temperature", "abstention")
        ),
        *(
            "seed",
            "data",
            "data_digests",
            "commit",
            "versions",
            "hardware",
            "split",
            "monitor",
            "best_epoch",
            "epochs",
            "processes",
        ),
        *("parameters", "train/seconds", "train/tokens_per_second", "train/padding"),
        "peak_memory_mb",
    }
    assert metrics["seed"] == 13
    assert metrics["data"] == "sample:ner"
    assert metrics["split"] == "test"
    assert metrics["epochs"] == 3
    assert 0.05 < metrics["test/span_f1"] < 0.95
    assert "seqeval strict" in metrics["test/scorer"]
    assert metrics["val/ece"] <= metrics["val/ece_uncalibrated"] + 0.05
    bundle = read_json(fitted.folder / "bundle" / "config.json")
    assert bundle["arguments"]["temperature"] == metrics["test/temperature"] != 1.0
    assert read_json(fitted.folder / "bundle" / "metrics.json") == metrics


def test_the_history_has_a_line_an_epoch(fitted: Run) -> None:
    lines = (fitted.folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    history = [json.loads(line) for line in lines]
    assert [row["epoch"] for row in history] == [0, 1, 2]
    best = max(history, key=lambda row: float(row["val/span_f1"]))
    assert best["epoch"] == fitted.metrics["best_epoch"]
    assert best["val/span_f1"] == pytest.approx(fitted.metrics["val/span_f1"], abs=1e-6)


def test_the_table_and_the_next_commands_are_printed(fitted: Run) -> None:
    f1 = fitted.metrics["test/span_f1"]
    assert f"span F1           {f1:.2%}" in fitted.out
    assert re.search(r"^PER +\d", fitted.out, re.MULTILINE)
    assert fitted.out.split("next:\n")[1].splitlines() == [
        f'  seqlab predict {Path("runs/ner/latest")} "{TEXT}"',
        f"  seqlab test {Path('runs/ner/latest')} --data.path sample:ner",
    ]


def test_progress_is_told_on_standard_error(fitted: Run) -> None:
    first, *epochs, last = fitted.err.splitlines()
    assert re.fullmatch(
        r"seqlab: Tagger of [\d,]+ parameters; the run is kept in runs.ner.1", first
    )
    pattern = r"epoch (\d): loss \d+\.\d{3}, val/span_f1 0\.\d{4}( \(best\))?, [\d,]+ tokens/s"
    assert [re.fullmatch(pattern, line)[1] for line in epochs] == ["0", "1", "2"]  # type: ignore[index]
    assert re.fullmatch(r"seqlab: .*padding.*", last)


def test_the_next_commands_run(inside: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for line in inside.out.split("next:\n")[1].splitlines():
        name, *words = shlex.split(line)
        assert name == "seqlab"
        assert main(words) == 0
    out = capsys.readouterr().out
    assert "Ada Lovelace" in out
    assert f"span F1           {inside.metrics['test/span_f1']:.2%}" in out


def test_the_bundle_is_the_best_epoch(inside: Run) -> None:
    recipe = yaml.safe_load((inside.folder / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["model"]["init_args"]["hidden_size"] == 24
    assert load_bundle("runs/ner/latest").config["hidden_size"] == 24


def test_the_kept_recipe_makes_the_same_run(inside: Run) -> None:
    shutil.copyfile(inside.folder / "recipe.yaml", "again.yaml")
    assert main(["fit", "again.yaml"]) == 0
    one, other = (load_bundle(f"runs/{name}/1").state_dict() for name in ("ner", "again"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    again = yaml.safe_load(Path("runs/again/1/recipe.yaml").read_text(encoding="utf-8"))
    assert again == yaml.safe_load((inside.folder / "recipe.yaml").read_text(encoding="utf-8"))


def test_another_seed_makes_another_run(inside: Run) -> None:
    words = ["--seed_everything", "14", "--trainer.max_epochs", "1", *SMALL]
    assert main(["fit", "ner", *words]) == 0
    assert (inside.home / "runs/ner/latest").resolve().name == "2"
    assert read_json(Path("runs/ner/2/metrics.json"))["seed"] == 14
    one, other = (load_bundle(f"runs/ner/{n}").state_dict() for n in (1, 2))
    assert not torch.equal(one["emit.weight"], other["emit.weight"])


# Scores.


@pytest.mark.parametrize(("stage", "name"), [("val", "validate"), ("test", "test")])
def test_a_model_is_scored_as_its_run_was(
    stage: str, name: str, inside: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for model in ("runs/ner/latest", "runs/ner/1/bundle", "ner"):
        assert main([name, model, "--json"]) == 0
        out, err = capsys.readouterr()
        found = json.loads(out)  # one object and nothing else
        assert err == ""
        for key in ("accuracy", "sentence_accuracy", "span_f1", "per_type", "scorer"):
            assert found[f"{stage}/{key}"] == inside.metrics[f"{stage}/{key}"]
        assert found["split"] == ("validation" if stage == "val" else "test")


def test_a_model_with_word_vectors_is_scored_without_them(
    place: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus()
    vectors = Path("vectors.txt")
    vectors.write_text("ada 0.1 0.2 0.3\nlondon 0.4 0.5 0.6\n", encoding="utf-8")
    words = ["--data.path", "my_corpus", "--data.vectors", str(vectors)]
    assert main(["fit", "ner", *words, "--trainer.max_epochs", "1", *SMALL]) == 0
    vectors.unlink()
    capsys.readouterr()
    assert main(["test", "ner", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    metrics = read_json(Path("runs/ner/1/metrics.json"))
    for key in ("test/span_f1", "test/accuracy", "test/ece", "test/abstention"):
        assert found[key] == metrics[key]


def test_scores_are_a_table_for_people(inside: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "ner"]) == 0
    out, err = capsys.readouterr()
    assert f"span F1           {inside.metrics['test/span_f1']:.2%}" in out
    assert "split             test" in out
    assert err == ""


def test_a_name_means_the_newest_run(inside: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "ner", "--trainer.max_epochs", "1", *SMALL]) == 0
    capsys.readouterr()
    assert main(["test", "ner", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    newest = read_json(Path("runs/ner/2/metrics.json"))
    assert found["test/span_f1"] == newest["test/span_f1"] != inside.metrics["test/span_f1"]


def test_what_is_predicted_has_the_score_that_was_printed(inside: Run) -> None:
    """The longest way round: columns in, columns out, read again and scored by hand."""
    shutil.copyfile(SAMPLE / "test.conll", "test.conll")
    words = ["--input", "test.conll", "--format", "conll", "--output", "predicted.conll"]
    assert main(["predict", "runs/ner/latest", *words]) == 0
    gold, predicted = (list(read_rows(Path(f"{n}.conll"))) for n in ("test", "predicted"))
    assert [row.tokens for row in gold] == [row.tokens for row in predicted]
    metric = seqlab.SpanF1(["PER", "LOC", "ORG", "MISC"], scheme="iob2")
    metric.update([row.tags or [] for row in predicted], [row.tags or [] for row in gold])
    expected = {key: value.item() for key, value in metric.compute().items()}
    for key in ("span_f1", "precision", "recall"):
        assert inside.metrics[f"test/{key}"] == pytest.approx(expected[key], abs=1e-6)


def test_predictions_are_a_corpus(inside: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Path("predicted").mkdir()
    for split in ("train", "dev", "test"):
        words = ["--input", str(SAMPLE / f"{split}.conll"), "--format", "conll"]
        assert main(["predict", "ner", *words, "--output", f"predicted/{split}.conll"]) == 0
    assert main(["test", "ner", "--data.path", "predicted", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test/span_f1"] == 1.0


@pytest.mark.parametrize("form", ["text", "conll", "jsonl"])
def test_every_format_keeps_the_text(
    form: str, inside: Run, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    text = "Zoë saw 東京 \U0001f469\u200d\U0001f680 at 5\u00a0p.m."
    assert main(["predict", "ner", text, TEXT, "--format", form]) == 0
    out = capsysbinary.readouterr().out.decode()
    if form == "text":
        assert [re.sub(r"\[([^]]*)\]\([A-Z]+ [\d.]+\)", r"\1", x) for x in out.splitlines()] == [
            text,
            TEXT,
        ]
    elif form == "jsonl":
        assert [json.loads(line)["text"] for line in out.splitlines()] == [text, TEXT]
    else:
        sentences = [part.split("\n") for part in out.removesuffix("\n\n").split("\n\n")]
        tokens = [[line.split("\t")[0] for line in lines] for lines in sentences]
        assert ["".join(row) for row in tokens] == [re.sub(r"\s", "", t) for t in (text, TEXT)]


# Classifiers.


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory, working_in: Any) -> Run:
    """A classifier of one label a text."""
    home = tmp_path_factory.mktemp("labelled")
    out, err = io.StringIO(), io.StringIO()
    with working_in(home), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main(["fit", "sentiment", "--trainer.max_epochs", "2", *SMALL]) == 0
    return Run(home, out.getvalue(), err.getvalue())


def test_a_classifier_leaves_its_scores_and_the_right_next_commands(
    labelled: Run, working_in: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = labelled.home / "runs" / "sentiment" / "1"
    metrics = read_json(folder / "metrics.json")
    keys = ("accuracy", "macro_f1", "micro_f1", "ece", "per_type", "confusion", "scorer")
    assert {f"{stage}/{key}" for stage in ("val", "test") for key in keys} < set(metrics)
    assert metrics["monitor"] == "val/accuracy"
    accuracy = f"accuracy          {metrics['test/accuracy']:.2%}"
    for part in (accuracy, "macro F1  ", "gold / found ", "1 negative ", "calibration error "):
        assert f"\n{part}" in labelled.out
    assert "token accuracy" not in labelled.out
    lines = labelled.out.split("next:\n")[1].splitlines()
    assert lines == [
        f'  seqlab predict {Path("runs/sentiment/latest")} "Well worth the money."',
        f"  seqlab test {Path('runs/sentiment/latest')} --data.path sample:sentiment",
    ]
    with working_in(labelled.home):
        for line in lines:
            assert main(shlex.split(line)[1:]) == 0
        out = capsys.readouterr().out
    assert "Well worth the money." in out
    assert accuracy in out
    assert "classifier = seqlab.load(" in (folder / "bundle" / "README.md").read_text("utf-8")


def test_thresholds_are_kept_with_the_best_epoch(
    place: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("c").mkdir()
    for split, count in (("train", 40), ("dev", 12), ("test", 12)):
        rows = [("the cat sees it", ["cat"]), ("a cat and a dog", ["cat", "dog"]), ("it is", [])]
        lines = [json.dumps({"text": t, "label": x}) for t, x in rows * count]
        Path(f"c/{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    words = ["--data.path", "c", "--trainer.max_epochs", "2", "--model.averaging", "0.9", *SMALL]
    assert main(["fit", "sentiment", *words]) == 0
    kept = read_json(Path("runs/sentiment/1/metrics.json"))
    model = load_bundle("runs/sentiment/1")
    assert isinstance(model, seqlab.Classifier)
    assert kept["monitor"] == "val/macro_f1"
    assert kept["val/thresholds"] == kept["test/thresholds"]
    assert list(kept["val/thresholds"].values()) == model.thresholds.tolist() != [0.5, 0.5]
    capsys.readouterr()
    for name, stage in (("validate", "val"), ("test", "test")):
        assert main([name, "runs/sentiment/1", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        for key in ("macro_f1", "thresholds", "per_type", "ece"):
            assert found[f"{stage}/{key}"] == kept[f"{stage}/{key}"]


# Other data.


def test_a_model_is_scored_on_another_corpus(
    inside: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus()
    assert main(["test", "ner", "--data.path", "my_corpus", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["data"] == "my_corpus"
    assert sum(row["gold"] for row in found["test/per_type"].values()) == 45


@pytest.mark.parametrize("name", ["test", "validate"])
def test_a_lone_file_is_the_split_that_is_asked_for(
    name: str, inside: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus()
    assert main([name, "ner", "--data.path", "my_corpus/dev.conll", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    stage = "val" if name == "validate" else "test"
    assert sum(row["gold"] for row in found[f"{stage}/per_type"].values()) == 45


def test_overrides_reach_model_data_and_trainer(
    place: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus()
    words = ["--data.path=my_corpus", "--model.decoder", "softmax", "--trainer.max_epochs", "2"]
    assert main(["fit", "ner", *words, *SMALL]) == 0
    model = load_bundle("runs/ner/1")
    assert model.config["decoder"] == "softmax"
    assert model.config["hidden_size"] == 24
    assert "lovelace" not in model.source_vocab
    metrics = read_json(Path("runs/ner/1/metrics.json"))
    assert (metrics["data"], metrics["epochs"]) == ("my_corpus", 2)
    assert "--data.path my_corpus\n" in capsys.readouterr().out


def test_a_corpus_without_a_test_split_is_scored_on_validation(
    place: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(splits=("train", "dev"))
    assert (
        main(["fit", "ner", "--data.path", "my_corpus", "--trainer.max_epochs", "1", *SMALL]) == 0
    )
    out, err = capsys.readouterr()
    assert "seqlab: there is no test split: the scores are those of the validation split." in err
    metrics = read_json(Path("runs/ner/1/metrics.json"))
    assert metrics["split"] == "validation"
    assert not [key for key in metrics if key.startswith("test/")]
    _, *words = shlex.split(out.splitlines()[-1])
    assert words[0] == "validate"
    assert main(words) == 0


def test_a_single_file_is_a_corpus(
    place: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus("my corpus", splits=("train",))
    words = ["--data.path", "my corpus/train.conll", "--trainer.max_epochs", "1"]
    assert main(["fit", "ner", *words, *SMALL]) == 0
    out, err = capsys.readouterr()
    assert "has no validation or test split: 3 of its 30 training sentences" in err
    _, *command = shlex.split(out.splitlines()[-1])  # the path has to be quoted
    assert main(command) == 0


def test_files_given_one_by_one_are_read_again_by_the_next_command(
    place: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus()
    files = [w for s in ("train", "dev", "test") for w in (f"--data.{s}", f"my_corpus/{s}.conll")]
    files = ["--data.validation" if w == "--data.dev" else w for w in files]
    words = ["--data.path", "null", *files, "--trainer.max_epochs", "1", *SMALL]
    assert main(["fit", "ner", *words]) == 0
    _, *command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert command == ["test", str(Path("runs/ner/latest"))]
    assert main(command) == 0


def test_a_model_with_a_feature_column_says_how_it_is_fed(
    place: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("my_corpus").mkdir()
    for split in ("train", "dev", "test"):
        Path(f"my_corpus/{split}.conll").write_text(ROWS * 15, encoding="utf-8")
    columns = ["--data.columns", "{tokens: 0, pos: 1, tags: 2}", "--data.path", "my_corpus"]
    assert main(["fit", "ner", *columns, "--trainer.max_epochs", "1", *SMALL]) == 0
    out = capsys.readouterr().out
    wanted = "runs/ner/latest --input FILE --columns tokens=0 --columns pos=1"
    first, second = out.split("next:\n")[1].splitlines()
    assert first == f"  seqlab predict {wanted}"
    for line in (first.replace("FILE", "my_corpus/test.conll"), second):
        assert main(shlex.split(line)[1:]) == 0
    assert re.match(r"\[Ada\]\([A-Z]+ 0", capsys.readouterr().out)


# Going on, and what is refused.


def test_a_run_goes_on_where_it_ended(inside: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "ner", "--ckpt_path", "last", "--trainer.max_epochs", "4"]) == 0
    err = capsys.readouterr().err.splitlines()
    assert err[0] == f"seqlab: going on with {Path('runs/ner/1')} after epoch 2"
    assert [line[:7] for line in err[2:]] == ["epoch 3", "seqlab:"]  # last of the padding
    lines = (inside.folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1, 2, 3]
    assert not (inside.home / "runs/ner/2").exists()
    straight = ["--trainer.max_epochs", "4", *SMALL]
    assert main(["fit", "ner", *straight]) == 0
    one, other = (load_bundle(f"runs/ner/{n}").state_dict() for n in (1, 2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_weights_of_a_checkpoint_can_be_scored(
    inside: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for wanted in ("last", "runs/ner/1", "runs/ner/1/last.ckpt"):
        assert main(["validate", "ner", f"--ckpt_path={wanted}", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        lines = (inside.folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
        last = json.loads(lines[-1])
        assert found["val/span_f1"] == pytest.approx(last["val/span_f1"], abs=1e-6)


def test_a_checkpoint_outside_a_run_is_not_gone_on_with(inside: Run) -> None:
    shutil.copyfile(inside.folder / "last.ckpt", "my.ckpt")
    before = sorted(inside.home.rglob("*"))
    with pytest.raises(UsageError, match="my.ckpt is not the checkpoint of a run: name its folder"):
        verb("fit", ["ner", "--ckpt_path", "my.ckpt"])
    assert sorted(inside.home.rglob("*")) == before


@pytest.mark.parametrize("words", [["--ckpt_path"], ["--trainer.max_epochs", "1", "--ckpt_path"]])
def test_an_option_needs_its_value(words: list[str], place: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="--ckpt_path needs a value, such as `--ckpt_path last`"):
        verb("fit", ["ner", *words])


@pytest.mark.parametrize("name", ["fit", "validate", "test"])
@pytest.mark.parametrize("argv", [[], ["--trainer.max_epochs", "1"]])
def test_the_recipe_or_model_comes_first(name: str, argv: list[str]) -> None:
    with pytest.raises(UsageError, match=f"`seqlab {name}` needs a .* first"):
        verb(name, argv)


@pytest.mark.parametrize(
    "words", [["--model.hiden_size", "3"], ["--model.hidden_size", "x"], ["--model.dropout", "1"]]
)
def test_a_wrong_recipe_is_no_run(words: list[str], place: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError):
        verb("fit", ["ner", *words])
    assert not Path("runs").exists()


def test_a_bundle_without_its_recipe_cannot_be_scored(inside: Run) -> None:
    (inside.folder / "bundle" / "recipe.yaml").unlink()
    with pytest.raises(BundleError, match="has no recipe.yaml, so its data cannot be read"):
        verb("test", ["ner"])


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("class_path: seqlab.TaggingData", "class_path: elsewhere.Data", "elsewhere.Data"),
        ("logger: false", "logger: elsewhere.Logger", "elsewhere.Logger"),
        ("logger: false", "callbacks: [elsewhere.Own]", "elsewhere.Own"),
        (
            "logger: false",
            "callbacks: [{class_path: subprocess.Popen, init_args: {args: ls}}]",
            "subprocess.Popen",
        ),
    ],
)
def test_the_recipe_in_a_bundle_names_no_code_of_others(
    old: str, new: str, name: str, inside: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = inside.folder / "bundle" / "recipe.yaml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")

    def build(*arguments: object) -> None:
        raise AssertionError("what is not trusted is not even imported")

    monkeypatch.setattr("seqlab.restoring.build", build)
    with pytest.raises(BundleError, match=f"asks for the class {name}, .* add --trust"):
        verb("test", ["ner"])
    with pytest.raises(AssertionError):
        verb("test", ["ner", "--trust"])


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"
        ),
    ],
)
def test_a_full_memory_is_a_sentence(error: RuntimeError, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("seqlab.training.build", full)
    with pytest.raises(SeqlabError, match="^the memory is full: lower data.tokens_per_batch or "):
        verb("fit", [str(NER)])
    monkeypatch.setattr(error, "args", ("a defect",))
    if not isinstance(error, torch.OutOfMemoryError):
        with pytest.raises(RuntimeError, match="a defect"):
            verb("fit", [str(NER)])


@pytest.mark.parametrize("sizes", [{"max_steps": 3}, {"limit_val_batches": 0}])
def test_an_epoch_without_a_score_leaves_a_model(
    sizes: dict[str, int], place: pytest.MonkeyPatch
) -> None:
    words = [w for key, value in sizes.items() for w in (f"--trainer.{key}", str(value))]
    assert main(["fit", "ner", "--trainer.max_epochs", "1", *words, *SMALL]) == 0
    assert read_json(Path("runs/ner/1/metrics.json"))["best_epoch"] == 0


def test_the_whole_configuration_is_shown(
    capsys: pytest.CaptureFixture[str], working_in: Any, tmp_path: Path
) -> None:
    with working_in(tmp_path), pytest.raises(SystemExit) as end:
        main(["fit", "ner", "--print_config", "--model.hidden_size", "77"])
    assert end.value.code == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["model"]["init_args"]["hidden_size"] == 77
    assert not (tmp_path / "runs").exists()
