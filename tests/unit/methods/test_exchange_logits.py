"""The order in which two models in two processes are asked, and what is asked again."""

import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from dsfedmed_ray.learning.learnability import Selection, SelectionRule
from dsfedmed_ray.learning.mutual_distillation import Distillation
from dsfedmed_ray.methods.dsfedmed.exchange_logits import LogitExchange
from dsfedmed_ray.runtime.pending import Done

POOL = 6


class Recorder:
    """Both models at once: answers with zeros and writes down who was asked for what."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def call(self, method: str, *arguments: Any) -> Done:
        self.calls.append(f"foundation {method}")
        if method in ("start_epoch", "finish"):
            return Done(2.0)
        return Done(torch.zeros(POOL if method == "pool_logits" else len(arguments[0]), 1, 2, 2))

    def start_epoch(self, epoch: int) -> None:
        self.calls.append("own start_epoch")

    def pool_logits(self) -> Tensor:
        self.calls.append("own pool_logits")
        return torch.zeros(POOL, 1, 2, 2)

    def begin(self, rows: Tensor, *stream: Any) -> Tensor:
        self.calls.append("own begin")
        return torch.zeros(len(rows), 1, 2, 2)

    def finish(self, logits: Tensor, counted: Tensor | None) -> float:
        self.calls.append("own finish")
        return 4.0


def exchange_of(
    recorder: Recorder, selection: Selection, *, mutual: bool = True, foundation_every: int = 1
) -> LogitExchange:
    return LogitExchange(
        recorder,  # type: ignore[arg-type]
        recorder,  # type: ignore[arg-type]
        torch.zeros(POOL, 1, 2, 2, dtype=torch.uint8),
        config=Distillation(batch_size=3, mutual=mutual, foundation_every=foundation_every),
        selection=selection,
        seed=0,
    )


@pytest.mark.parametrize("rule", ["topk", "softmax"])
def test_the_foundation_model_is_asked_before_the_other_one_updates_itself(
    rule: SelectionRule,
) -> None:
    """Six samples, all kept and so not scored, are two batches of three. Losses are 4 and 2."""
    recorder = Recorder()
    values = exchange_of(recorder, Selection(ratio=1.0, rule=rule)).epoch(0)
    assert recorder.calls == [
        "own start_epoch",
        "foundation start_epoch",
        "foundation begin",
        "own begin",
        "foundation finish",
        "foundation begin",
        "own finish",
        "own begin",
        "foundation finish",
        "own finish",
    ]
    assert (values["loss"], values["foundation_loss"], values["num_selected"]) == (4.0, 2.0, 6.0)


@pytest.mark.parametrize("ratio", [0.5, 1.0])
def test_one_way_the_foundation_model_serves_its_targets_once(ratio: float) -> None:
    """Its two batches of three samples, in three epochs, for scores and steps alike."""
    recorder = Recorder()
    exchange = exchange_of(recorder, Selection(ratio=ratio), mutual=False)
    values = [exchange.epoch(epoch) for epoch in range(3)]
    asked = [call for call in recorder.calls if "foundation" in call]
    assert asked == ["foundation logits_of"] * 2
    assert not any("foundation_loss" in epoch for epoch in values)


class Counting(Recorder):
    """The foundation model's logits are its number of answers; what the other one gets is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = 0.0
        self.served: list[float] = []

    def call(self, method: str, *arguments: Any) -> Done:
        answer = super().call(method, *arguments)
        if method in ("begin", "pool_logits"):
            self.answers += 1
            return Done(answer.value + self.answers)
        return answer

    def finish(self, logits: Tensor, counted: Tensor | None) -> float:
        self.served += logits[:, 0, 0, 0].tolist()
        return super().finish(logits, counted)


def test_the_foundation_model_rests_and_what_it_gave_last_goes_on() -> None:
    """All of six samples, batches of three; it learns in epochs 0 and 3.

    In epoch 0 three samples get its answer 1 and three its answer 2, in epochs 1 and 2 again, and
    in epoch 3 the answers 3 and 4.
    """
    recorder = Counting()
    exchange = exchange_of(recorder, Selection(ratio=1.0), foundation_every=3)
    served = []
    for epoch in range(4):
        recorder.served, before = [], len(recorder.calls)
        values = exchange.epoch(epoch)
        served.append(sorted(recorder.served))
        asked = [call for call in recorder.calls[before:] if "foundation" in call]
        assert len(asked) == (5 if epoch in (0, 3) else 0)
        assert values.get("foundation_loss") == (2.0 if epoch in (0, 3) else None)
    assert served == [[1.0] * 3 + [2.0] * 3] * 3 + [[3.0] * 3 + [4.0] * 3]


@pytest.mark.parametrize("foundation_every", [1, 2])
def test_scores_bring_the_logits_of_samples_that_were_not_exchanged(foundation_every: int) -> None:
    """Half of six samples in epoch 0; epoch 1 has the answers of the pool (1) or exchange (2).

    Resuming between the two goes on alike, and asks for the pool no more than the other.
    """
    recorder, again = Counting(), Counting()
    selection = Selection(rule="softmax", every_epochs=2)
    exchange = exchange_of(recorder, selection, foundation_every=foundation_every)
    exchange.epoch(0)
    kept = exchange.snapshot()
    resumed = exchange_of(again, selection, foundation_every=foundation_every)
    resumed.restore({name: value.clone() for name, value in kept.items()})
    again.answers = recorder.answers
    for models, one in ((recorder, exchange), (again, resumed)):
        models.served, models.calls = [], []
        one.epoch(1)
    assert recorder.served == again.served
    assert recorder.calls == again.calls
    assert again.calls.count("foundation pool_logits") == 0
    assert again.calls.count("own pool_logits") == 1
    if foundation_every == 2:  # it rests
        assert set(recorder.served) <= {1.0, 2.0}
        assert again.calls == ["own start_epoch", "own pool_logits", "own begin", "own finish"]


@pytest.mark.parametrize(("every", "passes"), [(1, 4), (3, 2)])
def test_scores_are_renewed_and_the_foundation_model_asked_when_it_is_due(
    every: int, passes: int
) -> None:
    """Epochs 0 to 3: the U-Net passes over the pool in each, the other in all or two of them.

    Half of six samples is kept.
    """
    recorder = Recorder()
    exchange = exchange_of(recorder, Selection(ratio=0.5, every_epochs=every))
    kept = [exchange.epoch(epoch)["num_selected"] for epoch in range(4)]
    assert recorder.calls.count("foundation pool_logits") == passes
    assert recorder.calls.count("own pool_logits") == 4
    assert kept == [3.0] * 4


class Sure(Recorder):
    """The foundation model is sure of samples 0 and 1, of one far more; the other knows nothing."""

    def call(self, method: str, *arguments: Any) -> Done:
        answer = super().call(method, *arguments)
        if method == "pool_logits":
            answer.value[0] = -40.0
            answer.value[1] = -3.0
        return answer


@pytest.mark.parametrize(("limit", "both"), [(math.inf, False), (2.0, True)])
def test_without_a_limit_a_sure_model_decides_what_is_learnt(limit: float, both: bool) -> None:
    """Of logits of -40 and -3 the disagreements with 0 are 20 and 1.4; four samples have 0.

    One of six is drawn in proportion to the exponential: always the first. Within +-2 both have
    0.76, so that each comes in 26 % of the epochs and the others in 12 % each.
    """
    exchange = LogitExchange(
        Sure(),  # type: ignore[arg-type]
        Sure(),  # type: ignore[arg-type]
        torch.zeros(POOL, 1, 2, 2, dtype=torch.uint8),
        config=Distillation(batch_size=3, logit_limit=limit),
        selection=Selection(rule="softmax", ratio=1 / 6, reliability_weight=0.0),
        seed=0,
    )
    drawn = [exchange.kept(epoch).item() for epoch in range(60)]
    assert set(drawn) == ({0, 1, 2, 3, 4, 5} if both else {0})
    if both:
        assert abs(drawn.count(0) - drawn.count(1)) < 15


STEP_SECONDS = 0.05


class SlowModels:
    """Both models take 50 ms a batch, each in a process of its own; a logit is its row's number."""

    def __init__(self) -> None:
        self.process = ThreadPoolExecutor(max_workers=1)
        self.rows = torch.empty(0)
        self.right: list[bool] = []

    def call(self, method: str, rows: Tensor) -> Any:
        assert method == "logits_of"
        return self.process.submit(self._logits_of, rows)

    def _logits_of(self, rows: Tensor) -> Tensor:
        time.sleep(STEP_SECONDS)
        return rows[:, None, None, None].float().expand(-1, 1, 2, 2)

    def start_epoch(self, epoch: int) -> None: ...

    def pool_logits(self) -> Tensor:
        return torch.cat([self._logits_of(rows) for rows in torch.arange(POOL).split(1)])

    def begin(self, rows: Tensor, *stream: Any) -> Tensor:
        self.rows = rows
        return self._logits_of(rows)

    def finish(self, logits: Tensor, counted: Tensor | None) -> float:
        self.right.append(logits[:, 0, 0, 0].tolist() == self.rows.tolist())
        return 0.0


@pytest.mark.parametrize(("ratio", "steps", "seconds"), [(1.0, 6, 0.3), (0.5, 3, 0.45)])
def test_one_way_the_lightweight_model_does_not_wait(
    ratio: float, steps: int, seconds: float
) -> None:
    """Batches of one of six samples, 0.3 s for either model.

    All kept: the two work at the same time, 0.3 s and not 0.6. Half kept: so they do while the pool
    is scored, and three steps of 0.05 s follow, 0.45 s in all and not 0.75.
    """
    slow = SlowModels()
    exchange = LogitExchange(
        slow,  # type: ignore[arg-type]
        slow,  # type: ignore[arg-type]
        torch.zeros(POOL, 1, 2, 2, dtype=torch.uint8),
        config=Distillation(batch_size=1, mutual=False),
        selection=Selection(ratio=ratio, rule="topk"),
        seed=0,
    )
    started = time.perf_counter()
    exchange.epoch(0)
    assert seconds <= time.perf_counter() - started < seconds + 0.15
    assert slow.right == [True] * steps
    slow.process.shutdown()
