"""What a method is and what it gives."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from dsfedmed_ray.data.splits import SplitFederation
from dsfedmed_ray.learning.aggregation import StateLayout
from dsfedmed_ray.methods.run_context import RunContext
from dsfedmed_ray.models.segmenter import Segmenter, State

MODEL_FILE = "lightweight.safetensors"
FOUNDATION_FILE = "foundation.safetensors"
"""Names of trained states inside a stage's folder."""

MAX_SCORED_SITES = 100
"""Of a population, this many seen sites are scored: the first ones."""


@dataclass(frozen=True, kw_only=True)
class MethodResult:
    """What a method gives.

    Attributes:
        lightweight: trained state of the model that goes back to the hospitals.
        foundation: trained state of the foundation model; None if the method has none.
        rows: states of the lightweight model that the same run made on its way and that belong in
            the table, by name; for DSFedMed the plain federated model.
        generator_quality: what was measured of the synthetic set.
        site_norms: entries that replace those of ``lightweight`` at a site (FedBN), by site.
        row_norms: the same for each row.
    """

    lightweight: State
    foundation: State | None = None
    rows: dict[str, State] = field(default_factory=dict)
    generator_quality: dict[str, Any] | None = None
    site_norms: dict[str, State] = field(default_factory=dict)
    row_norms: dict[str, dict[str, State]] = field(default_factory=dict)


class Method(Protocol):
    """A row of a comparison: a frozen configuration with a ``run``.

    Attributes:
        name: the row's name.
        uses_foundation: whether it needs the foundation model, which is then checked beforehand.
    """

    name: str
    uses_foundation: ClassVar[bool]

    def check(self, model: Segmenter, split: SplitFederation, generator: Any) -> None:
        """Checks what only the model, the federation and the generator can tell.

        Called before anything is made.

        Raises:
            ConfigurationError: a setting does not fit them.
        """
        ...

    def run(self, context: RunContext) -> MethodResult:
        """Runs the method; every file goes through the context."""
        ...


def layout_of(model: Segmenter) -> StateLayout:
    """The layout of what travels of a model."""
    return StateLayout.of(model.trainable_state())
