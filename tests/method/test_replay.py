"""The adversary's memory: what is kept, what is drawn, and that no layout changes it.

Legend: N pairs, F features.
"""

from __future__ import annotations

import pytest
import torch

from afa_llm.method.replay import Replay, uniform
from afa_llm.method.view_features import FeaturePair


def remember(replay: Replay, rounds: int, reviews: int = 50, part: slice = slice(None)) -> Replay:
    """Rounds of pairs whose only feature is 1000 · round + review; a rank may hold a part of them."""
    for now in range(rounds):
        value_N1 = (1000.0 * now + torch.arange(reviews, dtype=torch.float32))[part, None]
        replay.remember(FeaturePair(value_N1, -value_N1), torch.arange(reviews)[part] * 7919, now)
    return replay


def drawn(replay: Replay, now: int, step: int) -> set[float]:
    pair = replay.draw(now, step)
    assert torch.equal(pair.masked_NF, -pair.clean_NF)
    return set(pair.clean_NF[:, 0].tolist())


def test_the_last_rounds_are_kept() -> None:
    replay = remember(Replay(1, rounds=3, seed=0), rounds=5)
    assert sorted({int(v) // 1000 for v in replay.pairs.clean_NF[:, 0].tolist()}) == [2, 3, 4]
    assert len(replay.key_N) == 150
    assert len(remember(Replay(1, rounds=0, seed=0), rounds=5).key_N) == 0


@pytest.mark.parametrize("cut", [0, 13, 50])
def test_shares_of_ranks_draw_what_one_would(cut: int) -> None:
    alone = remember(Replay(1, rounds=3, seed=4), rounds=5)
    first = remember(Replay(1, rounds=3, seed=4), rounds=5, part=slice(0, cut))
    second = remember(Replay(1, rounds=3, seed=4), rounds=5, part=slice(cut, None))
    for step in range(3):
        both = drawn(first, 5, step) | drawn(second, 5, step)
        assert both == drawn(alone, 5, step) and len(both) > 20


def test_each_step_draws_anew_and_about_as_many_as_a_round_has() -> None:
    replay = remember(Replay(1, rounds=4, seed=0), rounds=9, reviews=400)
    sets = [drawn(replay, now, step) for now in (9, 10) for step in (0, 1)]
    assert all(abs(len(found) - 400) < 5 * (1600 * 0.25 * 0.75) ** 0.5 for found in sets)
    for i, a in enumerate(sets):
        for b in sets[i + 1 :]:
            assert len(a & b) < 160  # 100 expected of independent draws
    other = remember(Replay(1, rounds=4, seed=1), rounds=9, reviews=400)
    assert len(drawn(other, 9, 0) & sets[0]) < 160


def test_the_same_review_is_drawn_apart_in_different_rounds() -> None:
    replay = remember(Replay(1, rounds=2, seed=0), rounds=2, reviews=400)
    rounds = [{v % 1000 for v in drawn(replay, 2, 0) if v // 1000 == now} for now in (0, 1)]
    assert all(150 < len(found) < 250 for found in rounds)
    assert len(rounds[0] & rounds[1]) < 140  # 100 expected of independent draws, all of 200 where keys repeat


def test_nothing_is_stored_in_the_first_round() -> None:
    assert drawn(Replay(1, rounds=4, seed=0), 0, 0) == set()


def test_a_few_rounds_are_drawn_whole_in_turn() -> None:
    replay = remember(Replay(1, rounds=4, seed=0), rounds=1)
    assert len(drawn(replay, 1, 0)) == 50  # one round is stored: all of it


def test_uniform_is_uniform_and_knows_its_numbers() -> None:
    key_N = torch.arange(100_000)
    value_N = uniform(key_N, seed=3, numbers=(1, 2))
    assert float(value_N.min()) >= 0 and float(value_N.max()) < 1
    counts = torch.histc(value_N, 10, 0, 1)
    assert float((counts - 10_000).abs().max()) < 5 * 95  # standard deviation 95
    assert abs(float(torch.corrcoef(torch.stack([value_N[:-1], value_N[1:]]))[0, 1])) < 0.02
    for other in (uniform(key_N, seed=4, numbers=(1, 2)), uniform(key_N, seed=3, numbers=(2, 1))):
        assert abs(float(torch.corrcoef(torch.stack([value_N, other]))[0, 1])) < 0.02
    assert torch.equal(uniform(key_N[5:9], seed=3, numbers=(1, 2)), value_N[5:9])
    assert uniform(torch.tensor([-5]), seed=-1, numbers=(0,)).shape == (1,)


def test_a_restored_memory_draws_the_same() -> None:
    replay = remember(Replay(1, rounds=3, seed=4), rounds=5)
    again = Replay(1, rounds=3, seed=4)
    again.load_state_dict(replay.state_dict())
    assert drawn(again, 5, 1) == drawn(replay, 5, 1)
