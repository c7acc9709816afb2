"""Jobs that SLURM ends and queues again: which run is theirs, and how they ask for another turn.

SLURM sends a signal some time before it ends a job (``--signal=SIGUSR1@120``). The run then writes
a checkpoint at the end of a step, and the job is queued again; so is one that SLURM itself takes
the machines from (``--requeue``). When its turn has come, the job's command runs anew, and goes on
with the run that it had begun.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from seqlab import runs
from seqlab.errors import TrainingError

NOTE = "slurm_job.json"  # in a run folder: the job and the command that have begun the run
INTERVAL = 5.0  # seconds after which several processes look again whether the first was told
_PATIENCE = 60  # seconds for SLURM's answer


def job() -> str | None:
    """Name the SLURM job that this process belongs to; None outside of one."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array is not None:
        return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '0')}"
    return os.environ.get("SLURM_JOB_ID")


def note(folder: Path, arguments: Sequence[str]) -> None:
    """Keep in a run folder which job has begun the run, and by which command.

    Args:
        folder: of a new run.
        arguments: of the command.
    """
    name = job()
    if name is not None:
        (folder / NOTE).write_text(json.dumps([name, *arguments]), encoding="utf-8")


def begun(recipe: str, arguments: Sequence[str], checkpoint: str) -> Path | None:
    """Find the run that a command of this job has begun before the job was queued again.

    Args:
        recipe: name of the recipe.
        arguments: of the command.
        checkpoint: name of the file from which a run goes on.

    Returns:
        The run folder; None where the job runs for the first time, or its run has no checkpoint
        yet.
    """
    name, home = job(), runs.home(recipe)
    if name is None or not int(os.environ.get("SLURM_RESTART_COUNT") or 0) or not home.is_dir():
        return None
    wanted = json.dumps([name, *arguments])
    found = [path for path in home.iterdir() if path.name.isdecimal()]
    for path in sorted(found, key=lambda path: int(path.name), reverse=True):
        known = path / NOTE
        mine = known.is_file() and known.read_text(encoding="utf-8") == wanted
        if mine and (path / checkpoint).is_file():
            return path
    return None


def queue_again() -> str:
    """Have SLURM queue this job again.

    Returns:
        The name of the job.

    Raises:
        TrainingError: SLURM does not do it.
    """
    name = job()
    command = ["scontrol", "requeue", str(name)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        said = "" if done.returncode == 0 else (done.stderr or done.stdout).strip()
        failed = done.returncode != 0
    except (OSError, subprocess.TimeoutExpired) as error:
        said, failed = str(error), True
    if failed:
        raise TrainingError(
            f"SLURM does not queue job {name} again ({said or 'it gives no reason'}); submit it "
            "with --requeue, or start it anew by hand."
        )
    return str(name)
