"""docs/clusters/slurm.sh: its syntax, and what it runs on each node, with SLURM replaced."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "docs/clusters/slurm.sh"

SCONTROL = '[[ "$*" == "show hostnames node[1-2]" ]] && printf "node1\\nnode2\\n"'
SRUN = """
while [[ "$1" == --* ]]; do shift; done
for SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@" || exit; done
"""
RAY = """
{
  echo "mode $RAY_AUTH_MODE"
  echo "token $(wc -c < "$RAY_AUTH_TOKEN_PATH") $(stat -c %a "$RAY_AUTH_TOKEN_PATH")"
  printf "<%s>" "$@"; echo
} >> "$TRACE"
exit "${RAY_EXIT:-0}"
"""


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """An environment in which scontrol, srun and ray are three-line scripts of ours."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, body in {"scontrol": SCONTROL, "srun": SRUN, "ray": RAY}.items():
        (tools / name).write_text(f"#!/bin/bash\n{body}\n")
        (tools / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "TRACE": str(tmp_path / "trace"),
        "SLURM_JOB_ID": "17",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "8",
    }


def submit(
    folder: Path, environment: dict[str, str], *words: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT), *words], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_syntax() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_no_remark() -> None:
    done = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True)
    assert done.stdout == ""


def test_every_node_joins_with_the_token(tmp_path: Path, slurm: dict[str, str]) -> None:
    done = submit(tmp_path, slurm, "dsfedmed", "run", "run.dir=a b")
    assert done.returncode == 0, done.stderr
    head, worker = (tmp_path / "trace").read_text().split("mode ")[1:]
    for lines in (head, worker):
        assert lines.startswith("token\ntoken 64 600\n<symmetric-run><--address><node1:6379>")
        assert "<--min-nodes><2><--num-cpus=8>" in lines
        assert lines.endswith("<--><dsfedmed><run><run.dir=a b>\n")
    assert '<--resources={"foundation": 1}>' in head
    assert '<--resources={"client_gpu": 1}>' in worker


@pytest.mark.parametrize("exit_code", [0, 3])
def test_the_token_goes_with_the_job(tmp_path: Path, slurm: dict[str, str], exit_code: int) -> None:
    done = submit(tmp_path, {**slurm, "RAY_EXIT": str(exit_code)}, "true")
    assert done.returncode == exit_code
    assert list(tmp_path.glob(".ray_auth_token*")) == []


def test_a_command_is_needed(tmp_path: Path, slurm: dict[str, str]) -> None:
    done = submit(tmp_path, slurm)
    assert done.returncode == 2
    assert "usage: sbatch" in done.stderr


def test_the_script_is_executable() -> None:
    assert SCRIPT.stat().st_mode & stat.S_IXUSR
