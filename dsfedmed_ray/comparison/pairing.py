"""Which runs may be compared, and how far apart they are.

Two methods are compared on *pairs*: runs of the same data, unseen site and seed. A difference
between means of other runs says more about sites and seeds than about methods.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.run_directory import RunDirectory
from dsfedmed_ray.summary import MEAN, Groups, Scores, Summary, read_summary

DEFAULT_REFERENCE = "fedavg"


@dataclass(frozen=True, kw_only=True, order=True)
class Setting:
    """What two runs must share to be a pair.

    Attributes:
        data: the data set.
        unseen_site: the site left out; empty if none is.
        seed: of the run.
        fingerprint: of the images, masks and their division; empty in summaries of old versions.
    """

    data: str
    unseen_site: str
    seed: int
    fingerprint: str = ""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One method's lightweight model in one setting.

    Attributes:
        method: the row.
        setting: data, unseen site and seed.
        groups: scores of seen sites and of the unseen one.
        per_client_bytes: mean bytes a client; None if not known.
        inference_ms: milliseconds an image; None if not known.
        source: the run directory that told it.
    """

    method: str
    setting: Setting
    groups: Groups
    per_client_bytes: float | None
    inference_ms: float | None
    source: Path

    @property
    def decisive(self) -> Scores:
        """Mean scores on the unseen site, or on the seen sites where none is left out."""
        return self.groups.get("unseen", self.groups["seen"])[MEAN]


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of some numbers.

    Attributes:
        values: the numbers, at least one.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The arithmetic mean."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation; None for a single number."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


Results = dict[str, dict[Setting, Result]]
"""By method, then by setting."""


def read_results(run_dirs: Sequence[Path]) -> Results:
    """Reads runs, and the baselines that they hold where no run of that method is given.

    Raises:
        RunDirectoryError: a run has no whole summary.
        ConfigurationError: two runs have the same method, data, unseen site and seed.
    """
    results: Results = {}
    summaries = {run_dir: read_summary(RunDirectory(run_dir).summary) for run_dir in run_dirs}
    for run_dir, summary in summaries.items():
        result = _own_result(summary, run_dir)
        settings = results.setdefault(result.method, {})
        if result.setting in settings:
            other = settings[result.setting].source
            raise ConfigurationError(
                f"{other} and {run_dir} are both {result.method} on the same data, unseen site "
                f"and seed ({describe(result.setting)}); compare one of them, or name a variant "
                "with method.name=NAME"
            )
        settings[result.setting] = result
    for run_dir, summary in summaries.items():
        for result in _baselines(summary, run_dir):
            results.setdefault(result.method, {}).setdefault(result.setting, result)
    return results


def differences(
    results: Mapping[Setting, Result], reference: Mapping[Setting, Result]
) -> dict[Setting, float]:
    """Dice minus the reference's Dice in every setting that both have, in points (hundredths)."""
    return {
        setting: 100 * (results[setting].decisive["dice"] - reference[setting].decisive["dice"])
        for setting in sorted(results.keys() & reference.keys())
    }


def choose_reference(results: Results, wanted: str | None) -> str:
    """The method that the others are compared with.

    Args:
        results: all methods.
        wanted: a method's name; None takes ``fedavg``, or the first one where there is none.

    Raises:
        ConfigurationError: there is no such method.
    """
    if wanted is None:
        return DEFAULT_REFERENCE if DEFAULT_REFERENCE in results else next(iter(results))
    if wanted not in results:
        raise ConfigurationError(
            f"reference {wanted!r} is not a method of these runs; methods: {', '.join(results)}"
        )
    return wanted


def describe(setting: Setting) -> str:
    """A setting in words: ``brain_sites, unseen east, seed 0``."""
    unseen = f", unseen {setting.unseen_site}" if setting.unseen_site else ""
    return f"{setting.data}{unseen}, seed {setting.seed}"


def _own_result(summary: Summary, run_dir: Path) -> Result:
    return Result(
        method=summary["method"],
        setting=_setting(summary),
        groups=summary["metrics"]["lightweight"],
        per_client_bytes=summary["communication"]["per_client_bytes"],
        inference_ms=summary["inference_ms"].get("lightweight"),
        source=run_dir,
    )


def _baselines(summary: Summary, run_dir: Path) -> Iterable[Result]:
    for name, baseline in summary.get("baselines", {}).items():
        yield Result(
            method=name,
            setting=_setting(summary),
            groups=baseline["lightweight"],
            per_client_bytes=baseline.get("per_client_bytes"),
            inference_ms=baseline.get("inference_ms"),
            source=run_dir,
        )


def _setting(summary: Summary) -> Setting:
    return Setting(
        data=summary["data"],
        unseen_site=summary["split"]["unseen_site"] or "",
        seed=summary["seed"],
        fingerprint=summary.get("data_fingerprint", ""),
    )
