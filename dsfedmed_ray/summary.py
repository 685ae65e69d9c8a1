"""``summary.json``: what a run found. Its schema, in one place, its reader and its writer.

Other keys may stand beside those named here; readers pass over what they do not know.
"""

import json
import math
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Any,
    NotRequired,
    TypedDict,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from dsfedmed_ray.errors import RunDirectoryError
from dsfedmed_ray.run_directory import write_json

MEAN = "mean"
"""The key of averages beside the names of sites."""


class Scores(TypedDict):
    """Dice and IoU in [0, 1]; HD95 in pixels."""

    dice: float
    iou: float
    hd95_px: float


class Groups(TypedDict):
    """Scores by site and their mean; ``unseen`` is absent where no site is left out."""

    seen: dict[str, Scores]
    unseen: NotRequired[dict[str, Scores]]


class Metrics(TypedDict):
    """Scores of each model; ``foundation`` is absent where the method has none."""

    lightweight: Groups
    foundation: NotRequired[Groups]


class Baseline(Metrics):
    """Another method's scores on the same split and seed, with its cost where known."""

    per_client_bytes: NotRequired[float]
    inference_ms: NotRequired[float]


class Split(TypedDict):
    """Which site is left out; None where every site keeps its own test part."""

    unseen_site: str | None


class Communication(TypedDict):
    """Bytes between server and clients; ``per_client_bytes`` is the mean over clients."""

    total_bytes: int
    per_client_bytes: float
    by_stage: dict[str, int]
    by_direction: NotRequired[dict[str, int]]


class Memorisation(TypedDict):
    """Distance of synthetic images to training images over that of held-out real images."""

    ratio: float
    flag: bool


class GeneratorQuality(TypedDict, total=False):
    """Measurements by the simulator, outside the ledger."""

    tstr_ratio: float
    tstr_ratio_min: float
    mask_agreement: float
    kid: float
    memorisation: Memorisation


class Summary(TypedDict):
    """The whole file.

    ``inference_ms`` is by model; ``wall_seconds`` by stage and ``total``; ``versions`` by package.
    ``baselines`` are other methods' scores by name, such as those of a stage before.
    ``data_fingerprint`` identifies images, masks and their division; ``compare`` pairs by it.
    ``simulated_seconds`` by stage are there where ``runtime.availability`` has a clock: it counts
    the rounds of ``train_federated`` and, as ``tune_generators``, the slowest ControlNet upload.
    """

    method: str
    data: str
    split: Split
    seed: int
    metrics: Metrics
    communication: Communication
    inference_ms: dict[str, float]
    wall_seconds: dict[str, float]
    versions: dict[str, str]
    data_fingerprint: NotRequired[str]
    generator: NotRequired[GeneratorQuality | None]
    baselines: NotRequired[dict[str, Baseline]]
    simulated_seconds: NotRequired[dict[str, float]]


def read_summary(path: Path) -> Summary:
    """Reads and checks a summary.

    Raises:
        RunDirectoryError: the file is missing, damaged or lacks something.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunDirectoryError(
            f"cannot read {path}: {error.strerror}; give the directory of a finished run, "
            "or finish it with resume=true"
        ) from error
    except ValueError as error:
        raise RunDirectoryError(
            f"{path} is not JSON ({error}); repeat its last stage with resume=true"
        ) from error
    return check_summary(value, str(path))


def write_summary(path: Path, summary: Summary) -> None:
    """Checks a summary and writes it atomically.

    Raises:
        RunDirectoryError: it lacks something or cannot be written.
    """
    write_json(path, check_summary(summary, path.name))


def check_summary(value: Any, name: str) -> Summary:
    """Checks a value against :class:`Summary`.

    Args:
        value: decoded JSON.
        name: of the file, for the message.

    Raises:
        RunDirectoryError: names the first key that is missing or of another kind.
    """
    problem = _first_problem(value, Summary, "") or _first_group_without_mean(value)
    if problem:
        raise RunDirectoryError(
            f"{name} is not a summary of this version: {problem}; repeat the run, or read it with "
            "the version that wrote it"
        )
    return cast(Summary, value)


def _first_problem(value: Any, kind: Any, where: str) -> str | None:
    if is_typeddict(kind) or get_origin(kind) is dict:
        return _first_problem_inside(value, kind, where)
    if get_origin(kind) is UnionType:
        problems = [_first_problem(value, option, where) for option in get_args(kind)]
        return None if None in problems else problems[0]
    if _is_a(value, kind):
        return None
    return f"{where} is {value!r}, expected {_KINDS[kind]}"


def _first_problem_inside(value: Any, kind: Any, where: str) -> str | None:
    if not isinstance(value, dict):
        return f"{where or 'it'} is {value!r}, expected an object"
    if is_typeddict(kind):
        hints = get_type_hints(kind)
        missing = sorted(kind.__required_keys__ - value.keys())
        if missing:
            return f"{_join(where, missing[0])} is missing"
    else:
        hints = dict.fromkeys(value, get_args(kind)[1])
    known = (key for key in hints if key in value)
    problems = (_first_problem(value[key], hints[key], _join(where, key)) for key in known)
    return next((problem for problem in problems if problem), None)


_KINDS = {str: "a text", int: "an integer", float: "a finite number", bool: "true or false"}
_KINDS[NoneType] = "null"


def _is_a(value: Any, kind: type) -> bool:
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, kind)


def _first_group_without_mean(summary: Summary) -> str | None:
    for start, metrics in [
        ("metrics", summary["metrics"]),
        *((f"baselines.{name}", value) for name, value in summary.get("baselines", {}).items()),
    ]:
        for model in ("lightweight", "foundation"):
            for group, sites in cast(dict[str, Any], metrics).get(model, {}).items():
                if MEAN not in sites:
                    return f"{start}.{model}.{group}.{MEAN} is missing"
    return None


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
