"""What a client keeps for itself between rounds, on its disk, by client and round."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dsfedmed_ray.run_directory import write_atomically
from dsfedmed_ray.runtime.checkpoints import save_tensors


@dataclass(frozen=True, kw_only=True)
class ClientFiles:
    """One kind of client state, a file for each client and round in which it trained.

    A round that is done again after a failure must start from the round before, not from its own
    end; and a run that goes on after a checkpoint must not see what it wrote beyond it. So reading
    always says before which round.

    Attributes:
        folder: of all clients.
        kind: names the files, for example ``"optimizer"``.
        num_kept: files of a client that are kept; None keeps all.
    """

    folder: Path
    kind: str
    num_kept: int | None

    def newest(self, client_id: int, *, before: int) -> Any | None:
        """The client's state from its last round before one; None if it had none."""
        for round_index, path in self._files(client_id):
            if round_index < before:
                return torch.load(path, weights_only=True)
        return None

    def save(self, client_id: int, round_index: int, content: Any) -> None:
        """Writes the client's state after a round and removes what no run goes back to.

        Raises:
            RunDirectoryError: the disk is full or the folder cannot be written.
        """
        path = self._folder(client_id) / f"{self.kind}-{round_index:06d}.pt"
        write_atomically(path, lambda temporary: save_tensors(content, temporary))
        files = self._files(client_id)
        # What a run wrote beyond the checkpoint that it now goes on from is not the newest state.
        later = [file for number, file in files if number > round_index]
        before = [file for number, file in files if number <= round_index]
        for old in later + (before[self.num_kept :] if self.num_kept is not None else []):
            old.unlink(missing_ok=True)

    def _files(self, client_id: int) -> list[tuple[int, Path]]:
        """By round, newest first."""
        start = f"{self.kind}-"
        paths = self._folder(client_id).glob(f"{start}*.pt")
        return sorted(((int(p.stem.removeprefix(start)), p) for p in paths), reverse=True)

    def _folder(self, client_id: int) -> Path:
        return self.folder / f"{client_id:07d}"
