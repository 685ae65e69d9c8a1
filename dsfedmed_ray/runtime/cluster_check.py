"""Whether a driver may join an existing cluster: decided in a moment, refused in one line.

``ray.init`` retries a wrong token for twenty seconds and a wrong address for forty, and a token
mode without a token ends the process in Ray 2.60. So the address, the token and the versions are
asked for here, before ``ray.init``; the project's code on every node is asked for after it.
"""

import json
import os
import platform
import socket
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Any

from dsfedmed_ray.errors import ResourceError

_CONNECT_SECONDS = 5.0
_NODE_SECONDS = 120.0
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_HTTP2_SETTINGS = 4
_TOKEN_REMEDY = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to the cluster's token file"


@dataclass(frozen=True, kw_only=True)
class Versions:
    """What must be equal for a driver and a cluster to understand each other.

    Attributes:
        ray: for example ``"2.60.0"``.
        python: for example ``"3.11.7"``.
    """

    ray: str
    python: str


def check_cluster(address: str) -> Versions:
    """Checks, before ``ray.init``, that a cluster answers, accepts our token and runs our versions.

    Args:
        address: ``host:port`` of the cluster's head, or ``"auto"`` for the cluster of this machine.

    Returns:
        The cluster's versions, equal to the driver's.

    Raises:
        ResourceError: no cluster answers within five seconds, it refuses the token, or its version
            of Ray or Python is another one. Nothing is started.
    """
    host_and_port = _resolve(address)
    _check_listening(host_and_port)
    _check_token_found(host_and_port)
    versions = _ask_versions(host_and_port)
    compare_versions(versions, _driver_versions(), host_and_port)
    return versions


def compare_versions(cluster: Versions, driver: Versions, address: str) -> None:
    """Refuses a cluster whose Ray or Python is not the driver's.

    As in Ray itself, Python's patch version counts unless the environment variable
    ``RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL`` is ``minor``.

    Raises:
        ResourceError: the versions differ.
    """
    if cluster.ray != driver.ray:
        raise ResourceError(
            f"the cluster at {address} runs Ray {cluster.ray}, this driver Ray {driver.ray}; "
            f"install ray=={cluster.ray} here, or restart the cluster with {driver.ray}"
        )
    parts = 2 if os.environ.get("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL") == "minor" else 3
    if cluster.python.split(".")[:parts] != driver.python.split(".")[:parts]:
        raise ResourceError(
            f"the cluster at {address} runs Python {cluster.python}, this driver Python "
            f"{driver.python}; use Python {cluster.python} here, or submit the run to the cluster "
            "with 'ray job submit'"
        )


def check_project_code(driver_version: str, driver_code: str) -> None:
    """Checks, after ``ray.init``, that every node of the cluster has the driver's code.

    Args:
        driver_version: ``dsfedmed_ray.__version__`` of the driver.
        driver_code: the driver's :func:`~dsfedmed_ray.runtime.stage_store.code_fingerprint`; a
            version may stay the same while code changes.

    Raises:
        ResourceError: a node has another version, other code or none, or does not answer.
    """

    def installed() -> tuple[str, str] | None:  # nested: it must run where the project is absent
        try:
            import dsfedmed_ray
            from dsfedmed_ray.runtime.stage_store import code_fingerprint
        except ModuleNotFoundError:
            return None
        return dsfedmed_ray.__version__, code_fingerprint()

    for _, name, found in ask_nodes(installed):
        if found is None:
            has = f"does not have dsfedmed_ray, this driver has {driver_version}"
        elif found[0] != driver_version:
            has = f"has dsfedmed_ray {found[0]}, this driver has {driver_version}"
        elif found[1] != driver_code:
            has = (
                f"has other code of dsfedmed_ray {driver_version} ({found[1]}, this driver "
                f"{driver_code})"
            )
        else:
            continue
        raise ResourceError(
            f"node {name} {has}; run 'make wheel' and 'ray up cluster.yaml' again, or install the "
            "driver's wheel on the node"
        )


def ask_nodes(
    question: Callable[..., Any], *arguments: Any, beside: Container[str] = ()
) -> Iterator[tuple[str, str, Any]]:
    """Runs a function on every live node.

    Args:
        question: what to run; it asks for no CPU.
        *arguments: given to it.
        beside: ids of nodes to leave out.

    Yields:
        A node's id, its address and the answer.

    Raises:
        ResourceError: a node does not answer.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0)(question)
    nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in beside]
    asked = []
    for node in nodes:
        on_node = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked.append(ask.options(scheduling_strategy=on_node).remote(*arguments))
    for node, answer in zip(nodes, asked, strict=True):
        name = node["NodeManagerAddress"]
        try:
            yield node["NodeID"], name, ray.get(answer, timeout=_NODE_SECONDS)
        except (GetTimeoutError, RayError) as error:
            raise ResourceError(
                f"node {name} cannot run a task ({type(error).__name__}); "
                "look at 'ray status' on the cluster"
            ) from error


def _driver_versions() -> Versions:
    import ray

    return Versions(ray=ray.__version__, python=platform.python_version())


def _resolve(address: str) -> str:
    """``host:port`` of a cluster's head."""
    if "://" in address:
        raise ResourceError(
            f"{address} is not the address of a cluster's head; give HOST:PORT, "
            "or submit the run with 'ray job submit --address'"
        )
    from ray._private.services import canonicalize_bootstrap_address_or_die

    try:
        return canonicalize_bootstrap_address_or_die(address)
    except ConnectionError as error:
        raise ResourceError(
            "no Ray cluster runs on this machine; start one with 'ray start --head', "
            "or set RAY_ADDRESS=HOST:PORT"
        ) from error
    except (ValueError, OSError) as error:
        raise ResourceError(
            f"{address!r} is not the address of a cluster; give HOST:PORT or auto"
        ) from error


def _check_listening(address: str) -> None:
    """Speaks the first bytes of HTTP/2, which a head answers and, say, a Redis server does not."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS) as head:
            if os.environ.get("RAY_USE_TLS") == "1":
                return
            head.sendall(_HTTP2_PREFACE)
            answer = head.recv(9)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ResourceError(
            f"no Ray cluster answers at {address} ({reason}); correct RAY_ADDRESS, "
            "or start a cluster with 'ray up cluster.yaml'"
        ) from error
    if len(answer) < 4 or answer[3] != _HTTP2_SETTINGS:
        raise ResourceError(
            f"what answers at {address} is not a Ray cluster; give the port of 'ray start --head'"
        )


def _check_token_found(address: str) -> None:
    """Ray ends the whole process when it needs a token and finds none; an error is better."""
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
    from ray.exceptions import AuthenticationError

    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return
    try:
        found = AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True)
    except AuthenticationError:  # RAY_AUTH_TOKEN_PATH names a file that cannot be read
        found = False
    if not found:
        path = os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"
        raise ResourceError(
            f"no token for the cluster at {address} in {path}; "
            "set RAY_AUTH_TOKEN_PATH to the cluster's token file"
        )


def _ask_versions(address: str) -> Versions:
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.exceptions import AuthenticationError, RpcError

    try:
        answer = GcsClient(address=address).internal_kv_get(b"CLUSTER_METADATA", b"cluster")
    except AuthenticationError as error:
        raise ResourceError(
            f"the cluster at {address} refused this driver's token; {_TOKEN_REMEDY}"
        ) from error
    except RpcError as error:
        raise ResourceError(
            f"the cluster at {address} does not answer ({error}); look at 'ray status' on its head"
        ) from error
    metadata = json.loads(answer)
    return Versions(ray=metadata["ray_version"], python=metadata["python_version"])
