"""Who is silent and who holds the others up, from heartbeats alone."""

from __future__ import annotations

from afa_llm.training.roll_call import Beat, RollCall


def beat(rank: int, count: int, moves: int = 0, stop: str = "", phase: str = "training", step: int = 3) -> Beat:
    return Beat(rank, "node", "pid:[1]", 100 + rank, count, moves, step, phase, stop)


def test_a_beat_comes_back_as_it_was_sent() -> None:
    sent = beat(1, 2, 3, "SIGTERM")
    assert Beat.load(sent.dump().encode()) == sent


def test_silence_is_a_count_that_stands_still() -> None:
    roll = RollCall(silence=10, standstill=1000)
    roll.hear([beat(0, 1), beat(1, 1)], now=0)
    roll.hear([beat(0, 2), beat(1, 1)], now=8)  # rank 1's old beat is read again
    assert roll.silent(now=10) == []
    assert [b.rank for b in roll.silent(now=10.5)] == [1]
    assert [b.rank for b in roll.silent(now=9, allowed=0.5)] == [0, 1]
    roll.hear([beat(1, 2)], now=11)
    assert roll.silent(now=17) == []


def test_who_waits_has_moved_more_than_who_is_waited_for() -> None:
    roll = RollCall(silence=1000, standstill=60)
    roll.hear([beat(0, 1, moves=5), beat(1, 1, moves=4)], now=0)
    roll.hear([beat(0, 2, moves=5), beat(1, 2, moves=4)], now=50)
    assert roll.standing(now=60) == []
    assert [b.rank for b in roll.standing(now=61)] == [1]
    roll.hear([beat(0, 3, moves=6)], now=62)
    assert roll.standing(now=70) == []  # somebody moves


def test_who_was_away_itself_blames_nobody() -> None:
    roll = RollCall(silence=10, standstill=20)
    roll.hear([beat(0, 1), beat(1, 1)], now=0)
    roll.forgive(100)  # Ctrl-Z, then fg
    assert roll.silent(now=105) == [] and roll.standing(now=105) == []
    assert [b.rank for b in roll.silent(now=111)] == [0, 1]


def test_any_rank_can_ask_all_to_stop() -> None:
    roll = RollCall(silence=10, standstill=10)
    roll.hear([beat(0, 1), beat(1, 1)], now=0)
    assert roll.asked_to_stop() == ""
    roll.hear([beat(1, 2, stop="SIGUSR1")], now=1)
    assert roll.asked_to_stop() == "SIGUSR1"


def test_a_place_names_rank_host_process_and_step() -> None:
    assert beat(1, 1).place() == "rank 1 (host node, pid 101), last heard of in phase training, step 3"
    assert "no step" in beat(1, 1, phase="before").place()
