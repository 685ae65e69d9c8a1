"""A head started by cluster.yaml's own commands: who may join it, and who is told why not."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
import ray
import yaml

import dsfedmed_ray
from dsfedmed_ray.runtime.stage_store import code_fingerprint

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.ray
# Ray's dashboard, and with it `ray job`, comes with ray[default]: the dev extra, and clusters.
HAS_DASHBOARD = importlib.util.find_spec("aiohttp") is not None

CHECK = """
import sys
from dsfedmed_ray.errors import ResourceError
from dsfedmed_ray.runtime.cluster_check import check_cluster
try:
    print("joined", check_cluster(sys.argv[1]))
except ResourceError as error:
    sys.exit(f"refused: {error}")
"""
RUN_A_TASK = """
import sys, ray
from dsfedmed_ray.errors import ResourceError
from dsfedmed_ray.runtime.cluster_check import check_project_code
ray.init(address=sys.argv[1], log_to_driver=False)
print("has", int(ray.cluster_resources()["foundation"]), "foundation")
try:
    check_project_code(*sys.argv[2:])
except ResourceError as error:
    sys.exit(f"refused: {error}")
"""


@dataclass(frozen=True, kw_only=True)
class Head:
    """A running head: its addresses, and the environment of a driver that may join it."""

    address: str
    dashboard: str
    environment: dict[str, str]


def free_port() -> int:
    """A free port below those from which Ray serves its workers, 10002-19999."""
    for port in range(7000 + os.getpid() % 1000, 9900):
        with socket.socket() as candidate:
            if candidate.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise OSError("no free port between 7000 and 9900")


def start_command(port: int, session: Path) -> str:
    """The file's command for the head, on our port and with what one test machine has."""
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    # Not `ray stop`: it would end every Ray of this machine's user.
    (command,) = (line for line in config["head_start_ray_commands"] if line != "ray stop")
    replaced = {
        "--port=6379": f"--port={port} --node-ip-address=127.0.0.1",
        "--object-manager-port=8076": "",
        "--object-store-memory=8000000000": "--object-store-memory=100000000",
        "--autoscaling-config=~/ray_bootstrap_config.yaml": "",
        "--dashboard-host=127.0.0.1": "--dashboard-host=127.0.0.1 "
        f"--dashboard-port={port + 1} --dashboard-agent-listen-port={port + 2}",
    }
    if not HAS_DASHBOARD:
        replaced["--dashboard-host=127.0.0.1"] = "--include-dashboard=false"
    for ours, tests in replaced.items():
        assert ours in command
        command = command.replace(ours, tests)
    resources = shlex.quote('{"foundation": 1}')  # the updater passes a node type's resources
    return f"{command} --num-cpus=1 --resources={resources} --temp-dir={session} --block"


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """Mounts a token as the file says, starts the head and sees that nothing of it is left."""
    home = tmp_path_factory.mktemp("home")
    token = home / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("0" * 63 + "1")
    token.chmod(0o600)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**plain, "HOME": str(home), "PATH": path, "RAY_AUTH_MODE": "token"}
    port = free_port()
    # Ray's sockets lie below its session folder, and their paths are limited to 107 characters.
    session = Path(tempfile.mkdtemp(prefix="ray-"))
    starter = subprocess.Popen(
        ["bash", "-c", start_command(port, session)],
        env={name: value for name, value in environment.items() if name != "RAY_AUTH_MODE"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"127.0.0.1:{port}"
    try:
        wait_until_joined(address, environment)
        if HAS_DASHBOARD:
            wait_until_listening(port + 1)
        dashboard = f"http://127.0.0.1:{port + 1}"
        yield Head(address=address, dashboard=dashboard, environment=environment)
    finally:
        stop_tree(starter)
        shutil.rmtree(session)


def stop_tree(starter: subprocess.Popen[bytes]) -> None:
    """Ends what the command started, after five seconds by force, and sees that nothing is left."""
    processes = psutil.Process(starter.pid).children(recursive=True)
    for process in [*processes, starter]:
        process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=5)
    for process in alive:
        process.kill()
    starter.kill()
    starter.wait(timeout=5)
    _, alive = psutil.wait_procs(alive, timeout=5)
    assert alive == []


def driver(
    code: str, *arguments: str, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
    )


def wait_until_joined(address: str, environment: dict[str, str]) -> None:
    deadline = time.monotonic() + 60
    while (done := driver(CHECK, address, environment=environment)).returncode != 0:
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.5)


def wait_until_listening(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline, f"nothing listens on port {port}"
        time.sleep(0.5)


def test_a_driver_with_the_token_joins(head: Head) -> None:
    ours = [dsfedmed_ray.__version__, code_fingerprint()]
    done = driver(RUN_A_TASK, head.address, *ours, environment=head.environment)
    assert done.returncode == 0, done.stderr
    assert "has 1 foundation" in done.stdout


@pytest.mark.parametrize("differs", ["version", "code"])
def test_a_node_with_other_code_is_named(head: Head, differs: str) -> None:
    version, code = dsfedmed_ray.__version__, code_fingerprint()
    if differs == "version":
        theirs, said = ["9.9.9", code], f"has dsfedmed_ray {version}, this driver has 9.9.9"
    else:
        theirs = [version, "0123456789abcdef"]
        said = f"has other code of dsfedmed_ray {version} ({code}, this driver 0123456789abcdef)"
    done = driver(RUN_A_TASK, head.address, *theirs, environment=head.environment)
    assert done.returncode == 1
    assert said in done.stderr
    assert "run 'make wheel' and 'ray up cluster.yaml' again, or install the" in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"RAY_AUTH_TOKEN": "another"}, "refused this driver's token; set RAY_AUTH_MODE=token"),
        ({"RAY_AUTH_MODE": "disabled"}, "refused this driver's token; set RAY_AUTH_MODE=token"),
        ({"HOME": "/nonexistent"}, "no token for the cluster at .* in ~/.ray/auth_token"),
        ({"RAY_AUTH_TOKEN_PATH": "/nonexistent"}, "no token for the cluster at .* in /nonexistent"),
    ],
)
def test_a_driver_without_the_token_is_refused(
    head: Head, change: dict[str, str], message: str
) -> None:
    done = driver(CHECK, head.address, environment={**head.environment, **change})
    assert done.returncode == 1
    assert re.search(f"refused: .*{message}", done.stderr)


def test_ray_itself_refuses_a_driver_without_the_token(head: Head) -> None:
    """The refusal is the cluster's, not only our check's: Ray's own client is sent away."""
    code = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1])"
    done = driver(code, head.address, environment={**head.environment, "RAY_AUTH_MODE": "disabled"})
    assert done.returncode == 1
    assert "AuthenticationError" in done.stderr


def test_the_versions_are_the_clusters(head: Head) -> None:
    done = driver(CHECK, head.address, environment=head.environment)
    python = ".".join(map(str, sys.version_info[:3]))
    assert done.stdout == f"joined Versions(ray='{ray.__version__}', python='{python}')\n"


JOB = """
import os
from dsfedmed_ray.runtime.cluster_check import check_cluster
print("at", os.environ["RAY_ADDRESS"], check_cluster(os.environ["RAY_ADDRESS"]).ray)
print("shipped", open("shipped.txt").read())
"""


def submit_job(
    head: Head, folder: Path, change: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    (folder / "bin").mkdir()  # like a console script, not in the folder that it imports from
    (folder / "bin" / "job.py").write_text(JOB)
    (folder / "shipped.txt").write_text("with the job")
    shutil.copytree(ROOT / "dsfedmed_ray", folder / "dsfedmed_ray", dirs_exist_ok=True)
    return submitted(head, folder, ["python", "bin/job.py"], change)


def submitted(
    head: Head, folder: Path, command: list[str], change: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    submit = ["ray", "job", "submit", "--address", head.dashboard, "--working-dir", str(folder)]
    return subprocess.run(
        [*submit, "--", *command],
        env={**head.environment, **change},
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.slow
@pytest.mark.skipif(not HAS_DASHBOARD, reason="ray[default] is not installed")
def test_a_job_ships_its_working_directory(head: Head, tmp_path: Path) -> None:
    done = submit_job(head, tmp_path, {})
    assert done.returncode == 0, done.stdout + done.stderr
    assert f" {ray.__version__}\nshipped with the job" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not HAS_DASHBOARD, reason="ray[default] is not installed")
def test_a_job_without_the_token_is_refused(head: Head, tmp_path: Path) -> None:
    done = submit_job(head, tmp_path, {"RAY_AUTH_MODE": "disabled"})
    assert done.returncode != 0
    assert "Unauthorized" in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not HAS_DASHBOARD, reason="ray[default] is not installed")
def test_a_run_is_submitted_with_its_working_directory(head: Head, tmp_path: Path) -> None:
    """`dsfedmed run runtime=cluster` as a job, from shipped code and a shipped configuration."""
    shipped = tmp_path / "shipped"
    for name in ("dsfedmed_ray", "conf"):
        shutil.copytree(ROOT / name, shipped / name)
    (shipped / "conf" / "experiment" / "shipped.yaml").write_text(
        (ROOT / "conf" / "experiment" / "smoke.yaml").read_text()
    )
    run = ["python", "-m", "dsfedmed_ray.cli", "run", "runtime=cluster", "experiment=shipped"]
    run += ["size=toy", "method=fedavg", "runtime.clients=pool", "runtime.num_workers=1"]
    run += ["lightweight.channels=[4,8]", "lightweight.num_res_units=0"]
    run += [f"run.dir={tmp_path / 'run'}", f"store.dir={tmp_path / 'store'}"]
    done = submitted(head, shipped, run, {})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ray: 1 client actors (virtual clients on a pool), 1 CPUs" in done.stdout
    assert "succeeded" in done.stdout
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["method"] == "fedavg"
