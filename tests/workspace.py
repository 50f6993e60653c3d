"""A copy of the repository as it stands, with a git history of its own: what a user has after cloning."""

import os
import subprocess
import sys
from pathlib import Path

from tests.params import ROOT

SHARED = ROOT.parent / "shared"
# The stages' `python` and `dvc` are this environment's; Feast's and GX's own reporting stays off, the hub unasked.
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "HF_HUB_OFFLINE": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "COLUMNS": "160",
}


def copy_repository(to: Path) -> Path:
    """All files that git knows or would take, committed in a repository at `to`."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        source = ROOT / name
        if source.is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            (to / name).write_bytes(source.read_bytes())
    who = [["config", "user.name", "test"], ["config", "user.email", "test@localhost"]]  # DVC's experiments commit too
    for command in (["init", "-q"], *who, ["add", "-A"], ["commit", "-qm", "copy"]):
        subprocess.run(["git", *command], cwd=to, check=True, capture_output=True)
    return to


def run_in(folder: Path, command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A shell command in `folder`; with `check`, its output is the assertion's message where it fails."""
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert not check or ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
    return ended
