"""The tables of ``dsfedmed cost``."""

from io import StringIO

from rich.console import Console
from rich.table import Table

from dsfedmed_ray.accounting.cost import CommunicationRow, InferenceRow
from dsfedmed_ray.report.cost_tables import communication_cost_table, inference_cost_table


def printed(table: Table) -> str:
    console = Console(file=StringIO(), width=100)
    console.print(table)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_communication_in_millions_and_share_of_fedsam() -> None:
    """2.5 million values are 2.50 M; a reduction of 0.9 leaves 10.0 % of FedSAM."""
    row = CommunicationRow(
        method="FedTiny",
        wire_dtype="float32",
        state_parameters=2_500_000,
        once_parameters=0,
        total_mb=1907.35,
        reduction_fraction=0.9,
        paper_mb=None,
    )
    text = printed(communication_cost_table([row], num_rounds=100))
    assert "2.50" in text
    assert "1,907" in text
    assert "10.0%" in text


def test_inference_in_milliseconds() -> None:
    row = InferenceRow(
        model="U-Net",
        image_size=128,
        num_parameters=100_976,
        median_ms=5.04,
        p95_ms=6.0,
        num_runs=50,
        warmup=2,
        device="cpu",
        num_threads=1,
    )
    text = printed(inference_cost_table([row]))
    assert "100,976" in text
    assert "5.0" in text
    assert "cpu, 1 thread" in text
    assert "2 + 50" in text
