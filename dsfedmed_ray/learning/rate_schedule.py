"""How the learning rate runs over one training."""


def rate_factor(step: int, steps: int) -> float:
    """What the learning rate is multiplied by: a rise over the first tenth, times a linear fall.

    The fall to a tenth starts with the first step, so that the largest factor is about 0.92.

    Args:
        step: from 0.
        steps: of the whole training.
    """
    warm = (step + 1) / max(1, steps // 10)
    cool = 1 - 0.9 * step / max(1, steps)
    return min(1.0, warm) * cool
