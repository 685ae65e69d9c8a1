"""docs/clusters/kuberay-rayjob.yaml against a schema of KubeRay's published fields."""

import copy
import json
import shlex
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import ray
import yaml

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads(Path(__file__).with_name("rayjob_schema.json").read_text())


@pytest.fixture
def manifest() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(
        (ROOT / "docs/clusters/kuberay-rayjob.yaml").read_text()
    )
    return content


def pods(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    cluster = manifest["spec"]["rayClusterSpec"]
    workers = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"], **workers}


def test_the_manifest_has_kuberays_fields(manifest: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(manifest, SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["spec", "entrypont"], "dsfedmed run"),
        (["spec", "rayClusterSpec", "authOptions", "mode"], "tokens"),
        (["spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"], 8),
        (["spec", "rayClusterSpec", "workerGroupSpecs", 0, "maxReplicas"], "8"),
    ],
)
def test_the_schema_has_teeth(manifest: dict[str, Any], path: list[Any], value: Any) -> None:
    broken = copy.deepcopy(manifest)
    target: Any = broken
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMA)


def test_the_cluster_asks_for_a_token_and_is_not_exposed(manifest: dict[str, Any]) -> None:
    cluster = manifest["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert "dashboard-host" not in cluster["headGroupSpec"]["rayStartParams"]
    assert manifest["spec"]["shutdownAfterJobFinishes"] is True


def test_versions_are_this_ray(manifest: dict[str, Any]) -> None:
    assert manifest["spec"]["rayClusterSpec"]["rayVersion"] == ray.__version__
    dockerfile = (ROOT / "docs/clusters/Dockerfile").read_text()
    assert f"FROM rayproject/ray:{ray.__version__}-py312-gpu" in dockerfile


def test_resources_are_json_that_ray_start_reads(manifest: dict[str, Any]) -> None:
    """KubeRay pastes the value into a shell line, so it is JSON in quotes, in quotes."""
    resources = {
        name: json.loads(shlex.split(pod["rayStartParams"]["resources"])[0])
        for name, pod in pods(manifest).items()
    }
    assert resources == {
        "head": {"foundation": 1},
        "gpu-worker": {"client_gpu": 1},
        "cpu-worker": {"client_cpu": 8},
    }
    assert json.loads(manifest["spec"]["entrypointResources"]) == {"foundation": 0.001}


def test_pods_are_consistent(manifest: dict[str, Any]) -> None:
    """One image everywhere; requests equal limits; mounts exist; the store fits its memory."""
    images = set()
    for pod in pods(manifest).values():
        spec = pod["template"]["spec"]
        (container,) = spec["containers"]
        images.add(container["image"])
        assert container["resources"]["requests"] == container["resources"]["limits"]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
        shared = int(volumes["shared-memory"]["emptyDir"]["sizeLimit"].removesuffix("Gi"))
        store_bytes = int(pod["rayStartParams"]["object-store-memory"])
        memory = int(container["resources"]["limits"]["memory"].removesuffix("Gi"))
        assert store_bytes < shared * 2**30
        assert store_bytes <= 0.3 * memory * 2**30
    assert images == {"REGISTRY/dsfedmed-ray:0.1.0"}


def test_every_pod_mounts_the_claim_with_the_runs(manifest: dict[str, Any]) -> None:
    """Generators and clients read and write the run's files by path, wherever they are."""
    for pod in pods(manifest).values():
        spec = pod["template"]["spec"]
        claims = [volume for volume in spec["volumes"] if volume["name"] == "runs"]
        assert claims == [{"name": "runs", "persistentVolumeClaim": {"claimName": "dsfedmed-runs"}}]
        assert {"name": "runs", "mountPath": "/runs"} in spec["containers"][0]["volumeMounts"]
    for word in ("run.dir=/runs/embedded", "store.dir=/runs/store"):
        assert word in shlex.split(manifest["spec"]["entrypoint"])


def test_the_settings_know_the_workers(manifest: dict[str, Any]) -> None:
    """``runtime=cluster`` repeats what may come, since Ray does not tell a driver."""
    settings = yaml.safe_load((ROOT / "conf/runtime/cluster.yaml").read_text())["autoscaling"]
    groups = []
    for group in manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        named = json.loads(shlex.split(group["rayStartParams"]["resources"])[0])
        gpus = {"GPU": int(limits["nvidia.com/gpu"])} if "nvidia.com/gpu" in limits else {}
        resources = {"CPU": int(limits["cpu"]), **gpus, **named}
        groups.append({"max_nodes": group["maxReplicas"], "resources": resources})
    assert [
        {name: kind[name] for name in ("max_nodes", "resources")} for kind in settings["node_types"]
    ] == groups


def test_the_entrypoint_is_our_command(manifest: dict[str, Any]) -> None:
    words = shlex.split(manifest["spec"]["entrypoint"])
    assert words[:2] == ["dsfedmed", "run"]
    assert "runtime=cluster" in words
