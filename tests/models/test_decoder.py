"""What one pass reads, against plain full forwards of the same model.

Legend: B rows, T tokens, L layers, H query heads, C labels, D hidden size.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_models import FAMILIES, VOCABULARY, eager_rows, make_view, tiny_model
from torch import nn

from afa_llm.config_running import Lora
from afa_llm.errors import AfaError
from afa_llm.models.adapters import attach_lora
from afa_llm.models.decoder import Decoder, append_answers, choose_layers
from afa_llm.records import AnswerWords, View

# Worst cases of this file, float32: log-probabilities 1e-6, hidden states 1.6e-6, rows 4.5e-7.
CLOSE, ROWS = 1e-5, 2e-6
SINGLE = AnswerWords(("bad", "good", "so-so"), ((5,), (6,), (250,)))
SEVERAL = AnswerWords(("bad", "very good", "so so la"), ((5,), (6, 7), (250, 9, 11)))
LAYERS = (0, 2)


def make_decoder(family: str = "llama", layers: tuple[int, ...] = LAYERS) -> Decoder:
    return Decoder(tiny_model(family), layers, 0)


def full_logprob(model: nn.Module, ids: list[int]) -> torch.Tensor:
    """[T, V] of one unpadded sequence, by the plain forward."""
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].log_softmax(-1)


def unpadded(view: View) -> list[list[int]]:
    return [ids[mask > 0].tolist() for ids, mask in zip(view.input_ids_BT, view.attention_mask_BT, strict=True)]


def by_hand(model: nn.Module, view: View, answers: AnswerWords) -> torch.Tensor:
    """Mean token log-probability of every answer after every prompt, one concatenated sequence at a time."""
    scores = torch.zeros(len(view.input_ids_BT), len(answers.labels))
    for b, prompt in enumerate(unpadded(view)):
        for c, answer in enumerate(answers.token_ids):
            logprob = full_logprob(model, [*prompt, *answer])
            scores[b, c] = sum(logprob[len(prompt) - 1 + a, token] for a, token in enumerate(answer)) / len(answer)
    return scores


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("answers", [SINGLE, SEVERAL], ids=["single", "several"])
def test_label_logprobs_equal_full_forwards_of_unpadded_prompts(family: str, answers: AnswerWords) -> None:
    decoder, view = make_decoder(family), make_view([17, 9, 3], extra=2)
    with torch.no_grad():
        found = decoder.read(view, answers).label_logprob_BC
    expected = by_hand(decoder.model, view, answers)
    assert found.shape == (3, 3)
    assert (found - expected).abs().max() < CLOSE


def test_answers_with_a_common_beginning_or_length_need_no_care() -> None:
    answers = AnswerWords(("a", "b", "c", "d"), ((6, 7), (6, 8), (6,), (6, 7, 8)))
    decoder, view = make_decoder(), make_view([12, 5])
    with torch.no_grad():
        found = decoder.read(view, answers).label_logprob_BC
    assert (found - by_hand(decoder.model, view, answers)).abs().max() < CLOSE


def test_blocked_keys_are_blocked_for_every_answer_token() -> None:
    """Oracle: the plain model with the blocked columns in its mask, prompts and answers joined by hand."""
    decoder, view = make_decoder(), make_view([12, 12], blocked=(3, 4))
    ids = torch.cat([view.input_ids_BT, torch.tensor([[6, 7]] * 2)], 1)
    mask = torch.cat([view.attention_mask_BT, torch.ones(2, 2, dtype=torch.long)], 1)
    position = torch.arange(14).expand(2, 14)
    with torch.no_grad():
        found = decoder.read(view, SEVERAL).label_logprob_BC
        logprob = decoder.model(ids, mask, position).logits.log_softmax(-1)
    expected = (logprob[:, 11, 6] + logprob[:, 12, 7]) / 2
    assert (found[:, 1] - expected).abs().max() < CLOSE
    clear = decoder.read(make_view([12, 12]), SEVERAL).label_logprob_BC
    assert (found - clear).abs().min() > 1e-3


@pytest.mark.parametrize("answers", [SINGLE, SEVERAL], ids=["single", "several"])
def test_vocabulary_is_the_distribution_at_the_readout_position(answers: AnswerWords) -> None:
    decoder, view = make_decoder(), make_view([17, 9])
    with torch.no_grad():
        found = decoder.read(view, answers, vocabulary=True).vocabulary_logprob_BV
        without = decoder.read(view, answers).vocabulary_logprob_BV
    expected = torch.stack([full_logprob(decoder.model, ids)[-1] for ids in unpadded(view)])
    assert without is None
    assert found is not None and found.shape == (2, VOCABULARY)
    assert (found - expected).abs().max() < CLOSE


@pytest.mark.parametrize("answers", [SINGLE, SEVERAL], ids=["single", "several"])
def test_hidden_state_and_rows_are_those_of_the_readout_position(answers: AnswerWords) -> None:
    decoder, view = make_decoder(), make_view([17, 9, 3])
    oracle = tiny_model("llama", "eager")
    reading = decoder.read(view, answers)
    rows, _ = eager_rows(oracle, view)
    hidden = oracle.model(view.input_ids_BT, view.attention_mask_BT, view.position_BT).last_hidden_state[:, -1]
    assert reading.hidden_BD.shape == (3, 64)
    assert (reading.hidden_BD - hidden).abs().max() < CLOSE
    assert reading.rows_LBHT.shape == (2, 3, 4, 17)
    assert (reading.rows_LBHT - rows[list(LAYERS)]).abs().max() < ROWS
    assert not reading.hidden_BD.requires_grad
    assert reading.rows_LBHT.requires_grad and reading.label_logprob_BC.requires_grad


def test_gradients_reach_the_model_alike_for_one_and_several_answer_tokens() -> None:
    """Label 0 has one token in both: its gradient, and that of the rows, must be the same either way."""
    found = []
    for answers in (SINGLE, SEVERAL):
        decoder = make_decoder()
        reading = decoder.read(make_view([17, 9]), answers)
        (reading.label_logprob_BC[:, 0].sum() + reading.rows_LBHT.square().sum()).backward()
        found.append(torch.cat([p.grad.flatten() for p in decoder.model.parameters()]))
    assert found[0].norm() > 0.1
    assert (found[0] - found[1]).norm() / found[0].norm() < 1e-5  # worst case 1e-6


@pytest.mark.parametrize("answers", [SINGLE, SEVERAL], ids=["single", "several"])
def test_padding_and_batch_mates_change_nothing(answers: AnswerWords) -> None:
    decoder, together = make_decoder("mistral"), make_view([17, 9, 3], extra=4)
    with torch.no_grad():
        all_rows = decoder.read(together, answers)
        for b, length in enumerate([17, 9, 3]):
            start = together.input_ids_BT.shape[1] - length
            parts = {name: value[b : b + 1] for name, value in vars(together).items()}
            alone = View(**{name: v[:, start:] if name.endswith("_BT") else v for name, v in parts.items()})
            one = decoder.read(alone, answers)
            assert (one.label_logprob_BC[0] - all_rows.label_logprob_BC[b]).abs().max() < CLOSE
            assert (one.hidden_BD[0] - all_rows.hidden_BD[b]).abs().max() < CLOSE
            assert (one.rows_LBHT[:, 0] - all_rows.rows_LBHT[:, b, :, start:]).abs().max() < ROWS
            assert (all_rows.rows_LBHT[:, b, :, :start] == 0).all()


def test_ids_under_the_padding_do_not_matter() -> None:
    decoder, view = make_decoder(), make_view([17, 9, 3])
    other = replace(view, input_ids_BT=torch.where(view.attention_mask_BT > 0, view.input_ids_BT, 77))
    with torch.no_grad():
        readings = [decoder.read(v, SEVERAL) for v in (view, other)]
    assert torch.equal(readings[0].label_logprob_BC, readings[1].label_logprob_BC)


@pytest.mark.parametrize("answers", [SINGLE, SEVERAL], ids=["single", "several"])
def test_a_forward_that_gives_all_logits_is_read_at_the_same_place(answers: AnswerWords) -> None:
    """Some families take logits_to_keep and ignore it."""
    decoder, view = make_decoder(), make_view([17, 9])
    expected = decoder.read(view, answers)
    model = decoder.model
    decoder.forward = lambda *, logits_to_keep, **kwargs: model(**kwargs)
    found = decoder.read(view, answers)
    assert (found.label_logprob_BC - expected.label_logprob_BC).abs().max() < CLOSE
    assert (found.hidden_BD - expected.hidden_BD).abs().max() < CLOSE


GATED = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16}
BETWEEN = ["linear_attention", "full_attention", "linear_attention"]
RECURRENT: dict[str, dict[str, Any]] = {
    "qwen3_next": {"layer_types": BETWEEN, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 16, **GATED},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False, "num_experts": 2},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
}


@pytest.mark.parametrize("family", RECURRENT)
@pytest.mark.parametrize("answers", [SINGLE, SEVERAL], ids=["single", "several"])
def test_recurrent_layers_read_neither_padding_nor_blocked_words(family: str, answers: AnswerWords) -> None:
    decoder, view = Decoder(tiny_model(family, **RECURRENT[family]), (1,), 0), make_view([17, 9, 8], blocked=(2, 3, 6))
    other = replace(view, input_ids_BT=torch.where(view.attention_mask_BT > 0, view.input_ids_BT, 77))
    with torch.no_grad():
        found, expected = (decoder.read(v, answers) for v in (other, view))
    assert (found.label_logprob_BC - expected.label_logprob_BC).abs().max() < CLOSE
    assert (found.rows_LBHT - expected.rows_LBHT).abs().max() < ROWS


def adapted_decoder(dropout: float = 0.0) -> Decoder:
    """With an adapter that changes the answers: its B matrices are no longer zero."""
    model = attach_lora(tiny_model("llama"), Lora(rank=2, dropout=dropout), seed=0, gradient_checkpointing=False)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, generator=torch.Generator().manual_seed(len(name)))
    return Decoder(model, LAYERS, 0)


def test_answering_has_no_gradient_and_no_dropout_and_restores_training() -> None:
    decoder, view = adapted_decoder(dropout=0.5), make_view([17, 9])
    expected = decoder.read(view, SINGLE).label_logprob_BC.detach()
    for was_training in (True, False):
        decoder.model.train(was_training)
        with decoder.answering():
            assert not decoder.model.training and not torch.is_grad_enabled()
            assert (decoder.read(view, SINGLE).label_logprob_BC - expected).abs().max() < CLOSE
        assert torch.is_grad_enabled()
        assert {m.training for m in decoder.model.modules()} == {was_training}
    decoder.model.train()
    assert (decoder.read(view, SINGLE).label_logprob_BC - expected).abs().max() > 0.01


def test_answering_restores_training_after_an_exception() -> None:
    decoder = make_decoder()
    decoder.model.train()
    with pytest.raises(KeyError, match="inside"), decoder.answering():
        raise KeyError("inside")
    assert decoder.model.training and torch.is_grad_enabled()


def test_base_is_the_model_without_its_adapter() -> None:
    bare, decoder, view = make_decoder(), adapted_decoder(), make_view([17, 9])
    expected = bare.read(view, SINGLE)
    tuned = decoder.read(view, SINGLE)
    with decoder.base():
        inside = decoder.read(view, SINGLE)
    for name in ("label_logprob_BC", "hidden_BD", "rows_LBHT"):
        assert (getattr(inside, name) - getattr(expected, name)).abs().max() < CLOSE
        assert (getattr(tuned, name) - getattr(expected, name)).abs().max() > 0.01
    with pytest.raises(KeyError), decoder.base():
        raise KeyError
    after = decoder.read(view, SINGLE).label_logprob_BC
    assert torch.equal(after, tuned.label_logprob_BC) and after.requires_grad


def test_base_of_a_bare_model_is_the_model() -> None:
    decoder, view = make_decoder(), make_view([17, 9])
    expected = decoder.read(view, SINGLE).label_logprob_BC
    with decoder.base():
        assert torch.equal(decoder.read(view, SINGLE).label_logprob_BC, expected)


def test_a_model_without_an_output_layer_is_refused() -> None:
    with pytest.raises(AfaError, match=r"model\.path: llama has no output layer"):
        Decoder(tiny_model("llama").model, LAYERS, 0)


def test_append_answers_by_hand() -> None:
    view = make_view([3, 2])
    longer = append_answers(view, torch.tensor([[6, 7], [8, 0]]), torch.tensor([[True, True], [True, False]]))
    assert longer.input_ids_BT[:, :3].tolist() == [view.input_ids_BT[b].tolist() for b in (0, 0, 1, 1)]
    assert longer.input_ids_BT[:, 3:].tolist() == [[6, 7], [8, 0], [6, 7], [8, 0]]
    assert longer.attention_mask_BT.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [0, 1, 1, 1, 1], [0, 1, 1, 1, 0]]
    assert longer.position_BT.tolist() == [[0, 1, 2, 3, 4]] * 2 + [[0, 0, 1, 2, 3]] * 2
    assert (longer.word_of_token_BT[:, 3:] == -1).all()


@pytest.mark.parametrize(
    ("choice", "depth", "expected"),
    [
        ("all", 4, (0, 1, 2, 3)),
        ("last_half", 4, (2, 3)),
        ("last_half", 5, (2, 3, 4)),
        ("last_half", 1, (0,)),
        ("last_third", 7, (5, 6)),
        ("last_third", 3, (2,)),
        ("last_third", 2, (1,)),
        ("last_third", 1, (0,)),
        ((0, -1), 4, (0, 3)),
        ((3, -1, 1), 4, (1, 3)),
        ((-4,), 4, (0,)),
    ],
)
def test_choose_layers(choice: str | tuple[int, ...], depth: int, expected: tuple[int, ...]) -> None:
    assert choose_layers(choice, depth) == expected


@pytest.mark.parametrize("choice", [(4,), (-5,), (0, 9), ()])
def test_layers_out_of_range_are_refused(choice: tuple[int, ...]) -> None:
    with pytest.raises(AfaError, match=r"attention\.layers = \[.*\]: the model has layers 0 to 3 \(or -4 to -1\)"):
        choose_layers(choice, 4)


@pytest.mark.parametrize("layers", [(0,), (0, 1)])
def test_a_family_that_runs_its_layers_several_times_is_refused(layers: tuple[int, ...]) -> None:
    """Hrm: rows were those of the last time in a whole pass, and of the first where one ended early."""
    decoder = Decoder(tiny_model("hrm_text", num_hidden_layers=2, H_cycles=2, L_cycles=2), layers, 0)
    for pass_ in (lambda view: decoder.read(view, SINGLE), decoder.read_rows, decoder.read_rows_and_value_norms):
        with pytest.raises(AfaError, match=r"model.path: HrmTextAttention runs layer 0 several times in a pass"):
            pass_(make_view([9, 6]))
