"""The data that passes between rooms: frozen records, each with its producer and consumers.

Torch is imported for type checking only, so that config, data checks and `afa --help` start in a moment.

Legend: B reviews of a batch, T tokens, W words of a review, K masks per review, N words hidden by a mask, L captured
layers, H query heads, D hidden size, C labels, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Example:
    """One labelled review. Producers: data.sources, data.planted, data.checklist. Consumers: data.prompts,
    evaluation.

    `words` are the character spans [start, end) in `text`, in order and without overlap. `rationale` has one number per
    word in [0, 1]: how far annotators call the word decisive; only the control reward.source=rationale trains on it.
    `group` names a subpopulation (for worst-group accuracy), or is empty. Reviews of one `pair` belong together (an
    original and its edits); `side` says which of them this is.
    """

    example_id: str
    text: str
    label: int
    words: tuple[tuple[int, int], ...]
    rationale: tuple[float, ...] | None = None
    group: str = ""
    pair: str = ""
    side: str = ""


@dataclass(frozen=True)
class Prompt:
    """A review in its template, as token ids. Producer: data.prompts. Consumers: data.batching, rollouts.

    `word_of_token[t]` is the index of the review's word that token t belongs to, or -1 (template, BOS, white space).
    The last token is the readout position: the model predicts the answer there.
    """

    example: Example
    token_ids: tuple[int, ...]
    word_of_token: tuple[int, ...]

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(self.example.text[start:end] for start, end in self.example.words)


@dataclass(frozen=True)
class AnswerWords:
    """How each label is spelled in tokens after the prompt. Producer: data.prompts. Consumers: models, rollouts.

    All of length one: the label's score is log p(token). Else the score is the mean log-probability of the sequence.
    """

    labels: tuple[str, ...]
    token_ids: tuple[tuple[int, ...], ...]

    @property
    def single(self) -> bool:
        return all(len(ids) == 1 for ids in self.token_ids)


@dataclass(frozen=True)
class Batch:
    """Left-padded prompts. Producer: data.batching. Consumers: models, method, training, evaluation.

    `word_of_token_BT` is -1 where no eligible word stands; `word_mask_BW` tells which word slots are real;
    `weight_B` is 0 for a filler row that only evens out a rank's share, else 1; `review_key_B` is a stable 63-bit key
    of the review, from which mask noise is drawn.
    """

    input_ids_BT: torch.Tensor
    attention_mask_BT: torch.Tensor
    word_of_token_BT: torch.Tensor
    word_mask_BW: torch.Tensor
    label_B: torch.Tensor
    weight_B: torch.Tensor
    review_key_B: torch.Tensor
    prompts: tuple[Prompt, ...] = field(repr=False)

    @property
    def size(self) -> int:
        return len(self.prompts)


@dataclass(frozen=True)
class View:
    """What the decoder reads: a batch as it is, or with words hidden. Producer: method.masked_views. Consumer: models.

    `attention_mask_BT` is 0 for padding and for blocked keys; `position_BT` are explicit, so that a blocked word leaves
    the others where they were.
    """

    input_ids_BT: torch.Tensor
    attention_mask_BT: torch.Tensor
    position_BT: torch.Tensor
    word_of_token_BT: torch.Tensor
    word_mask_BW: torch.Tensor


@dataclass(frozen=True)
class Gap:
    """Neighbouring hidden words of a prompt, to be filled with others. Producer: method.infilled_views. Consumer:
    rollouts.infill.

    The gap is tokens [start, end) of the prompt; `words` are the token ids of each hidden word, in order.
    """

    start: int
    end: int
    words: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class GappedPrompt:
    """A prompt with its gaps, in order. `name` (review key, mask index) names the draws. As `Gap`."""

    token_ids: tuple[int, ...]
    gaps: tuple[Gap, ...]
    name: tuple[int, ...]


# What stands in each gap of a prompt, token ids; () where nothing was found and the words are left out.
Fillings = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class DecoderReading:
    """What one forward pass gave. Producer: models.decoder. Consumers: method, training, evaluation.

    `label_logprob_BC`: log-probability of each label's answer over the whole vocabulary (mean over its tokens where it
    has several). `hidden_BD`: last hidden state at the readout position, detached. `rows_LBHT`: attention of the
    readout position in the captured layers, differentiable where the pass was. `vocabulary_logprob_BV` only on request.
    """

    label_logprob_BC: torch.Tensor
    hidden_BD: torch.Tensor
    rows_LBHT: torch.Tensor
    vocabulary_logprob_BV: torch.Tensor | None = None


@dataclass(frozen=True)
class MaskSample:
    """Ordered draws of words to hide. Producer: method.masking_policy. Consumers: method.masked_views, training.

    `order_BKN`: word indices in the order drawn, -1 past the review's own count. `hidden_BKW`: the same as a set.
    `log_prob_BK`: log π of each ordered draw, differentiable in the focus. `face_K`: +1 attended, -1 unattended,
    0 random.
    """

    order_BKN: torch.Tensor
    hidden_BKW: torch.Tensor
    log_prob_BK: torch.Tensor
    face_K: torch.Tensor


@dataclass(frozen=True)
class Answers:
    """A generator's answers, one row per prompt. Producer: rollouts. Consumers: training, evaluation.

    `label_logprob_NC` as in `DecoderReading`; `adapter_version` is that of the weights which answered.
    """

    label_logprob_NC: torch.Tensor
    adapter_version: int
