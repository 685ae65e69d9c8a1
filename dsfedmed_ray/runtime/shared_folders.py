"""Whether every node of a cluster sees the run's folders.

Generators read uploads and write the synthetic set by path, clients keep their state by path. On a
node without the shared folder this would fail in the middle of a run, or leave files where nobody
looks for them.
"""

import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import ray

from dsfedmed_ray.errors import ResourceError, RunDirectoryError
from dsfedmed_ray.runtime.cluster_check import ask_nodes


class SharedFolders:
    """Asks each node once.

    Args:
        folders: that every node must see under the driver's paths. They need not exist: a file is
            laid for a moment into the nearest folder above that does.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = [path.absolute() for path in folders]
        self._asked = {ray.get_runtime_context().get_node_id()}

    def check(self) -> None:
        """Asks the nodes that have not been asked: all of them, later those that came.

        Raises:
            ResourceError: a node does not see a folder, or does not answer.
            RunDirectoryError: a folder cannot be written here.
        """
        nodes = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        if nodes <= self._asked:
            return
        for folder in self._folders:
            self._check(folder)
        self._asked |= nodes

    def _check(self, folder: Path) -> None:
        there = next(path for path in (folder, *folder.parents) if path.is_dir())
        mark = there / f".dsfedmed-{uuid.uuid4().hex}"
        try:
            mark.touch()
        except OSError as error:
            raise RunDirectoryError(
                f"cannot write {there}: {error.strerror}; choose another run.dir or store.dir"
            ) from error
        try:
            for _, name, seen in ask_nodes(os.path.exists, str(mark), beside=self._asked):
                if not seen:
                    raise ResourceError(
                        f"node {name} does not see {folder}, where this run keeps its files; give "
                        "run.dir and store.dir in a folder that all nodes mount under one path "
                        "(docs/clusters/README.md)"
                    )
        finally:
            mark.unlink()
