"""What counts as an adapter that did not arrive, on made-up answers.

Legend: N prompts, C labels.
"""

from __future__ import annotations

import math

import pytest
import torch

from afa_llm.errors import AfaError
from afa_llm.rollouts.delivery import LEAST_MOVEMENT, DeliveryProof, Limits, gap

BASE_NC = torch.tensor([[-1.0, -2.0], [-3.0, -2.5]])
NOISE_NC = torch.tensor([[1e-6, 0.0], [0.0, -1e-6]])
MOVED_NC = BASE_NC + torch.tensor([[0.3, 0.0], [0.0, 0.2]])


def proof(limits: Limits | None = None, noise_NC: torch.Tensor = NOISE_NC) -> DeliveryProof:
    return DeliveryProof(BASE_NC, BASE_NC + noise_NC, limits or Limits())


def test_the_gap_is_the_mean_distance_of_label_shares() -> None:
    found = gap(torch.tensor([[math.log(0.5), math.log(0.5)]]), torch.tensor([[math.log(0.1), math.log(0.3)]]))
    assert found.mean == pytest.approx(0.25)  # shares 0.5, 0.5 against 0.25, 0.75
    assert found.largest == pytest.approx(math.log(5))


def test_an_adapter_that_arrived_passes() -> None:
    found = proof().check(1, MOVED_NC, MOVED_NC - NOISE_NC)
    assert found.mean < 1e-6


def test_a_gap_over_the_limit_fails() -> None:
    other_NC = MOVED_NC + torch.tensor([[0.2, 0.0], [0.0, 0.0]])
    mean = gap(MOVED_NC, other_NC).mean
    assert mean > 0.01
    with pytest.raises(AfaError, match=r"version 3 did not arrive: mean .* over rollouts.probe_fail = 0.01"):
        proof().check(3, MOVED_NC, other_NC)
    proof(Limits(warn=mean, fail=mean * 1.01)).check(3, MOVED_NC, other_NC)


def test_a_gap_over_the_lower_limit_warns() -> None:
    checked = proof(Limits(warn=0.001, fail=0.1))
    assert "mean |Δp|" in checked.warning(
        checked.check(1, MOVED_NC, MOVED_NC + torch.tensor([[0.02, 0.0], [0.0, 0.0]]))
    )
    assert checked.warning(checked.check(2, MOVED_NC, MOVED_NC + NOISE_NC)) == ""


@pytest.mark.parametrize("size", [1.0, 0.01])
def test_an_adapter_without_effect_fails_even_where_it_moved_little(size: float) -> None:
    little_NC = BASE_NC + size * (MOVED_NC - BASE_NC)
    with pytest.raises(AfaError, match="answers like the base"):
        proof(Limits(0.5, 0.9)).check(1, little_NC, BASE_NC + NOISE_NC)


def test_a_movement_within_the_disagreement_on_the_base_proves_nothing() -> None:
    checked = proof(noise_NC=100 * LEAST_MOVEMENT * torch.ones_like(BASE_NC))
    checked.check(1, BASE_NC + 50 * LEAST_MOVEMENT, BASE_NC + 100 * LEAST_MOVEMENT)


def test_an_adapter_of_an_older_version_fails() -> None:
    checked = proof()
    checked.check(1, MOVED_NC, MOVED_NC + NOISE_NC)
    with pytest.raises(AfaError, match=r"version 2 did not arrive: .* older adapter"):
        checked.check(2, MOVED_NC + 0.01, MOVED_NC + NOISE_NC)


def test_an_adapter_that_did_not_change_may_give_the_same_answers() -> None:
    checked = proof()
    for version in (1, 2):
        checked.check(version, MOVED_NC, MOVED_NC + NOISE_NC)


def test_another_base_is_refused_at_once() -> None:
    with pytest.raises(AfaError, match=r"disagree on the base itself: .*rollouts.serve=dequantised"):
        DeliveryProof(BASE_NC, BASE_NC + torch.tensor([[0.2, 0.0], [0.0, 0.0]]), Limits())
