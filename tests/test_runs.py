from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from seqlab.errors import UsageError
from seqlab.runs import latest_run, new_run


@pytest.fixture(params=["link", "file"])
def pointer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test on a machine that can make links, and on one that cannot."""

    def refused(*_: object, **__: object) -> None:
        raise OSError("a required privilege is not held by the client")

    if request.param == "file":
        monkeypatch.setattr(Path, "symlink_to", refused)
    return str(request.param)


def test_runs_are_numbered_from_1(tmp_path: Path, pointer: str) -> None:
    runs = [new_run("ner", tmp_path) for _ in range(3)]
    assert runs == [tmp_path / "ner" / str(number) for number in (1, 2, 3)]
    assert all(run.is_dir() for run in runs)


def test_latest_is_the_newest_run(tmp_path: Path, pointer: str) -> None:
    for _ in range(3):
        run = new_run("ner", tmp_path)
        assert latest_run("ner", tmp_path) == run
    latest = tmp_path / "ner" / "latest"
    assert latest.is_symlink() == (pointer == "link")
    assert latest.is_file() == (pointer == "file")


def test_runs_of_other_recipes_do_not_count(tmp_path: Path) -> None:
    new_run("pos", tmp_path)
    assert new_run("ner", tmp_path).name == "1"
    assert latest_run("pos", tmp_path) == tmp_path / "pos" / "1"


def test_the_number_of_a_removed_run_in_between_is_not_given_again(tmp_path: Path) -> None:
    first, _ = new_run("ner", tmp_path), new_run("ner", tmp_path)
    first.rmdir()
    assert new_run("ner", tmp_path).name == "3"


def test_numbers_are_compared_as_numbers(tmp_path: Path) -> None:
    for name in ("9", "10", "best-of-11", "²"):
        (tmp_path / "ner" / name).mkdir(parents=True)
    assert new_run("ner", tmp_path).name == "11"


def test_a_number_that_another_process_takes_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        new_run("ner", tmp_path)
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter([]))  # as looked a moment ago
    assert new_run("ner", tmp_path).name == "3"


def test_runs_begun_at_once_have_folders_of_their_own(tmp_path: Path, pointer: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: new_run("ner", tmp_path), range(40)))
    assert sorted(int(run.name) for run in runs) == list(range(1, 41))
    assert latest_run("ner", tmp_path) in runs
    left = {p.name for p in (tmp_path / "ner").iterdir()}
    assert left == {"latest", *(run.name for run in runs)}


def test_what_a_killed_process_left_does_not_stand_in_the_way(tmp_path: Path, pointer: str) -> None:
    (tmp_path / "ner").mkdir()
    (tmp_path / "ner" / ".latest.1").write_text("9", encoding="utf-8")
    run = new_run("ner", tmp_path)
    assert latest_run("ner", tmp_path) == run
    assert (tmp_path / "ner" / "latest").is_symlink() == (pointer == "link")


def test_a_link_stays_true_when_the_runs_are_moved(tmp_path: Path) -> None:
    new_run("ner", tmp_path / "here")
    assert not os.path.isabs(os.readlink(tmp_path / "here" / "ner" / "latest"))
    (tmp_path / "here").rename(tmp_path / "there")
    assert latest_run("ner", tmp_path / "there") == tmp_path / "there" / "ner" / "1"


def test_a_copy_without_links_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "ner" / "latest").mkdir(parents=True)
    assert latest_run("ner", tmp_path) == tmp_path / "ner" / "latest"


@pytest.mark.parametrize("broken", [False, True])
def test_a_recipe_that_was_never_run_says_how_to(tmp_path: Path, broken: bool) -> None:
    if broken:
        new_run("ner", tmp_path).rmdir()  # the link leads nowhere
    with pytest.raises(UsageError) as error:
        latest_run("ner", tmp_path)
    assert str(error.value) == (
        f"no run of 'ner' in {tmp_path}: train it first with `seqlab fit ner`, or give the folder "
        "of a model."
    )


def test_runs_are_kept_here_or_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEQLAB_RUNS", raising=False)
    assert new_run("ner") == latest_run("ner") == Path("runs/ner/1")
    monkeypatch.setenv("SEQLAB_RUNS", str(tmp_path / "elsewhere"))
    with pytest.raises(UsageError, match=re.escape(f"in {tmp_path / 'elsewhere'}:")):
        latest_run("ner")
    assert new_run("ner") == latest_run("ner") == tmp_path / "elsewhere" / "ner" / "1"
