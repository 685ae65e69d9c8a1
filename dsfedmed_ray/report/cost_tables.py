"""The two tables of ``dsfedmed cost`` for a terminal."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from dsfedmed_ray.accounting.cost import CommunicationRow, InferenceRow


def communication_cost_table(rows: Sequence[CommunicationRow], num_rounds: int) -> Table:
    """MB a client by method and number format; values that travel in millions."""
    table = Table(
        title=f"MB (2^20 bytes) a client, {num_rounds} rounds, up and down",
        box=box.SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
    )
    table.add_column("method")
    table.add_column("format", no_wrap=True)
    for heading in ("M a round", "M once", "MB", "of FedSAM", "paper"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.method,
            row.wire_dtype,
            f"{row.state_parameters / 1e6:.2f}",
            f"{row.once_parameters / 1e6:.2f}" if row.once_parameters else "",
            f"{row.total_mb:,.0f}",
            f"{1 - row.reduction_fraction:.1%}",
            f"{row.paper_mb:,.0f}" if row.paper_mb is not None else "",
        )
    return table


def inference_cost_table(rows: Sequence[InferenceRow]) -> Table:
    """Milliseconds an image by model."""
    where = sorted({f"{row.device}, {row.num_threads} thread(s)" for row in rows})
    table = Table(
        title=f"Inference of one image at a time, random weights; {'; '.join(where)}",
        box=box.SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
    )
    table.add_column("model")
    for heading in ("input px", "parameters", "median ms", "p95 ms", "warm-up + runs"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.model,
            str(row.image_size),
            f"{row.num_parameters:,}",
            f"{row.median_ms:,.1f}",
            f"{row.p95_ms:,.1f}",
            f"{row.warmup} + {row.num_runs}",
        )
    return table
