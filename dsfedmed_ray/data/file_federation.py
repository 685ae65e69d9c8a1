"""A federation of image files: pairs found by name, checked on opening, decoded on demand."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dsfedmed_ray.data.federation import FixedPart, list_names, require_two_sites, unknown_site
from dsfedmed_ray.data.image_files import SUFFIXES, check_mask_size, read_image, read_mask
from dsfedmed_ray.data.resizing import fit_image, fit_mask
from dsfedmed_ray.errors import ConfigurationError, DataError
from dsfedmed_ray.records import Sample

DEFAULT_STRUCTURES = ("foreground",)


@dataclass(frozen=True, kw_only=True)
class FilePair:
    """An image file and its mask.

    Attributes:
        sample_id: unique within the site.
        image: the image's file.
        mask: the mask's file.
        group: what the image was cut from; a group is never divided.
        fixed_part: the part that the layout gives it, if it does.
    """

    sample_id: str
    image: Path
    mask: Path
    group: str
    fixed_part: FixedPart | None = None


class FileFederation:
    """Sites of image files.

    Args:
        name: the data set's name.
        pairs: the pairs of each site, in the order of their names.
        structures: one name for each mask channel; None for one structure, ``foreground``.
        image_size: side of the square images and masks, pixels.

    Raises:
        DataError: fewer than two sites, or a site without pairs.
        ConfigurationError: the structures or the size are impossible.
    """

    def __init__(
        self,
        *,
        name: str,
        pairs: Mapping[str, Sequence[FilePair]],
        structures: Sequence[str] | None,
        image_size: int,
    ) -> None:
        require_two_sites(name, sorted(pairs))
        for site, found in pairs.items():
            if not found:
                raise DataError(
                    f"site {site!r} of {name} has no images; add pairs or remove its folder"
                )
        self.name = name
        self.structures = DEFAULT_STRUCTURES if structures is None else tuple(structures)
        self.image_size = image_size
        self.sites: Sequence[str] = tuple(sorted(pairs))
        self._pairs = {site: tuple(pairs[site]) for site in self.sites}
        self._fingerprint: str | None = None

    def num_pairs(self, site: str) -> int:
        """How many pairs a site has.

        Raises:
            DataError: the site is unknown.
        """
        return len(self._of(site))

    def group(self, site: str, index: int) -> str:
        """What a pair was cut from."""
        return self._of(site)[index].group

    def fixed_part(self, site: str, index: int) -> FixedPart | None:
        """The part that the layout gives a pair, if it does."""
        return self._of(site)[index].fixed_part

    def load(self, site: str, index: int) -> Sample:
        """Reads one pair.

        Raises:
            DataError: a file is damaged, or image and mask do not fit.
        """
        pair = self._of(site)[index]
        image = read_image(pair.image)
        mask = read_mask(pair.mask, self.structures)
        check_mask_size(pair.mask, image.shape, mask.shape)
        return Sample(
            sample_id=pair.sample_id,
            image=fit_image(image, self.image_size),
            mask=fit_mask(mask, self.image_size),
        )

    def check(self, max_pairs: int | None) -> None:
        """Reads pairs to find a damaged one before a run starts.

        Args:
            max_pairs: reads at most this many, evenly spaced over all sites; None reads all.

        Raises:
            DataError: names the first file that cannot be used.
        """
        pairs = [pair for site in self.sites for pair in self._pairs[site]]
        step = 1 if max_pairs is None else -(-len(pairs) // max_pairs)
        for pair in pairs[::step]:
            image = read_image(pair.image)
            check_mask_size(pair.mask, image.shape, read_mask(pair.mask, self.structures).shape)

    def fingerprint(self) -> str:
        """Hashes the settings and every file's bytes, once; the root does not enter."""
        if self._fingerprint is None:
            digest = hashlib.blake2b(repr((self.structures, self.image_size)).encode())
            for site in self.sites:
                for pair in self._pairs[site]:
                    key = (site, pair.sample_id, pair.group, pair.fixed_part)
                    digest.update(repr(key).encode())
                    digest.update(_file_digest(pair.image) + _file_digest(pair.mask))
            self._fingerprint = digest.hexdigest()[:16]
        return self._fingerprint

    def _of(self, site: str) -> tuple[FilePair, ...]:
        if site not in self._pairs:
            raise DataError(unknown_site(site, name=self.name, sites=self.sites))
        return self._pairs[site]


def check_group_regex(pattern: str | None) -> None:
    """Refuses a ``group_regex`` that is none.

    Raises:
        ConfigurationError: it does not compile.
    """
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ConfigurationError(
            f"data.group_regex {pattern!r} is no regular expression: {error}; "
            "use one like '_[0-3]$'"
        ) from error


def parent_name(name: str, pattern: str | None) -> str:
    """What a pair was cut from: its name without what ``group_regex`` matches."""
    return name if pattern is None else re.sub(pattern, "", name)


def pair_by_name(site: str, images: Path, masks: Path) -> dict[str, tuple[Path, Path]]:
    """Pairs the files of two folders by name without suffix, sorted by name.

    Raises:
        DataError: a folder is missing, a file has another suffix, two files share a name, or a
            file has no partner.
    """
    image_files, mask_files = _by_name(site, images), _by_name(site, masks)
    for what, partner, alone in (
        ("images", "mask", sorted(image_files.keys() - mask_files.keys())),
        ("masks", "image", sorted(mask_files.keys() - image_files.keys())),
    ):
        if alone:
            raise DataError(
                f"site {site!r} has {what} without {partner}: {list_names(alone)}; "
                f"{images.name}/ and {masks.name}/ must hold the same names"
            )
    return {name: (image_files[name], mask_files[name]) for name in sorted(image_files)}


def site_folders(root: Path) -> list[Path]:
    """The folders of a root, one for each site, sorted by name; hidden ones are left out.

    Raises:
        DataError: the root is not a folder.
    """
    if not root.is_dir():
        raise DataError(f"data.root {root} is not a folder; set data.root to a folder of sites")
    return sorted(
        path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def check_settings(
    *, image_size: int, structures: Sequence[str] | None, check_pairs: int | None
) -> None:
    """Checks what every layout takes.

    Raises:
        ConfigurationError: the size is below 32, structures are none or repeated, or no pair is
            to be checked.
    """
    if check_pairs is not None and check_pairs < 1:
        raise ConfigurationError(
            f"data.check_pairs {check_pairs} is below 1; use null to read all pairs on opening"
        )
    if image_size < 32:
        raise ConfigurationError(f"data.image_size {image_size} is below 32; use at least 32")
    if structures is not None and (not structures or len(set(structures)) < len(structures)):
        raise ConfigurationError(
            f"data.structures {list(structures)} must name each mask channel once; "
            "use null for masks of one structure"
        )


def _by_name(site: str, folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(
            f"site {site!r} has no folder {folder.name}/ in {folder.parent}; add it, or move what "
            "is not a site out of data.root"
        )
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.suffix.lower() not in SUFFIXES:
            raise DataError(f"{path} is not a file of {', '.join(SUFFIXES)}; convert or remove it")
        if path.stem in files:
            raise DataError(f"{path} and {files[path.stem].name} share a name; remove one of them")
        files[path.stem] = path
    return files


def _file_digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
