"""DSFedMed from end to end: six stages, each found in the stage store or run.

Stages 1, 2 and 4 do not wait for the rounds of stage 3: in a deployment they run beside them. Here
they are run one after the other.
"""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from safetensors.torch import load_file

from dsfedmed_ray.data.splits import SplitFederation
from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.learning.foundation_adaptation import Adaptation
from dsfedmed_ray.learning.learnability import Selection
from dsfedmed_ray.learning.mutual_distillation import Distillation
from dsfedmed_ray.methods.dsfedmed import (
    adapt_foundation,
    distill_mutually,
    measure_synthesis,
    refine_federated,
    synthesize,
    train_on_synthetic,
    tune_generators,
)
from dsfedmed_ray.methods.dsfedmed.measure_synthesis import SynthesisChecks
from dsfedmed_ray.methods.fedavg import federated_stage
from dsfedmed_ray.methods.federated_training import FederatedTraining
from dsfedmed_ray.methods.local_norms import read_site_norms
from dsfedmed_ray.methods.method import FOUNDATION_FILE, MODEL_FILE, MethodResult
from dsfedmed_ray.methods.plan_network import plan_network
from dsfedmed_ray.methods.run_context import RunContext, StageOutput
from dsfedmed_ray.models.segmenter import Segmenter, State

SYNTHETIC_ROW = "fedavg_synthetic"
REFINED_ROW = "fedavg_refined"
REFINE_ROWS = {SYNTHETIC_ROW: "refine_synthetic", REFINED_ROW: "refine_fedavg"}
"""Rows that end with the same refinement as the method, and the stage in which each does."""


@dataclass(frozen=True, kw_only=True)
class DSFedMed:
    """The method's settings, stage by stage.

    Attributes:
        federated: stage 3.
        samples_per_client: synthetic samples generated from each ControlNet in stage 2.
        adaptation: stage 4.
        selection: stage 5, which samples.
        distillation: stage 5, how.
        refinement_rounds: stage 6, rounds that follow distillation; 0 for none, as in the paper.
        checks: what is measured about the synthetic set.
        control_rows: whether rows of the table tell what the rounds of stage 6 bring alone, and
            what the synthetic images do: the federated model, trained on their masks without
            foundation model and selection, then refined. Where the clients distil the latter is
            left out: it would take other steps than they do.
        name: the row's name.
    """

    uses_foundation: ClassVar[bool] = True
    federated: FederatedTraining
    samples_per_client: int = 16
    adaptation: Adaptation = field(default_factory=Adaptation)
    selection: Selection = field(default_factory=Selection)
    distillation: Distillation = field(default_factory=Distillation)
    refinement_rounds: int = 0
    checks: SynthesisChecks = field(default_factory=SynthesisChecks)
    control_rows: bool = True
    name: str = "dsfedmed"

    def __post_init__(self) -> None:
        if self.samples_per_client < 1:
            raise ConfigurationError(
                f"method.samples_per_client is {self.samples_per_client}; at least 1"
            )
        if self.refinement_rounds < 0:
            raise ConfigurationError(
                f"method.refinement_rounds is {self.refinement_rounds}; allowed: 0 (none) or more"
            )
        if self.refinement_rounds > 0 and self.federated.local.norm_policy == "local":
            raise ConfigurationError(
                "rounds after distillation average normalisation layers too; with "
                "method.federated.local.norm_policy=local set method.refinement_rounds=0"
            )
        if (self.distillation.placement, self.selection.rule) == ("clients", "authors_batch"):
            raise ConfigurationError(
                "method.selection.rule=authors_batch selects inside batches of both models; with "
                "method.distillation.placement=clients use topk or softmax"
            )

    @property
    def _distillation(self) -> Distillation:
        """Stage 5. Before stage 6 it hands on its last epoch: the seen sites are guarded there."""
        if self.refinement_rounds == 0:
            return self.distillation
        return replace(self.distillation, tolerance=1.0)

    def check(self, model: Segmenter, split: SplitFederation, generator: Any) -> None:
        """See :class:`~dsfedmed_ray.methods.method.Method`."""
        split.require_validation()  # stage 5 validates, whatever the rounds do
        self.federated.check(model, split)
        self.checks.check(generator)
        generator.check_structures(len(split.federation.structures))
        generator.check()

    def run(self, context: RunContext) -> MethodResult:
        """Runs the stages."""
        plan_network(context, self.federated)
        uploads = self._tune_generators(context)
        synthetic = self._synthesize(context, uploads)
        quality = self._measure_synthesis(context, uploads, synthetic)
        federated = federated_stage(context, self.federated)
        adapted = self._adapt_foundation(context, synthetic)
        distilled = self._distill_mutually(context, synthetic, federated, adapted)
        refined = self._refined(context, refine_federated.STAGE, distilled, federated)
        return MethodResult(
            lightweight=load_file(refined.folder / MODEL_FILE),
            foundation=load_file(distilled.folder / FOUNDATION_FILE),
            generator_quality=quality,
            rows=self._rows(context, synthetic, federated),
            row_norms={"fedavg": read_site_norms(federated.folder)},
        )

    def _rows(
        self, context: RunContext, synthetic: StageOutput, federated: StageOutput
    ) -> dict[str, State]:
        starts = {}
        if self.control_rows and context.with_rows:
            if self.refinement_rounds > 0:
                starts[REFINED_ROW] = federated
            if self.distillation.placement == "server":
                starts[SYNTHETIC_ROW] = self._train_on_synthetic(context, synthetic, federated)
        trained = {"fedavg": federated} | {
            row: self._refined(context, REFINE_ROWS[row], start, federated)
            for row, start in starts.items()
        }
        return {name: load_file(stage.folder / MODEL_FILE) for name, stage in trained.items()}

    def _refined(
        self, context: RunContext, stage: str, start: StageOutput, federated: StageOutput
    ) -> StageOutput:
        """Stage 6 from a model, or that model where there is no stage 6."""
        if self.refinement_rounds == 0:
            return start
        return context.stage(
            stage,
            settings={"schedule": self.federated, "rounds": self.refinement_rounds},
            inputs=[start, federated],
            run=lambda folder: refine_federated.refine_federated(
                context,
                self.federated,
                rounds=self.refinement_rounds,
                stage=stage,
                start=load_file(start.folder / MODEL_FILE),
                federated=load_file(federated.folder / MODEL_FILE),
                folder=folder,
            ),
        )

    def _tune_generators(self, context: RunContext) -> StageOutput:
        generator = context.generator.for_tuning()
        return context.stage(
            tune_generators.STAGE,
            settings={"generator": generator},
            inputs=[],
            run=lambda folder: tune_generators.tune_generators(
                context, self.federated.local, generator, folder
            ),
        )

    def _synthesize(self, context: RunContext, uploads: StageOutput) -> StageOutput:
        return context.stage(
            synthesize.STAGE,
            settings={
                "generator": context.generator,
                "samples_per_client": self.samples_per_client,
            },
            inputs=[uploads],
            run=lambda folder: synthesize.synthesize(
                context, self.samples_per_client, uploads.folder, folder
            ),
        )

    def _measure_synthesis(
        self, context: RunContext, uploads: StageOutput, synthetic: StageOutput
    ) -> dict[str, Any] | None:
        if self.checks.fit_steps == 0 or not context.with_rows:
            return None
        measured = context.stage(
            measure_synthesis.STAGE,
            settings={
                "checks": self.checks,
                "model": context.lightweight,
                "training": self.federated.local.training,
                "foundation": context.foundation,
            },
            inputs=[uploads, synthetic],
            run=lambda folder: measure_synthesis.measure_synthesis(
                context,
                self.federated.local,
                self.checks,
                samples_per_client=self.samples_per_client,
                uploads=uploads.folder,
                synthetic=synthetic.folder,
                folder=folder,
            ),
        )
        return measure_synthesis.read_quality(measured.folder)

    def _adapt_foundation(self, context: RunContext, synthetic: StageOutput) -> StageOutput:
        return context.stage(
            adapt_foundation.STAGE,
            settings={"foundation": context.foundation, "adaptation": self.adaptation},
            inputs=[synthetic],
            run=lambda folder: adapt_foundation.adapt_foundation(
                context, synthetic.folder, self.adaptation, folder
            ),
        )

    def _distill_mutually(
        self,
        context: RunContext,
        synthetic: StageOutput,
        federated: StageOutput,
        adapted: StageOutput,
    ) -> StageOutput:
        def run(folder: Path) -> None:
            distill_mutually.distill_mutually(
                context,
                context.pool(self.federated.local),
                synthetic=synthetic.folder,
                initial_lightweight=load_file(federated.folder / MODEL_FILE),
                initial_foundation=load_file(adapted.folder / FOUNDATION_FILE),
                config=self._distillation,
                selection=self.selection,
                folder=folder,
            )

        return context.stage(
            distill_mutually.STAGE,
            settings={"distillation": self._distillation, "selection": self.selection},
            inputs=[synthetic, federated, adapted],
            run=run,
        )

    def _train_on_synthetic(
        self, context: RunContext, synthetic: StageOutput, federated: StageOutput
    ) -> StageOutput:
        alone = replace(
            self._distillation,
            kl_weight=0.0,
            # Without effect here: runs that differ in these alone share the row.
            temperature=1.0,
            logit_limit=math.inf,
            mutual=False,
            foundation_every=1,
            foundation_learning_rate=1.0,
        )
        # The release's rule takes the supervised step on every sample.
        ratio = 1.0 if self.selection.rule == "authors_batch" else self.selection.ratio
        return context.stage(
            train_on_synthetic.STAGE,
            settings={"distillation": alone, "ratio": ratio},
            inputs=[synthetic, federated],
            run=lambda folder: train_on_synthetic.train_on_synthetic(
                context,
                context.pool(self.federated.local),
                synthetic=synthetic.folder,
                initial=load_file(federated.folder / MODEL_FILE),
                config=alone,
                ratio=ratio,
                folder=folder,
            ),
        )
