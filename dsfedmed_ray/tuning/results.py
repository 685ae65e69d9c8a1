"""What a study found, trial by trial: ``results.json``, the best trial, and a table."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dsfedmed_ray.errors import DSFedMedError
from dsfedmed_ray.run_directory import write_atomically, write_json
from dsfedmed_ray.tuning.overrides import command_line
from dsfedmed_ray.units import format_seconds

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

BASELINE = "baseline"
"""The trial of the untouched configuration."""

Status = Literal["finished", "stopped early", "failed", "unfinished"]


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """One trial.

    Attributes:
        name: its folder under ``trials/``.
        values: what it tried, by override path; empty for the baseline.
        overrides: what ``dsfedmed run`` needs to repeat it.
        status: ``stopped early`` by ASHA or the budget.
        score: the space's metric; None if nothing was reported.
        epoch: validated rounds or epochs done, from 1; 0 if none.
        num_epochs: planned.
        stages_run: stages that this trial ran itself; the others came from the stage store.
        seconds: wall time, of its last start if it was interrupted.
        overhead_seconds: of these, outside the stages that it ran: imports, models, look-ups.
        error: of a failed trial, one line.
    """

    name: str
    values: dict[str, Any]
    overrides: tuple[str, ...]
    status: Status
    score: float | None = None
    epoch: int = 0
    num_epochs: int = 0
    stages_run: tuple[str, ...] = field(default_factory=tuple)
    seconds: float = 0.0
    overhead_seconds: float = 0.0
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """A finished study.

    Attributes:
        metric: the space's.
        baseline: the untouched configuration.
        trials: by name.
    """

    metric: str
    baseline: TrialResult
    trials: tuple[TrialResult, ...]

    @property
    def best(self) -> TrialResult:
        """The highest score, the baseline's where no trial is above it."""
        best = self.baseline
        for trial in self.trials:
            if trial.score is not None and (best.score is None or trial.score > best.score):
                best = trial
        return best

    @property
    def relative_cost(self) -> float | None:
        """Mean seconds of a trial over those of the baseline; None unless it ran its stages."""
        seconds = [trial.seconds for trial in self.trials if trial.status != "failed"]
        if not (seconds and self.baseline.stages_run):
            return None
        return sum(seconds) / len(seconds) / self.baseline.seconds


def trial_result(
    name: str,
    values: Mapping[str, Any],
    overrides: Sequence[str],
    reported: Mapping[str, Any],
    *,
    metric: str,
    status: Status,
    error: str | None = None,
) -> TrialResult:
    """A result from a trial's last report, which may be empty."""
    return TrialResult(
        name=name,
        values=dict(values),
        overrides=tuple(overrides),
        status=status,
        score=reported.get(metric),
        epoch=reported.get("epoch", 0),
        num_epochs=reported.get("num_epochs", 0),
        stages_run=tuple(reported.get("stages_run", ())),
        seconds=reported.get("seconds", 0.0),
        overhead_seconds=reported.get("overhead_seconds", 0.0),
        error=error,
    )


def require_a_score(result: StudyResult) -> None:
    """Refuses a study in which every trial failed.

    Raises:
        DSFedMedError: names the first failure.
    """
    if all(trial.score is None for trial in result.trials):
        errors = [trial.error for trial in result.trials if trial.error]
        reason = f"; the first: {errors[0]}" if errors else ""
        raise DSFedMedError(f"none of {len(result.trials)} trials reported a score{reason}")


def write_results(result: StudyResult, path: Path) -> None:
    """Writes all trials as JSON."""
    content = asdict(result)
    content["best"] = result.best.name
    write_json(path, json.loads(json.dumps(content)))


def write_best(result: StudyResult, path: Path) -> None:
    """Writes the best trial as a YAML file for ``dsfedmed run --from``."""
    import yaml

    best = result.best
    text = (
        f"# Trial {best.name} of {len(result.trials)}: {result.metric} {_score(best)} on the seen "
        f"sites' validation parts.\n# dsfedmed run --from {path}\n"
        + yaml.safe_dump({"overrides": list(best.overrides)}, default_flow_style=False)
    )
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """The shortest endings that tell paths apart: ``method.selection.ratio`` is ``ratio``."""
    names = {}
    for path in paths:
        parts = path.split(".")
        endings = [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]
        names[path] = next(
            (
                ending
                for ending in endings
                if all(other == path or not f".{other}".endswith(f".{ending}") for other in paths)
            ),
            path,
        )
    return names


def results_table(result: StudyResult, num_shown: int = 20, width: int | None = None) -> "Table":
    """The baseline, then the best trials; the title names the score.

    Args:
        result: of the study.
        num_shown: trials, the baseline not counted.
        width: characters that there are. Settings have a column each where they fit, else one for
            all of them; None always gives columns.
    """
    from rich import box
    from rich.table import Table

    names = short_names(sorted({path for trial in result.trials for path in trial.values}))
    table = Table(
        title=f"{len(result.trials)} trials by {result.metric}, seen sites",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("trial", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    in_columns = width is None or _columns_width(names.values()) <= width
    for name in names.values() if in_columns else ():
        table.add_column(name.replace("_", " "), justify="right", overflow="fold")
    if not in_columns:
        table.add_column("settings")
    for heading in ("epoch", "time", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    ranked = sorted(result.trials, key=lambda trial: -(trial.score or -1.0))
    for trial in (result.baseline, *ranked[:num_shown]):
        given = {name: _value(trial.values.get(path)) for path, name in names.items()}
        values = given.values() if in_columns else [_in_one_cell(given)]
        epoch = f"{trial.epoch}/{trial.num_epochs}" if trial.num_epochs else "–"
        style = "bold cyan" if trial == result.best else "dim" if trial.score is None else ""
        table.add_row(
            trial.name,
            _score(trial),
            *values,
            epoch,
            format_seconds(trial.seconds),
            "" if trial.status == "finished" else trial.status.removesuffix(" early"),
            style=style,
        )
    return table


def _columns_width(names: Iterable[str]) -> int:
    """Of a readable table: no word of a heading broken, beside 36 characters for what is fixed."""
    return 36 + sum(2 + max(6, *(len(word) for word in name.split("_"))) for name in names)


def _in_one_cell(given: dict[str, str]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in given.items())


def print_study(result: StudyResult, study: Path, console: "Console") -> None:
    """Prints the table and what to do next."""
    console.print(results_table(result, width=console.width))
    for line in closing_lines(result, study):
        console.print(line, style="dim", highlight=False, markup=False, soft_wrap=True)


def closing_lines(result: StudyResult, study: Path) -> list[str]:
    """What to do next: the line that repeats the best trial, and where the others' lines are."""
    best = result.best
    lines = [
        "no trial is above the untouched configuration"
        if best is result.baseline
        else f"best           {best.name}, {_score(best)}; baseline {_score(result.baseline)}",
        f"repeat it      {command_line(best.overrides)}",
        f"or             dsfedmed run --from {study / 'best.yaml'}",
        f"study          {study}",
    ]
    cost = result.relative_cost
    if cost is not None:
        ran = format_seconds(sum(trial.seconds for trial in result.trials))
        whole = format_seconds(result.baseline.seconds)
        lines.insert(1, f"cost           {ran} in trials, {cost:.2f} of a whole run ({whole}) each")
    failed = [trial for trial in result.trials if trial.status == "failed"]
    if failed:
        lines.insert(1, f"failed         {len(failed)} trials; {failed[0].name}: {failed[0].error}")
    return lines


def _score(trial: TrialResult) -> str:
    return "–" if trial.score is None else f"{trial.score:.4f}"


def _value(value: Any) -> str:
    return "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
