"""How well the adversary detects, and whether that means anything.

An adversary that detects everything or nothing gives no useful reward, and one that detects the policy's masks no
better than random masks of the same size only sees that something was hidden. All three are logged. Source: our
choice.

Legend: N pairs of views.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def auroc(positive_N: Tensor, negative_N: Tensor) -> float:
    """P(positive > negative) + P(equal) / 2 over all pairs: the exact rank statistic (Mann-Whitney U).

    NaN where a side is empty or holds a NaN. O(N log N).
    """
    positive, negative = positive_N.detach().double().flatten(), negative_N.detach().double().flatten()
    if not positive.numel() or not negative.numel() or bool(positive.isnan().any() | negative.isnan().any()):
        return math.nan
    ordered = negative.sort().values
    below = torch.searchsorted(ordered, positive)
    not_above = torch.searchsorted(ordered, positive, right=True)
    return float((below + not_above).sum()) / (2 * positive.numel() * negative.numel())


def detection_auroc(logit_N: Tensor) -> float:
    """AUROC of ordered pairs: s(masked, clean) against s(clean, masked) = -s. Take it on pairs not yet learned from."""
    return auroc(logit_N, -logit_N)


def alarms(detection: float, high: float, low: float) -> list[str]:
    """What a held-out AUROC warns of, as sentences; empty where it lies within [low, high]."""
    if math.isnan(detection):
        return ["adversary AUROC is not a number: no pairs, or a non-finite logit"]
    if detection > high:
        return [
            f"adversary AUROC {detection:.3f} is above {high}: it detects every mask and the reward saturates; "
            "lower adversary.steps_per_round or adversary.learning_rate, or set adversary.r1"
        ]
    if detection < low:
        return [
            f"adversary AUROC {detection:.3f} is below {low}: it cannot tell masked from clean, the reward is noise; "
            "raise adversary.warmup_rounds or adversary.steps_per_round, or masking.rate"
        ]
    return []


def advantage_over_random(logit_policy_N: Tensor, logit_random_N: Tensor) -> float:
    """Mean P_detect of the policy's masks minus that of random masks of the same size, in [-1, 1]."""
    return float(logit_policy_N.detach().float().sigmoid().mean() - logit_random_N.detach().float().sigmoid().mean())
