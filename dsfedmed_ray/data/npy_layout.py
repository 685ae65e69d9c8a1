"""The layout of the paper's release: ``ROOT/CLIENT/{data_npy,label_npy,val_*}/NAME.npy``.

Images are height x width x channels, 0-255; masks may be smaller by an integer factor (the
release pairs images of 1024 pixels with masks of 256). Training and held-out pairs are given by
the layout, and the split honours them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsfedmed_ray.data.federation import FixedPart
from dsfedmed_ray.data.file_federation import (
    FileFederation,
    FilePair,
    check_group_regex,
    check_settings,
    pair_by_name,
    parent_name,
    site_folders,
)

_FOLDERS: tuple[tuple[FixedPart, str, str, str], ...] = (
    ("train", "train", "data_npy", "label_npy"),
    ("held_out", "val", "val_data_npy", "val_label_npy"),
)


@dataclass(frozen=True, kw_only=True)
class NpyConfig:
    """Settings of a data set in the release's layout.

    Attributes:
        root: the folder of clients.
        image_size: side of the square that images and masks are fitted into, pixels.
        structures: one name for each mask channel; null for one structure, ``foreground``.
        group_regex: what is removed from a name to give the image, volume or patient that it is
            part of, such as ``_slice[0-9]+$``: held-out pairs of one group are not divided between
            validation and test; null makes every pair a group.
        max_train_pairs: the most training pairs of a seen site, which the split keeps to
            (conf/split reads it from here); null for all.
        check_pairs: pairs read on opening, evenly spaced, to find damaged files before a run
            starts; null reads all.
    """

    root: str
    image_size: int = 256
    structures: Sequence[str] | None = None
    group_regex: str | None = None
    max_train_pairs: int | None = None
    check_pairs: int | None = 2000

    def __post_init__(self) -> None:
        if self.structures is not None:
            object.__setattr__(self, "structures", tuple(self.structures))
        check_settings(
            image_size=self.image_size, structures=self.structures, check_pairs=self.check_pairs
        )
        check_group_regex(self.group_regex)

    def build(self) -> FileFederation:
        """Finds, pairs and checks the files.

        Raises:
            DataError: the root, a client or a file cannot be used.
        """
        root = Path(self.root).expanduser().resolve()
        federation = FileFederation(
            name=root.name,
            pairs={folder.name: self._pairs(folder) for folder in site_folders(root)},
            structures=self.structures,
            image_size=self.image_size,
        )
        federation.check(self.check_pairs)
        return federation

    def _pairs(self, folder: Path) -> list[FilePair]:
        # The two parts may use the same names, so the part is part of the identity.
        return [
            FilePair(
                sample_id=f"{prefix}_{name}",
                image=image,
                mask=mask,
                group=f"{prefix}_{parent_name(name, self.group_regex)}",
                fixed_part=part,
            )
            for part, prefix, images, masks in _FOLDERS
            for name, (image, mask) in pair_by_name(
                folder.name, folder / images, folder / masks
            ).items()
        ]
