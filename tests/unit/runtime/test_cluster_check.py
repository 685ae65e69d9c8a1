"""What is refused without a cluster: versions that differ and addresses where none answers."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from dsfedmed_ray.errors import ResourceError
from dsfedmed_ray.runtime.cluster_check import Versions, check_cluster, compare_versions

OURS = Versions(ray="2.60.0", python="3.11.7")


def test_equal_versions_pass() -> None:
    compare_versions(OURS, OURS, "head:6379")


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        (
            Versions(ray="2.59.1", python="3.11.7"),
            r"the cluster at head:6379 runs Ray 2\.59\.1, this driver Ray 2\.60\.0; "
            r"install ray==2\.59\.1 here, or restart the cluster with 2\.60\.0",
        ),
        (
            Versions(ray="2.60.0", python="3.12.3"),
            r"runs Python 3\.12\.3, this driver Python 3\.11\.7; use Python 3\.12\.3 here, or",
        ),
        (Versions(ray="2.60.0", python="3.11.9"), r"runs Python 3\.11\.9, this driver"),
    ],
)
def test_other_versions_are_named(
    cluster: Versions, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL", raising=False)
    with pytest.raises(ResourceError, match=message) as caught:
        compare_versions(cluster, OURS, "head:6379")
    assert "\n" not in str(caught.value)


def test_pythons_patch_version_may_differ_where_ray_allows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL", "minor")
    compare_versions(Versions(ray="2.60.0", python="3.11.9"), OURS, "head:6379")
    with pytest.raises(ResourceError, match=r"Python 3\.12\.7"):
        compare_versions(Versions(ray="2.60.0", python="3.12.7"), OURS, "head:6379")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://head:10001", "not the address of a cluster's head; give HOST:PORT"),
        ("http://head:8265", "or submit the run with 'ray job submit --address'"),
        ("nonsense", "'nonsense' is not the address of a cluster; give HOST:PORT or auto"),
        ("head.invalid:6379", r"no Ray cluster answers at head\.invalid:6379 \("),
    ],
)
def test_other_addresses_are_refused(address: str, message: str) -> None:
    with pytest.raises(ResourceError, match=message):
        check_cluster(address)


def test_no_cluster_is_found_at_once() -> None:
    """Ray itself retries for forty seconds; a refused connection is known in milliseconds."""
    with socket.socket() as reserved:  # bound but not listening: connections are refused
        reserved.bind(("127.0.0.1", 0))
        started = time.monotonic()
        with pytest.raises(ResourceError, match=r"\(Connection refused\); correct RAY_ADDRESS"):
            check_cluster(f"127.0.0.1:{reserved.getsockname()[1]}")
    assert time.monotonic() - started < 5


@pytest.fixture(params=[b"-ERR unknown command 'PRI'\r\n", b""])
def other_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """Something that is not Ray: it answers as Redis does, or closes the connection."""
    with socket.create_server(("", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(64)
                connection.sendall(request.param)

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def test_another_server_is_not_a_cluster(other_server: str) -> None:
    with pytest.raises(ResourceError, match=r"is not a Ray cluster; give the port of 'ray start"):
        check_cluster(other_server)
