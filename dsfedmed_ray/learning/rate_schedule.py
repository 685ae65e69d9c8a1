"""How the learning rate runs over one training."""


def rate_factor(step: int, steps: int) -> float:
    """Learning rate over its peak: up over the first tenth, then linearly down to a tenth.

    Args:
        step: from 0.
        steps: of the whole training.
    """
    warm = (step + 1) / max(1, steps // 10)
    cool = 1 - 0.9 * step / max(1, steps)
    return min(1.0, warm) * cool
