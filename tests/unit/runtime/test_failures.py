"""One object judges; its words name the client and the setting."""

import pickle

import pytest

from dsfedmed_ray.errors import ClientFailureError, ConfigurationError, TooFewRepliesError
from dsfedmed_ray.runtime.failures import FailurePolicy, Verdict


def test_retry_ends_with_the_last_attempt() -> None:
    policy = FailurePolicy(on_client_error="retry", max_attempts=3)
    assert policy.judge("site_02", "ValueError: x", 1) is Verdict.RETRY
    assert policy.judge("site_02", "ValueError: x", 2) is Verdict.RETRY
    with pytest.raises(ClientFailureError) as caught:
        policy.judge("site_02", "ValueError: x", 3)
    assert str(caught.value) == "client 'site_02' failed: ValueError: x (attempt 3 of 3)"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_drop_always_drops_and_stop_always_stops() -> None:
    assert FailurePolicy(on_client_error="drop").judge("a", "x", 9) is Verdict.DROP
    with pytest.raises(ClientFailureError, match=r"^client 'a' failed: x$"):
        FailurePolicy(on_client_error="stop").judge("a", "x", 1)


@pytest.mark.parametrize(("fraction", "enough"), [(1.0, 4), (0.75, 3), (0.5, 2), (0.01, 1)])
def test_a_round_needs_its_share_of_replies(fraction: float, enough: int) -> None:
    policy = FailurePolicy(min_replies_fraction=fraction)
    policy.require_enough(enough, 4, "round 3")
    with pytest.raises(TooFewRepliesError, match=rf"^round 3: {enough - 1} of 4 clients replied"):
        policy.require_enough(enough - 1, 4, "round 3")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"on_client_error": "skip"}, r"'skip'; allowed: retry, drop, stop"),
        ({"max_attempts": 0}, r"max_attempts is 0; at least 1"),
        ({"client_timeout_seconds": 0.0}, r"client_timeout_seconds is 0\.0; positive, or null"),
        ({"min_replies_fraction": 0.0}, r"min_replies_fraction is 0\.0; allowed: above 0 up to 1"),
        ({"min_replies_fraction": 1.1}, r"min_replies_fraction is 1\.1; allowed: above 0 up to 1"),
    ],
)
def test_impossible_settings(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        FailurePolicy(**changes)  # type: ignore[arg-type]
