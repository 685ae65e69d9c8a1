"""The plain layout: ``ROOT/SITE/{images,masks}/NAME.{png,tif,tiff,npy}``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsfedmed_ray.data.file_federation import (
    FileFederation,
    FilePair,
    check_group_regex,
    check_settings,
    pair_by_name,
    parent_name,
    site_folders,
)


@dataclass(frozen=True, kw_only=True)
class FolderConfig:
    """Settings of a data set in the plain layout.

    Attributes:
        root: the folder of sites.
        image_size: side of the square that images and masks are fitted into, pixels.
        structures: one name for each mask channel; null for one structure, ``foreground``.
        group_regex: what is removed from a name to give its parent image, such as ``_[0-3]$`` for
            four tiles; pairs of one parent stay in one part. Null: every pair is its own parent.
        max_train_pairs: the most training pairs of a seen site, which the split keeps to
            (conf/split reads it from here); null for all.
        check_pairs: pairs read on opening, evenly spaced, to find damaged files before a run
            starts; null reads all.
    """

    root: str
    image_size: int = 128
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
            DataError: the root, a site or a file cannot be used.
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
        found = pair_by_name(folder.name, folder / "images", folder / "masks")
        return [
            FilePair(
                sample_id=name, image=image, mask=mask, group=parent_name(name, self.group_regex)
            )
            for name, (image, mask) in found.items()
        ]
