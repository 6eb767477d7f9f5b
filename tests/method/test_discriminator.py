"""The adversary: antisymmetry, learning, memory, and the same gradient in any layout.

Legend: N pairs, F features.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from afa_llm.method.detection_scores import detection_auroc
from afa_llm.method.discriminator import Adversary, Discriminator
from afa_llm.method.view_features import FeaturePair

F = 12


def adversary(**changes: Any) -> Adversary:
    settings: dict[str, Any] = {
        "width": 16,
        "learning_rate": 3e-3,
        "weight_decay": 0.01,
        "spectral_norm": True,
        "r1": 0.0,
        "replay": 0,
        "seed": 5,
    }
    return Adversary(F, **{**settings, **changes})


def pairs(count: int, seed: int, shift: float = 1.0) -> FeaturePair:
    """Both views of a review are its features with some noise; the masked one has a shift along the first feature."""
    generator = torch.Generator().manual_seed(seed)
    review = torch.randn(count, F, generator=generator)
    clean = review + 0.35 * torch.randn(count, F, generator=generator)
    masked = review + 0.35 * torch.randn(count, F, generator=generator)
    masked[:, 0] += shift
    return FeaturePair(clean, masked)


def weights_of(model: Adversary) -> Tensor:
    return torch.cat([t.detach().flatten() for t in model.discriminator.state_dict().values()])


@pytest.mark.parametrize("spectral", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_antisymmetry(spectral: bool, training: bool) -> None:
    model = Discriminator(F, 16, spectral).train(training)
    pair = pairs(50, seed=1)
    forth = model(pair.masked_NF, pair.clean_NF).detach()
    if not training:  # in training each pass moves the power iteration on
        torch.testing.assert_close(model(pair.clean_NF, pair.masked_NF).detach(), -forth, atol=1e-6, rtol=0)
    assert float(forth.abs().max()) > 1e-3
    assert (model(pair.clean_NF, pair.clean_NF) == 0).all()


def test_spectral_norm_bounds_the_inner_layers() -> None:
    model = Discriminator(F, 16, spectral_norm=True)
    largest = [torch.linalg.svdvals(model.inner[i].weight.detach())[0].item() for i in (0, 2)]
    # The power steps at construction come close to 1: measured at most 1.037 over 8 seeds.
    assert max(largest) < 1.1
    assert not hasattr(Discriminator(F, 16, spectral_norm=False).inner[0], "parametrizations")


@pytest.mark.parametrize("spectral", [True, False])
def test_learns_to_detect_unseen_pairs(spectral: bool) -> None:
    model = adversary(spectral_norm=spectral, replay=4)
    held_out = pairs(400, seed=99)
    for number in range(30):
        model.update(pairs(32, seed=number), torch.ones(32), steps=2)
    after = detection_auroc(model.detect(held_out))
    # Best possible: the difference is N(1, 0.5), so P(N(1, 0.5) > N(-1, 0.5)) = 0.998. Measured: 0.998.
    assert after > 0.97
    assert float(model.detect(held_out).mean()) > 0.5  # positive logit: the masked view comes first


def test_learns_nothing_where_there_is_nothing() -> None:
    model = adversary(replay=4)
    for number in range(30):
        model.update(pairs(32, seed=number, shift=0.0), torch.ones(32), steps=2)
    auroc = detection_auroc(model.detect(pairs(2000, seed=99, shift=0.0)))
    # Measured 0.472; the standard error is 0.013.
    assert 0.45 < auroc < 0.55


def test_loss_worked_number() -> None:
    model = adversary()
    pair = pairs(7, seed=0)
    logit = model.detect(pair)
    torch.testing.assert_close(model.loss_sum(pair).detach(), -logit.sigmoid().log().sum(), atol=1e-5, rtol=0)
    found = model.update(pair, torch.ones(7), steps=1)
    assert abs(found.loss - float(-logit.sigmoid().log().mean())) < 1e-3  # one power step apart
    assert (found.steps, found.pairs) == (1, 7.0)


def test_r1_is_the_squared_slope() -> None:
    plain, penalised = adversary(spectral_norm=False), adversary(spectral_norm=False, r1=0.5)
    pair, step = pairs(4, seed=0), 1e-3
    model = plain.discriminator.double()
    wide = FeaturePair(pair.clean_NF.double(), pair.masked_NF.double())
    total = 0.0
    with torch.no_grad():
        for column in range(F):
            nudge = torch.zeros(F, dtype=torch.float64)
            nudge[column] = step
            for da, db in ((nudge, 0 * nudge), (0 * nudge, nudge)):
                up = model(wide.masked_NF + da, wide.clean_NF + db)
                down = model(wide.masked_NF - da, wide.clean_NF - db)
                total += float(((up - down) / (2 * step)).square().sum())
    penalised.discriminator.double()
    difference = (penalised.loss_sum(wide) - plain.loss_sum(wide)).item()
    assert abs(difference - 0.25 * total) < 1e-6 * max(1.0, total)
    assert total > 1e-3


def test_r1_flattens_the_score() -> None:
    models = [adversary(r1=r1, spectral_norm=False) for r1 in (0.0, 1.0)]
    for model in models:
        for number in range(20):
            model.update(pairs(32, seed=number), torch.ones(32), steps=2)
    plain, flat = (float(model.detect(pairs(100, seed=99)).abs().mean()) for model in models)
    assert flat < 0.7 * plain


def float64(model: Adversary) -> Adversary:
    """Adam turns a gradient of rounding errors into a full step, so layouts are compared in float64."""
    model.discriminator.double()
    empty = model.replay.pairs
    model.replay.pairs = FeaturePair(empty.clean_NF.double(), empty.masked_NF.double())
    return model


def run_ranks(shares: Sequence[tuple[FeaturePair, Tensor, Tensor]], rounds: int, **changes: Any) -> list[Adversary]:
    """One adversary for each share, in threads that meet at every sum, as ranks do."""
    models = [float64(adversary(**changes)) for _ in shares]
    barrier, slots = threading.Barrier(len(shares)), [[] for _ in shares]  # type: list[list[Tensor]]

    def work(rank: int) -> None:
        def reduce_sum(tensors: list[Tensor]) -> None:
            slots[rank] = [tensor.clone() for tensor in tensors]
            barrier.wait(timeout=60)
            for index, tensor in enumerate(tensors):
                tensor.copy_(sum(slot[index] for slot in slots))
            barrier.wait(timeout=60)

        for _ in range(rounds):
            pair, weight_N, key_N = shares[rank]
            models[rank].update(pair, weight_N, key_N=key_N, steps=2, reduce_sum=reduce_sum)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(shares))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    return models


@pytest.mark.parametrize("r1", [0.0, 0.3])
@pytest.mark.parametrize("cut", [16, 5, 0])
def test_world_size_changes_nothing(cut: int, r1: float) -> None:
    whole, weight = pairs(32, seed=3), torch.ones(32)
    whole = FeaturePair(whole.clean_NF.double(), whole.masked_NF.double())
    weight[[2, 20]] = 0
    whole.masked_NF[20] = torch.nan  # a filler row may hold anything
    key = torch.randint(0, 2**62, (32,), generator=torch.Generator().manual_seed(1))
    parts = [torch.arange(32) < cut, torch.arange(32) >= cut]
    shares = [(whole.select(part), weight[part], key[part]) for part in parts]
    first, second = run_ranks(shares, rounds=4, r1=r1, replay=2)
    alone = float64(adversary(r1=r1, replay=2))
    start = weights_of(alone)
    for _ in range(4):
        found = alone.update(whole, weight, key_N=key, steps=2)
    assert found.pairs > 35 and found.steps == 2  # 30 of this round and some of the replay
    assert len(first.replay.key_N) + len(second.replay.key_N) == len(alone.replay.key_N) == 60
    assert torch.equal(weights_of(first), weights_of(second))
    difference = float((weights_of(first) - weights_of(alone)).abs().max())
    # Worst case measured: 3e-12 without replay; the weights themselves move by 0.04 and more.
    assert difference < 1e-9
    assert float((weights_of(alone) - start).abs().max()) > 1e-2


def test_gradient_sums_over_halves() -> None:
    model, whole = adversary(), pairs(32, seed=3)
    parameters = list(model.discriminator.parameters())
    parts = [whole.select(torch.arange(32) < 11), whole.select(torch.arange(32) >= 11)]
    sums = [torch.autograd.grad(model.loss_sum(part), parameters) for part in [whole, *parts]]
    for total, a, b in zip(*sums, strict=True):
        torch.testing.assert_close(a + b, total, atol=2e-6, rtol=1e-5)


def test_order_of_pairs_changes_no_logit() -> None:
    model, pair = adversary(), pairs(9, seed=1)
    order = torch.arange(8, -1, -1)
    torch.testing.assert_close(model.detect(pair.select(order)), model.detect(pair)[order], atol=1e-6, rtol=0)


def test_detect_changes_nothing_and_has_no_graph() -> None:
    model = adversary()
    before = weights_of(model)
    assert not model.detect(pairs(9, seed=1)).requires_grad
    assert torch.equal(weights_of(model), before)


def test_equal_seeds_give_equal_weights_and_leave_the_global_generator_alone() -> None:
    torch.rand(3)  # away from the state that another construction could have left
    before = torch.get_rng_state()
    first = adversary()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(weights_of(adversary()), weights_of(first))
    assert not torch.equal(weights_of(adversary(seed=6)), weights_of(first))
    torch.set_rng_state(before)


@pytest.mark.parametrize("spectral", [True, False])
def test_a_restored_adversary_goes_on_as_the_saved_one(spectral: bool, tmp_path: Any) -> None:
    straight = adversary(replay=20, spectral_norm=spectral)
    for number in range(3):
        straight.update(pairs(8, seed=number), torch.ones(8), steps=2)
    torch.save(straight.state_dict(), tmp_path / "state.pt")
    restored = adversary(replay=20, spectral_norm=spectral)
    restored.update(pairs(5, seed=40), torch.ones(5), steps=1)  # something to overwrite
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for number in range(3, 6):
        for model in (straight, restored):
            model.update(pairs(8, seed=number), torch.ones(8), steps=2)
    assert torch.equal(weights_of(straight), weights_of(restored))
    assert torch.equal(straight.replay.pairs.clean_NF, restored.replay.pairs.clean_NF)


def test_a_restored_adversary_keeps_the_step_size_it_is_given() -> None:
    """A resumed run says which of its settings are new; that of the checkpoint went on in silence."""
    saved, restored = adversary(), adversary(learning_rate=0.25, weight_decay=0.125)
    saved.update(pairs(8, seed=0), torch.ones(8), steps=1)
    restored.load_state_dict(saved.state_dict())
    (group,) = restored.optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.25, 0.125)
    before = weights_of(restored)
    assert torch.equal(before, weights_of(saved))
    for model in (saved, restored):
        model.update(pairs(8, seed=1), torch.ones(8), steps=1)
    assert (weights_of(restored) - before).norm() > 5 * (weights_of(saved) - before).norm()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_non_finite_features_stop_the_step_and_are_not_remembered(bad: float) -> None:
    model = adversary(replay=20)
    pair = pairs(4, seed=0)
    pair.masked_NF[1, 3] = bad
    before = [p.detach().clone() for p in model.discriminator.parameters()]
    found = model.update(pair, torch.ones(4), steps=2)
    assert found.steps == 0
    assert found.loss != found.loss
    assert all(torch.equal(a, b) for a, b in zip(before, model.discriminator.parameters(), strict=True))
    assert len(model.replay.pairs.clean_NF) == 0
    assert model.update(pairs(4, seed=1), torch.ones(4), steps=2).steps == 2


@pytest.mark.parametrize("steps", [0, 2])
def test_no_pairs_at_all(steps: int) -> None:
    """A loss of 0 would say that the adversary is always right, and sure of it."""
    found = adversary(r1=0.1).update(pairs(3, seed=0), torch.zeros(3), steps=steps)
    assert math.isnan(found.loss)
    assert (found.steps, found.pairs) == (0, 0.0)


def test_updates_inside_no_grad() -> None:
    with torch.no_grad():
        assert adversary().update(pairs(3, seed=0), torch.ones(3), steps=1).steps == 1
