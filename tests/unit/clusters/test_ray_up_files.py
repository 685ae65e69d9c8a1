"""cluster.yaml and docs/clusters/gcp.yaml against Ray's own schema and parser, and the clouds'."""

import copy
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import ray
import yaml

ROOT = Path(__file__).parents[3]
AWS = "cluster.yaml"
GCP = "docs/clusters/gcp.yaml"
FILES = [AWS, GCP]


def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return content


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """What ``ray up`` makes of a file before it calls the cloud; raises where Ray would refuse."""
    from ray.autoscaler._private.util import fillout_defaults, prepare_config, validate_config

    validate_config(fillout_defaults(copy.deepcopy(config)))
    whole: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(whole)
    return whole


@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_the_file(name: str) -> None:
    config = prepared(load(name))
    assert config["head_node_type"] == "head"
    assert set(config["available_node_types"]) == {"head", "gpu_worker", "cpu_worker"}


def test_ray_would_refuse_a_misspelled_key() -> None:
    """The schema has teeth: one letter more in one key is refused."""
    config = load(AWS)
    config["max_workerss"] = config.pop("max_workers")
    with pytest.raises(jsonschema.ValidationError, match="max_workerss"):
        prepared(config)


@pytest.mark.parametrize("name", FILES)
def test_node_types_carry_resources_to_place_on(name: str) -> None:
    """The foundation model's place is the head alone; a worker says what its clients may use."""
    types = load(name)["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 8, "GPU": 1, "foundation": 1}
    assert types["gpu_worker"]["resources"] == {"CPU": 4, "GPU": 1, "client_gpu": 1}
    assert types["cpu_worker"]["resources"] == {"CPU": 8, "client_cpu": 8}
    assert sum("foundation" in node["resources"] for node in types.values()) == 1
    for worker in ("gpu_worker", "cpu_worker"):
        assert types[worker]["min_workers"] == 0 < types[worker]["max_workers"]


@pytest.mark.parametrize("name", FILES)
def test_the_settings_know_the_workers(name: str) -> None:
    """``runtime=cluster`` repeats what may come, since Ray does not tell a driver."""
    settings = load("conf/runtime/cluster.yaml")["autoscaling"]["node_types"]
    types = load(name)["available_node_types"]
    workers = [
        {"max_nodes": types[worker]["max_workers"], "resources": types[worker]["resources"]}
        for worker in ("gpu_worker", "cpu_worker")
    ]
    assert [{key: kind[key] for key in ("max_nodes", "resources")} for kind in settings] == workers
    assert load(name)["max_workers"] == sum(worker["max_nodes"] for worker in workers)


@pytest.mark.parametrize("name", FILES)
def test_workers_mount_the_heads_folder_of_runs(name: str) -> None:
    """The server is made before the head starts Ray, the mount before a worker does."""
    config = prepared(load(name))
    head, worker = (
        " ".join(config[f"{kind}_setup_commands"]).replace("  ", " ") for kind in ("head", "worker")
    )
    assert "install -q -y nfs-kernel-server" in head
    assert 'echo "$HOME/runs 10.0.0.0/8$may 172.16.0.0/12$may" | sudo tee /etc/exports' in head
    assert "nfs-kernel-server" not in worker
    assert 'mount -t nfs4 -o lookupcache=positive "$RAY_HEAD_IP:$HOME/runs" ~/runs' in worker


@pytest.mark.parametrize("name", FILES)
def test_every_ray_start_asks_for_the_token(name: str) -> None:
    config = load(name)
    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    starts = [command for command in commands if "ray start" in command]
    assert len(starts) == 2
    for command in starts:
        assert command.index("export RAY_AUTH_MODE=token;") < command.index("ray start")
    assert config["file_mounts"]["~/.ray/auth_token"] == ".ray_auth_token"
    assert "chmod 600 ~/.ray/auth_token" in config["setup_commands"]


@pytest.mark.parametrize("name", FILES)
def test_the_dashboard_stays_on_the_head(name: str) -> None:
    (start,) = (c for c in load(name)["head_start_ray_commands"] if "ray start" in c)
    assert "--dashboard-host=127.0.0.1" in start
    assert "0.0.0.0" not in start


def test_git_ignores_the_token() -> None:
    private = [".ray_auth_token", ".ray_auth_token.17", "dist/dsfedmed_ray.whl"]
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", *private],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ignored.stdout.split() == private


@pytest.mark.parametrize("name", FILES)
def test_the_wheel_travels_and_is_installed_with_this_ray(name: str) -> None:
    config = load(name)
    assert config["file_mounts"]["~/dsfedmed/dist"] == "dist"
    installs = [command for command in config["setup_commands"] if "pip install" in command]
    assert all("~/dsfedmed/dist/dsfedmed_ray-*.whl" in command for command in installs)
    assert f'"ray[default]=={ray.__version__}"' in installs[0]


@pytest.mark.parametrize("name", FILES)
def test_every_command_is_shell(name: str) -> None:
    config = load(name)
    kinds = [key for key in config if key.endswith("_commands")]
    assert kinds
    for command in (command for kind in kinds for command in config[kind]):
        subprocess.run(["bash", "-n", "-c", command], check=True)


@pytest.mark.parametrize("name", FILES)
def test_the_object_store_fits_its_nodes(name: str) -> None:
    """16 GiB is the smallest worker's memory, 32 GiB the head's; Ray suggests at most 30 %."""
    config = load(name)
    sizes = [
        int(re.findall(r"--object-store-memory=(\d+)", " ".join(config[key]))[0])
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
    ]
    assert sizes[0] <= 0.3 * 32 * 2**30
    assert sizes[1] <= 0.3 * 16 * 2**30


def run_instances_errors(node_config: dict[str, Any]) -> list[str]:
    """What EC2's RunInstances would refuse: unknown fields, wrong types, values not listed."""
    from botocore.session import get_session
    from botocore.validate import ParamValidator

    shape = get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    request = {**node_config, "MinCount": 1, "MaxCount": 1}
    report = ParamValidator().validate(request, shape)
    errors = [report.generate_report()] if report.has_errors() else []
    return errors + list(outside_of_enums(request, shape, ""))


def outside_of_enums(value: Any, shape: Any, path: str) -> Any:
    """Botocore's validator does not look at enumerations; this does."""
    if shape.type_name == "structure":
        for name in value.keys() & shape.members.keys():
            yield from outside_of_enums(value[name], shape.members[name], f"{path}.{name}")
    elif shape.type_name == "list":
        for item in value:
            yield from outside_of_enums(item, shape.member, path)
    elif getattr(shape, "enum", None) and value not in shape.enum:
        yield f"{path}: {value!r} is not one of {len(shape.enum)} values"


@pytest.mark.parametrize("node_type", ["head", "gpu_worker", "cpu_worker"])
def test_ec2_accepts_the_node(node_type: str) -> None:
    node_config = load(AWS)["available_node_types"][node_type]["node_config"]
    assert run_instances_errors(node_config) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"InstanceTyp": "g5.2xlarge"}, "Unknown parameter in input"),
        ({"InstanceType": "g5.2xlargest"}, "'g5.2xlargest' is not one of"),
        ({"InstanceMarketOptions": {"MarketType": "cheap"}}, "'cheap' is not one of"),
        ({"BlockDeviceMappings": [{"Ebs": {"VolumeSize": "200"}}]}, "Invalid type"),
    ],
)
def test_ec2_would_refuse(change: dict[str, Any], message: str) -> None:
    node_config = load(AWS)["available_node_types"]["head"]["node_config"]
    assert message in " ".join(run_instances_errors({**node_config, **change}))


@pytest.mark.parametrize("node_type", ["head", "gpu_worker", "cpu_worker"])
def test_instance_types_have_what_the_file_says(node_type: str) -> None:
    """CPUs and GPUs against AWS's published table of instance types, which moto carries."""
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    node = load(AWS)["available_node_types"][node_type]
    published = INSTANCE_TYPES[node["node_config"]["InstanceType"]]
    gpus = published.get("GpuInfo", {"Gpus": []})["Gpus"]
    assert published["VCpuInfo"]["DefaultVCpus"] == node["resources"]["CPU"]
    assert sum(gpu["Count"] for gpu in gpus) == node["resources"].get("GPU", 0)
    assert published["ProcessorInfo"]["SupportedArchitectures"] == ["x86_64"]
    spot = node["node_config"].get("InstanceMarketOptions") == {"MarketType": "spot"}
    assert spot == (node_type != "head")
    assert not spot or "spot" in published["SupportedUsageClasses"]


@pytest.mark.parametrize("node_type", ["head", "gpu_worker", "cpu_worker"])
def test_compute_engine_accepts_the_node(node_type: str) -> None:
    node = load(GCP)["available_node_types"][node_type]
    schema = json.loads(Path(__file__).with_name("gcp_instance_schema.json").read_text())
    jsonschema.validate(node["node_config"], schema)
    family, _, cpus = node["node_config"]["machineType"].split("-")
    assert int(cpus) == node["resources"]["CPU"]
    assert (family == "g2") == ("GPU" in node["resources"])  # g2 brings its own L4
    scheduling = node["node_config"].get("scheduling", {})
    assert scheduling.get("preemptible", False) == (node_type != "head")
    if family == "g2":  # machines with a GPU cannot migrate
        assert scheduling["onHostMaintenance"] == "TERMINATE"
