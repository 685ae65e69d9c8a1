"""The report: one page that holds everything it shows and asks the network for nothing."""

from collections.abc import Iterable
from html import escape
from importlib import resources
from pathlib import Path

from dsfedmed_ray.accounting.communication import read_transfers
from dsfedmed_ray.records import ProgressRecord, Transfer
from dsfedmed_ray.report.figures import draw_rounds
from dsfedmed_ray.report.headline import headline
from dsfedmed_ray.report.markup import bars, picture, section
from dsfedmed_ray.report.results import results
from dsfedmed_ray.report.rows import method_name, quality_phrases
from dsfedmed_ray.run_directory import RunDirectory, read_json_lines, write_atomically
from dsfedmed_ray.summary import Summary, read_summary
from dsfedmed_ray.units import format_bytes, format_seconds


def write_report(run_dir: RunDirectory) -> Path:
    """Writes ``report.html`` and ``figures/rounds.png`` of a finished run.

    Returns:
        The page's path.

    Raises:
        RunDirectoryError: the run has no whole summary, or its directory cannot be written.
    """
    summary = read_summary(run_dir.summary)
    records = [ProgressRecord(**line) for line in read_json_lines(run_dir.rounds)]
    parts = [
        headline(summary),
        results(summary),
        _curves(draw_rounds(records, run_dir.figures / "rounds.png")),
        '<div class="columns">',
        _communication(summary, read_transfers(run_dir.transfers)),
        _time(summary),
        "</div>",
        _synthetic_set(summary, run_dir.figures / "synthetic.png"),
        _predictions(run_dir.figures / "predictions.png"),
        _settings(summary, run_dir.config),
    ]
    page = _page(summary, "\n".join(part for part in parts if part))

    def write(temporary: Path) -> None:
        temporary.write_text(page, encoding="utf-8")

    write_atomically(run_dir.report, write)
    return run_dir.report


def _page(summary: Summary, body: str) -> str:
    style = resources.files("dsfedmed_ray.report").joinpath("report.css").read_text("utf-8")
    title = f"{method_name(summary['method'])} on {summary['data']}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>\n{style}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def _curves(svg: str | None) -> str:
    if svg is None:
        return ""
    return section(
        "Validation",
        f"<figure>{svg}<figcaption>Dice on the validation images of the seen sites. Solid: "
        "lightweight model. Dashed: foundation model. Thin: single sites.</figcaption></figure>",
    )


def _communication(summary: Summary, transfers: Iterable[Transfer]) -> str:
    stages: dict[str, list[float]] = {}
    for transfer in transfers:
        amounts = stages.setdefault(transfer.stage, [0, 0])
        amounts[transfer.direction == "downlink"] += transfer.num_bytes
    if not stages:
        return ""
    total = format_bytes(summary["communication"]["total_bytes"])
    return section(
        "Communication",
        f'<p class="note">{total} in all, by stage. '
        '<span class="nowrap"><i class="key part0"></i>to the server</span> '
        '<span class="nowrap"><i class="key part1"></i>to the clients</span></p>'
        + bars(stages, format_bytes),
    )


def _time(summary: Summary) -> str:
    stages = {
        stage: [seconds] for stage, seconds in summary["wall_seconds"].items() if stage != "total"
    }
    total = format_seconds(summary["wall_seconds"]["total"])
    return section(
        "Time",
        f'<p class="note">{total} from start to end; stages may overlap.</p>'
        + bars(stages, format_seconds),
    )


def _synthetic_set(summary: Summary, path: Path) -> str:
    phrases = quality_phrases(summary)
    measured = f'<p class="note">{escape(", ".join(phrases))}.</p>' if phrases else ""
    shown = picture(path, "For each client a mask, a real image and synthetic images.")
    return section("Synthetic set", measured + shown) if measured or shown else ""


def _predictions(path: Path) -> str:
    shown = picture(
        path,
        "For each site the test image of median Dice, its mask and the lightweight model's "
        "prediction.",
    )
    return section("Predictions", shown) if shown else ""


def _settings(summary: Summary, config: Path) -> str:
    versions = "".join(
        f"<div><dt>{escape(package)}</dt><dd>{escape(version)}</dd></div>"
        for package, version in summary["versions"].items()
    )
    text = config.read_text(encoding="utf-8") if config.exists() else ""
    details = (
        f"<details><summary>Resolved configuration</summary><pre>{escape(text)}</pre></details>"
        if text
        else ""
    )
    return section("Settings", f"<dl>{versions}</dl>{details}")
