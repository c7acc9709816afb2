"""The files that GitHub reads: valid by schema, and of one mind with pyproject.toml."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = ("workflows/ci.yml", "workflows/release.yml", "workflows/zoo.yml")
SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "custom.github-workflows-require-timeout": WORKFLOWS,
    "vendor.dependabot": ("dependabot.yml",),
    "vendor.github-issue-forms": ("ISSUE_TEMPLATE/bug.yml", "ISSUE_TEMPLATE/feature.yml"),
    "vendor.github-issue-config": ("ISSUE_TEMPLATE/config.yml",),
}

pytestmark = pytest.mark.skipif(
    (ROOT / "PKG-INFO").exists(), reason="a source distribution carries no .github"
)
needs_bash = pytest.mark.skipif(
    sys.platform == "win32", reason="the steps under test run on Linux, in bash"
)


def read(name: str) -> dict[Any, Any]:
    """Load one YAML file of ``.github``; YAML 1.1 reads the key ``on`` as ``True``."""
    content = yaml.safe_load((GITHUB / name).read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def steps_of(name: str, job: str) -> list[dict[str, Any]]:
    steps = read(name)["jobs"][job]["steps"]
    assert isinstance(steps, list)
    return steps


def script_of(name: str, job: str, contains: str) -> str:
    """The shell script of the one step that contains a given piece of text."""
    (script,) = [s["run"] for s in steps_of(name, job) if contains in s.get("run", "")]
    assert isinstance(script, str)
    return script


def run(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a step as GitHub does: bash that stops at the first failure."""
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("schema", SCHEMAS)
def test_files_follow_their_schema(schema: str) -> None:
    files = [str(GITHUB / name) for name in SCHEMAS[schema]]
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_yaml_file_has_a_schema() -> None:
    found = {path.relative_to(GITHUB).as_posix() for path in GITHUB.rglob("*.y*ml")}
    assert found == {name for names in SCHEMAS.values() for name in names}


def test_ci_runs_the_python_versions_that_the_package_names() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    named = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', pyproject)
    matrix = read("workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]
    assert named
    assert matrix["python"] == named
    others = {(entry["os"], entry["python"]) for entry in matrix["include"]}
    assert others == {("macos-latest", "3.12"), ("windows-latest", "3.12")}


def test_ci_installs_torch_in_the_range_of_the_package() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"{read("workflows/ci.yml")["env"]["TORCH"]}"' in pyproject


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflows_may_only_read_and_pin_their_actions(name: str) -> None:
    workflow = read(name)
    assert workflow["permissions"] == {"contents": "read"}
    used = [s["uses"] for job in workflow["jobs"].values() for s in job["steps"] if "uses" in s]
    assert used
    assert [u for u in used if not re.fullmatch(r"[\w./-]+@(release/)?v\d+", u)] == []


def test_release_publishes_without_a_stored_secret() -> None:
    text = (GITHUB / "workflows/release.yml").read_text(encoding="utf-8")
    assert "secrets." not in text
    keys = {key for job in read("workflows/release.yml")["jobs"].values() for key in _keys(job)}
    assert not {key for key in keys if re.search("password|token|user", key)} - {"id-token"}
    publish = read("workflows/release.yml")["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["environment"] == "pypi"
    assert read("workflows/release.yml")[True] == {"push": {"tags": ["v*"]}}


def _keys(node: Any) -> set[str]:
    if isinstance(node, dict):
        return {str(key) for key in node}.union(*(_keys(value) for value in node.values()))
    if isinstance(node, list):
        return set().union(*(_keys(value) for value in node))
    return set()


@needs_bash
@pytest.mark.parametrize(
    ("changed", "passes"),
    [
        (["seqlab/tags.py"], False),
        (["seqlab/tags.py", "docs/CHANGELOG.md"], False),
        (["seqlab/tags.py", "CHANGELOG.md"], True),
        (["tests/test_tags.py", "README.md"], True),
    ],
)
def test_changelog_gate(tmp_path: Path, changed: list[str], passes: bool) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=0"]
        command = ["git", *identity, *arguments]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()

    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "-m", "base")
    base = git("rev-parse", "HEAD")
    for name in changed:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x\n", encoding="utf-8")
    git("add", ".")
    git("commit", "--quiet", "-m", "change")
    done = run(script_of("workflows/ci.yml", "changelog", "git diff"), tmp_path, BASE=base)
    assert (done.returncode == 0) is passes, done.stderr
    assert ("::error::seqlab/ changed and CHANGELOG.md did not" in done.stdout) is not passes


@needs_bash
@pytest.mark.parametrize(
    ("tag", "heading", "complaint"),
    [
        ("v1.2.0", "## [1.2.0] - 2026-01-31", ""),
        ("v1.3.0", "## [1.2.0] - 2026-01-31", "The tag is v1.3.0"),
        ("v1.2.0", "## [Unreleased]", "CHANGELOG.md has no heading"),
    ],
)
def test_release_refuses_versions_that_differ(
    tmp_path: Path, tag: str, heading: str, complaint: str
) -> None:
    (tmp_path / "seqlab").mkdir()
    (tmp_path / "seqlab/__init__.py").write_text('__version__ = "1.2.0"\n', encoding="utf-8")
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}\n", encoding="utf-8")
    script = script_of("workflows/release.yml", "build", "seqlab.__version__")
    environment = {"TAG": tag, "PYTHONPATH": str(tmp_path)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = run(script, tmp_path, PATH=path, **environment)
    assert (done.returncode == 0) is (not complaint), done.stderr
    assert complaint in done.stdout


def test_the_licence_is_the_one_that_the_package_names() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert re.match(r"\s*Apache License\s+Version 2\.0, January 2004", text)
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@needs_bash
def test_the_whole_check_is_a_bash_script_that_can_be_run() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_zoo_is_built_whole() -> None:
    matrix = read("workflows/zoo.yml")["jobs"]["build"]["strategy"]["matrix"]
    assert matrix["model"] == list(
        json.loads((ROOT / "recipes/zoo/models.json").read_text("utf-8"))
    )
