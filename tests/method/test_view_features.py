"""What the adversary sees, and above all what it does not.

Legend: B views, D hidden size, C labels, W words, F features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from afa_llm.errors import AfaError
from afa_llm.method.attention_readout import Focus
from afa_llm.method.view_features import FeaturePair, feature_count, pair_features, view_features
from afa_llm.records import DecoderReading

ALL = ("hidden", "labels", "focus")


def reading(views: int, seed: int = 0, hidden: int = 6, labels: int = 3) -> DecoderReading:
    generator = torch.Generator().manual_seed(seed)
    return DecoderReading(
        label_logprob_BC=torch.randn(views, labels, generator=generator) - 3,
        hidden_BD=torch.randn(views, hidden, generator=generator) * 7,
        rows_LBHT=torch.zeros(1, views, 1, 4),
    )


def focus_from(raw_BW: Tensor) -> Focus:
    focus = raw_BW / raw_BW.sum(-1, keepdim=True).clamp_min(1e-30)
    return Focus(focus, focus.clamp_min(1e-12).log(), raw_BW.sum(-1))


def seen_in(view: DecoderReading, focus: Focus, visible_BW: Tensor, features: Sequence[str]) -> Tensor:
    """Features of reviews whose label is the first."""
    label_B = torch.zeros(len(visible_BW), dtype=torch.int64)
    return view_features(view, focus, visible_BW, label_B, features, view.label_logprob_BC)


def paired(
    clean: tuple[DecoderReading, Focus],
    masked: tuple[DecoderReading, Focus],
    visible_NW: Tensor,
    features: Sequence[str],
) -> FeaturePair:
    label_B = torch.zeros(len(clean[0].hidden_BD), dtype=torch.int64)
    return pair_features(clean, masked, visible_NW, label_B, features)


def test_worked_numbers() -> None:
    view = DecoderReading(
        torch.tensor([[0.3, 0.1]]).log(), torch.tensor([[3.0, 4.0, 0.0, 0.0]]), torch.zeros(1, 1, 1, 1)
    )
    focus = focus_from(torch.tensor([[0.2, 0.4, 0.1, 0.1, 0.2]]))
    visible = torch.tensor([[True, False, True, True, False]])
    found = seen_in(view, focus, visible, ALL)[0]
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    shown = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25)) / math.log(3)  # .2 .1 .1 of .4
    wanted = [1.2, 1.6, 0, 0]
    wanted += [4 * math.log(0.75), 4 * math.log(0.25), 4 * entropy, math.log(0.4)]
    wanted += [10 * x for x in (shown, 0.5, 0.375, 0.5, 0.25, 0.25, 0, 0)]
    torch.testing.assert_close(found, torch.tensor(wanted), atol=1e-5, rtol=0)
    assert feature_count(4, 2, ALL) == len(wanted)


def test_the_own_label_comes_first() -> None:
    view, focus, visible = reading(3), focus_from(torch.ones(3, 2)), torch.ones(3, 2).bool()
    own = view_features(view, focus, visible, torch.tensor([2, 0, 1]), ("labels",), view.label_logprob_BC)
    plain = view.label_logprob_BC.log_softmax(-1)
    for row, order in enumerate(([2, 0, 1], [0, 1, 2], [1, 2, 0])):
        torch.testing.assert_close(own[row, :3], 4 * plain[row, order])
    by_first = seen_in(view, focus, visible, ("labels",))
    torch.testing.assert_close(own[:, 3:], by_first[:, 3:])  # entropy and mass know no label


def shifts(before: list[float], after: list[float], label: int = 0) -> list[float]:
    """The features `shift` of one view with these probabilities of the labels."""
    view = DecoderReading(torch.tensor([after]).log() - 2, torch.zeros(1, 4), torch.zeros(1, 1, 1, 1))
    focus, visible, whole = focus_from(torch.ones(1, 2)), torch.ones(1, 2).bool(), torch.tensor([before]).log()
    return view_features(view, focus, visible, torch.tensor([label]), ("shift",), whole)[0].tolist()


def test_shift_worked_numbers() -> None:
    """From 0.5, 0.5 to 0.8, 0.2 the log-odds move by log 4; half of that either way is the root mean square."""
    entropy = math.log(2) + 0.8 * math.log(0.8) + 0.2 * math.log(0.2)
    wanted = [4 * math.log(2), 4 * 0.3, 4 * entropy]
    assert shifts([0.5, 0.5], [0.8, 0.2]) == pytest.approx(wanted, abs=1e-5)
    assert feature_count(4, 2, ("shift",)) == len(wanted)
    assert shifts([0.3, 0.1, 0.6], [0.3, 0.1, 0.6]) == pytest.approx([0, 0, 0], abs=1e-5)


def test_shift_knows_no_label_and_no_direction() -> None:
    there = shifts([0.5, 0.5], [0.8, 0.2])
    assert shifts([0.5, 0.5], [0.2, 0.8]) == pytest.approx(there, abs=1e-5)
    assert shifts([0.5, 0.5], [0.8, 0.2], label=1) == pytest.approx(there, abs=1e-5)
    odds, variation, entropy = shifts([0.8, 0.2], [0.5, 0.5])
    assert [odds, variation, entropy] == pytest.approx(there, abs=1e-5)


def test_masks_meet_the_label_of_their_review() -> None:
    clean, masked, label = reading(2, seed=1), reading(4, seed=2), torch.tensor([1, 2])
    focus, visible = focus_from(torch.ones(4, 3)), torch.ones(4, 3).bool()
    pair = pair_features((clean, focus_from(torch.ones(2, 3))), (masked, focus), visible, label, ("labels",))
    wanted = view_features(masked, focus, visible, torch.tensor([1, 1, 2, 2]), ("labels",), masked.label_logprob_BC)
    assert torch.equal(pair.masked_NF, wanted)
    assert torch.equal(pair.clean_NF[0], pair.clean_NF[1])
    torch.testing.assert_close(pair.clean_NF[2, 0], 4 * clean.label_logprob_BC.log_softmax(-1)[1, 2])


def test_the_hidden_words_own_focus_cannot_be_seen() -> None:
    generator = torch.Generator().manual_seed(1)
    raw = torch.rand(8, 9, generator=generator)
    visible = torch.rand(8, 9, generator=generator) > 0.3
    other = torch.where(visible, raw, torch.rand(8, 9, generator=generator) * 5)
    zeroed = torch.where(visible, raw, 0.0)
    view, features = reading(8), ("focus",)
    seen = [seen_in(view, focus_from(r), visible, features) for r in (raw, other, zeroed)]
    # Worst case measured: 9.5e-7 on values up to 10.
    torch.testing.assert_close(seen[1], seen[0], atol=4e-6, rtol=0)
    torch.testing.assert_close(seen[2], seen[0], atol=4e-6, rtol=0)
    changed = torch.where(visible, other.flip(0) + raw, raw)
    assert not torch.allclose(seen_in(view, focus_from(changed), visible, features), seen[0], atol=0.1)


def test_which_words_are_looked_at_cannot_be_seen() -> None:
    raw = torch.tensor([[0.5, 0.2, 0.1, 0.2]])
    order = torch.tensor([2, 0, 3, 1])
    visible = torch.tensor([[True, True, True, False]])
    a = seen_in(reading(1), focus_from(raw), visible, ("focus",))
    b = seen_in(reading(1), focus_from(raw[:, order]), visible[:, order], ("focus",))
    torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_padding_words_change_nothing() -> None:
    raw, visible = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[True, True, False]])
    wide_raw, wide_visible = (torch.nn.functional.pad(t, (0, 6)) for t in (raw, visible))
    tight = seen_in(reading(1), focus_from(raw), visible, ("focus",))
    wide = seen_in(reading(1), focus_from(wide_raw), wide_visible, ("focus",))
    torch.testing.assert_close(tight, wide, atol=1e-6, rtol=0)


@pytest.mark.parametrize("visible", [[False] * 3, [True, False, False]])
def test_none_or_one_word_visible_is_finite(visible: list[bool]) -> None:
    found = seen_in(reading(1), focus_from(torch.tensor([[0.0, 0.4, 0.6]])), torch.tensor([visible]), ALL)
    assert found.isfinite().all()


def test_certain_labels_are_finite() -> None:
    view = DecoderReading(torch.tensor([[0.0, -200.0]]), torch.zeros(1, 4), torch.zeros(1, 1, 1, 1))
    assert seen_in(view, focus_from(torch.ones(1, 2)), torch.ones(1, 2).bool(), ALL).isfinite().all()


def test_features_are_detached_float32() -> None:
    source = reading(2)
    grown = DecoderReading(
        source.label_logprob_BC.bfloat16().requires_grad_(), source.hidden_BD.half().requires_grad_(), source.rows_LBHT
    )
    found = seen_in(grown, focus_from(torch.rand(2, 3).requires_grad_()), torch.ones(2, 3).bool(), ALL)
    assert found.dtype == torch.float32
    assert not found.requires_grad


def test_scale_of_hidden_states_does_not_matter() -> None:
    a = reading(2)
    b = DecoderReading(a.label_logprob_BC, a.hidden_BD * 1000, a.rows_LBHT)
    focus, visible = focus_from(torch.ones(2, 3)), torch.ones(2, 3).bool()
    seen = [seen_in(x, focus, visible, ("hidden",)) for x in (a, b)]
    torch.testing.assert_close(seen[0], seen[1])
    torch.testing.assert_close(seen[0].square().mean(-1), torch.ones(2))


def test_pair_features_meets_each_clean_view_with_its_masks() -> None:
    clean, masked = reading(2, seed=1), reading(6, seed=2)
    clean_focus, masked_focus = focus_from(torch.rand(2, 4)), focus_from(torch.rand(6, 4))
    visible = torch.tensor([[True, True, True, False], [True, False, True, True]] * 3)
    pair = paired((clean, clean_focus), (masked, masked_focus), visible, ALL)
    assert torch.equal(pair.masked_NF, seen_in(masked, masked_focus, visible, ALL))
    for row in range(6):
        review = slice(row // 3, row // 3 + 1)
        one = DecoderReading(clean.label_logprob_BC[review], clean.hidden_BD[review], clean.rows_LBHT)
        alone = Focus(*(tensor[review] for tensor in vars(clean_focus).values()))
        torch.testing.assert_close(pair.clean_NF[row], seen_in(one, alone, visible[row : row + 1], ALL)[0])


def test_a_view_against_itself_gives_equal_features() -> None:
    clean, focus = reading(3), focus_from(torch.rand(3, 4))
    pair = paired((clean, focus), (clean, focus), torch.ones(3, 4).bool(), ALL)
    assert torch.equal(pair.clean_NF, pair.masked_NF)


def test_refusals() -> None:
    focus, visible = focus_from(torch.ones(2, 3)), torch.ones(2, 3).bool()
    with pytest.raises(AfaError, match=r"adversary\.features"):
        seen_in(reading(2), focus, visible, ("hidden", "gradient"))
    with pytest.raises(AfaError, match=r"adversary\.features"):
        feature_count(4, 2, ())
    with pytest.raises(AfaError, match="3 masked views don't belong to 2 clean ones"):
        paired((reading(2), focus), (reading(3), focus_from(torch.ones(3, 3))), torch.ones(3, 3).bool(), ALL)


def test_select_and_join() -> None:
    pair = FeaturePair(torch.arange(6.0).view(3, 2), -torch.arange(6.0).view(3, 2))
    both = pair.select(torch.tensor([True, False, True])).join(pair.select(torch.tensor([1])))
    assert both.clean_NF.tolist() == [[0.0, 1.0], [4.0, 5.0], [2.0, 3.0]]
    assert torch.equal(both.masked_NF, -both.clean_NF)
