"""What a run says while it works: live bars on a terminal, plain lines elsewhere.

A stage announces itself and then reports each round, epoch or job that it finished. Stages may
overlap and report from different threads.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol, TextIO

from dsfedmed_ray.records import ProgressRecord
from dsfedmed_ray.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from rich.console import Console

UNITS = {
    "tune_generators": "client",
    "synthesize": "job",
    "train_federated": "round",
    "adapt_foundation": "epoch",
    "distill_mutually": "epoch",
    "train_on_synthetic": "epoch",
    "refine_federated": "round",
    "refine_fedavg": "round",
    "refine_synthetic": "round",
    "train_centralized": "epoch",
    "scaling": "round",
}
"""What one step of a stage is called; ``step`` for stages that are not listed."""

UNORDERED_UNITS = ("client", "job")
"""Units that finish in any order: a bar counts them. Rounds and epochs have their place."""

HIDDEN = ("num_replies", "num_clients", "downlink_bytes")
"""Values that have no phrase of their own in a line; ``rounds.jsonl`` holds them all."""


class Progress(Protocol):
    """Where stages report to."""

    def stage(self, name: str, total: int) -> AbstractContextManager[object]:
        """Announces a stage; leaving the returned context ends it.

        Args:
            name: of the stage, for example ``"train_federated"``.
            total: planned rounds, epochs or jobs.
        """
        ...

    def advance(self, record: ProgressRecord) -> None:
        """Reports one finished round, epoch or job of an announced stage."""
        ...

    def note(self, text: str) -> None:
        """Says one line, for example which resources were chosen."""
        ...


@contextmanager
def show_progress(stream: TextIO) -> Iterator[Progress]:
    """Live bars if the stream is a terminal, else plain lines.

    Args:
        stream: usually standard error, so that standard output holds results alone.
    """
    if not stream.isatty():
        yield LineProgress(stream)
        return
    from rich.console import Console

    progress = RichProgress(Console(file=stream))
    with progress:
        yield progress


def progress_line(record: ProgressRecord) -> str:
    """One line: ``round 3/20  clients 5/5  dice 0.812  up 41.2 MB  12.4 s``.

    Values whose name holds a slash, such as those of single sites, are left out.
    """
    unit = UNITS.get(record.stage, "step")
    start = f"{unit} {record.index + 1}/{record.total}"
    if unit != "round":
        start = f"{_words(record.stage)}  {start}"
    return "  ".join([start, *_phrases(record.values), format_seconds(record.seconds)])


def _phrases(values: dict[str, float]) -> Iterator[str]:
    if "num_replies" in values and "num_clients" in values:
        yield f"clients {values['num_replies']:.0f}/{values['num_clients']:.0f}"
    for name, value in values.items():
        if name in HIDDEN or "/" in name:
            continue
        if name == "uplink_bytes":
            yield f"up {format_bytes(value)}"
        elif name == "simulated_seconds":
            yield f"simulated {format_seconds(value)}"
        elif name in ("num_absent", "num_late"):
            yield f"{value:.0f} {name.removeprefix('num_')}"
        elif name.endswith("dice"):
            yield f"{_words(name.removeprefix('validation_'))} {value:.3f}"
        else:
            yield f"{_words(name)} {value:.4g}"


def _words(name: str) -> str:
    return name.replace("_", " ")


class SilentProgress:
    """Says nothing."""

    def stage(self, name: str, total: int) -> AbstractContextManager[object]:
        """Ignores the stage."""
        return nullcontext()

    def advance(self, record: ProgressRecord) -> None:
        """Ignores the record."""

    def note(self, text: str) -> None:
        """Ignores the text."""


class LineProgress:
    """Writes one plain line a round, epoch or job, for logs.

    Args:
        stream: flushed after every line.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def stage(self, name: str, total: int) -> AbstractContextManager[object]:
        """Says the stage's name, and at its end how long it took."""
        self.note(_words(name))
        ending = ExitStack()
        ending.callback(self._end, name, time.monotonic())
        return ending

    def advance(self, record: ProgressRecord) -> None:
        """Writes :func:`progress_line`."""
        self.note(progress_line(record))

    def note(self, text: str) -> None:
        """Writes the text."""
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def _end(self, name: str, start_seconds: float) -> None:
        self.note(f"{_words(name)}  took {format_seconds(time.monotonic() - start_seconds)}")


class RichProgress:
    """One live bar a stage with its elapsed time and last values.

    Args:
        console: a terminal.
    """

    def __init__(self, console: "Console") -> None:
        from rich import progress

        self._display = progress.Progress(
            progress.TextColumn("{task.description:<18}"),
            progress.BarColumn(bar_width=24, complete_style="cyan", finished_style="cyan"),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("[dim]{task.fields[values]}"),
            console=console,
        )
        self._bars: dict[str, progress.TaskID] = {}

    def __enter__(self) -> "RichProgress":
        self._display.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._display.stop()

    def stage(self, name: str, total: int) -> AbstractContextManager[object]:
        """Adds a bar, whose clock stops when the stage ends."""
        bar = self._display.add_task(_words(name), total=total, values="")
        self._bars[name] = bar
        ending = ExitStack()
        ending.callback(self._display.stop_task, bar)
        return ending

    def advance(self, record: ProgressRecord) -> None:
        """Moves the stage's bar; a resumed stage starts where it had stopped."""
        bar, values = self._bars[record.stage], "  ".join(_phrases(record.values))
        if UNITS.get(record.stage) in UNORDERED_UNITS:
            self._display.update(bar, advance=1, values=values)
        else:
            self._display.update(bar, completed=record.index + 1, values=values)

    def note(self, text: str) -> None:
        """Prints the text above the bars."""
        self._display.console.print(text, highlight=False, markup=False)
