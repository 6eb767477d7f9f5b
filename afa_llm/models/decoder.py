"""One forward pass of a decoder LLM, giving only what somebody reads: label answers, readout state, attention rows.

Logits are computed at the readout position only (never B×T×V). Answers of one token take one pass; answers of several
are appended as candidates and scored by their mean token log-probability.

Legend: B rows, T tokens, L captured layers, H query heads, D hidden size, C labels, A answer tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import torch
from torch import nn

from afa_llm.errors import AfaError
from afa_llm.models.attention_capture import DeepEnough, RowRequest
from afa_llm.models.exact_products import keep_logits_exact
from afa_llm.models.pass_tokens import PassTokens
from afa_llm.records import AnswerWords, DecoderReading, View


class Decoder:
    """A causal LM (bare, with LoRA, or behind an engine) read at its last position.

    `layers`: indices of the layers whose readout row is captured. `forward` is what a pass calls: the model itself, or
    an engine's wrapper around it. `may_stop_early` is False where a pass must run whole (ZeRO-3 counts its modules).
    `tokens`: what has passed so far.
    """

    def __init__(self, model: nn.Module, layers: tuple[int, ...], pad_token_id: int) -> None:
        self.model = model
        self.layers = layers
        self.forward: Callable[..., Any] = model
        self.may_stop_early = True
        self.tokens = PassTokens()
        self._hidden: torch.Tensor | None = None
        self._ran_whole = False  # a pass that ends early would not see that a layer comes again
        output_layer = model.get_output_embeddings()  # type: ignore[operator]
        if output_layer is None:
            raise AfaError(
                f"model.path: {self._family()} has no output layer; choose a decoder (causal language model)"
            )
        # A padding token that was added to the tokenizer alone has no embedding. Any id does: nothing attends to it.
        # (A family that has an output layer has embeddings, too: transformers asks for these first.)
        embedded = getattr(model.get_input_embeddings(), "num_embeddings", None)  # type: ignore[operator]
        self.pad_token_id = pad_token_id if embedded is None or pad_token_id < embedded else 0
        output_layer.register_forward_pre_hook(self._keep_hidden)
        keep_logits_exact(output_layer)

    @property
    def device(self) -> torch.device:
        return next(p.device for p in self.model.parameters())

    def read(self, view: View, answers: AnswerWords, *, vocabulary: bool = False) -> DecoderReading:
        """Everything a pass can give; differentiable unless called under no_grad.

        Raises AfaError where the model's family does not hand its attention to the capture.
        """
        if answers.single:
            last_BV, rows_LBHT, hidden_BD = self._pass(view, keep=1)
            logprob_BV = last_BV[:, 0].float().log_softmax(-1)
            ids_C = torch.tensor([ids[0] for ids in answers.token_ids], device=logprob_BV.device)
            chosen = logprob_BV if vocabulary else None
            return DecoderReading(logprob_BV[:, ids_C], hidden_BD, rows_LBHT, chosen)
        return self._read_sequences(view, answers, vocabulary)

    def read_rows(self, view: View) -> torch.Tensor:
        """Attention rows [L, B, H, T] alone, without gradient; the pass ends at the deepest captured layer."""
        return self._rows(self._rows_alone(view))

    def read_rows_and_value_norms(self, view: View) -> tuple[torch.Tensor, torch.Tensor]:
        """As `read_rows`, and the length of each token's value vector in the same heads, [L, B, H, T]."""
        request = self._rows_alone(view, value_norms=True)
        return self._rows(request), torch.stack([request.norms[layer] for layer in self.layers])

    def token_logprobs(self, view: View, keep: int) -> torch.Tensor:
        """Log-probability of each row's last `keep` tokens, given all before them, [B, keep] in float32."""
        request = self._request(view)
        request.layers = frozenset()
        logprob_BAV = self._call(view, request, keep + 1)[:, :-1].float().log_softmax(-1)
        return logprob_BAV.gather(-1, view.input_ids_BT[:, -keep:, None])[..., 0]

    def next_token_logprobs(self, view: View) -> torch.Tensor:
        """Log-probabilities over the vocabulary of what comes after each row, [B, V] in float32."""
        request = self._request(view)
        request.layers = frozenset()
        return self._call(view, request, 1)[:, 0].float().log_softmax(-1)

    @contextmanager
    def base(self) -> Iterator[None]:
        """The frozen base model: the adapter is off inside. A bare model is its own base."""
        disable = getattr(self.model, "disable_adapter", nullcontext)
        with disable():
            yield

    def answering(self) -> AbstractContextManager[None]:
        """No gradient and no dropout inside; training mode is restored after."""
        return answering(self.model)

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Passes inside leave `tokens` as it is."""
        kept, self.tokens = self.tokens, PassTokens()
        try:
            yield
        finally:
            self.tokens = kept

    def _rows_alone(self, view: View, value_norms: bool = False) -> RowRequest:
        with torch.no_grad():
            may_stop = self.may_stop_early and self._ran_whole
            request = self._request(view, stop_after=max(self.layers) if may_stop else None)
            request.value_norms = value_norms
            with suppress(DeepEnough):
                self._call(view, request, keep=1)
            return request

    def _pass(self, view: View, keep: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        request = self._request(view, position=view.input_ids_BT.shape[1] - keep)
        logits = self._call(view, request, keep)
        if self._hidden is None:
            raise AfaError(f"model.path: {type(self.model).__name__} has an output layer that is never called")
        hidden_BD, self._hidden = self._hidden[:, -keep], None
        return logits, self._rows(request), hidden_BD

    def _request(self, view: View, position: int | None = None, stop_after: int | None = None) -> RowRequest:
        last = view.input_ids_BT.shape[1] - 1
        return RowRequest(frozenset(self.layers), last if position is None else position, stop_after)

    def _call(self, view: View, request: RowRequest, keep: int) -> torch.Tensor:
        self.tokens.add(view.input_ids_BT.numel(), torch.is_grad_enabled())
        try:
            output = self.forward(
                input_ids=view.input_ids_BT,
                attention_mask=view.attention_mask_BT,
                position_ids=view.position_BT,
                use_cache=False,
                logits_to_keep=keep,
                attention_rows=request,
            )
        finally:
            request.closed = True
        self._ran_whole = self._ran_whole or bool(request.found)
        return output.logits[:, -keep:]  # a family that ignores logits_to_keep gives all

    def _rows(self, request: RowRequest) -> torch.Tensor:
        missing = sorted(request.layers - request.found.keys())
        if missing:
            raise AfaError(
                f"model.path: {self._family()} gives no attention rows in layers {missing}: its attention does not go "
                "through transformers' attention interface. Choose other attention.layers, or a decoder family such as "
                "Llama, Mistral, Qwen, Gemma, Phi or GPT-2"
            )
        rows_LBHT = torch.stack([request.found[layer] for layer in self.layers])
        # Gradient checkpointing keeps the request for its recomputation. A request that keeps rows keeps their graph,
        # which keeps the request: a circle that Python can't see through, and a whole pass that is never freed.
        request.found.clear()
        return rows_LBHT

    def _family(self) -> str:
        return str(getattr(getattr(self.model, "config", None), "model_type", type(self.model).__name__))

    def _keep_hidden(self, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self._hidden = inputs[0].detach()

    def _read_sequences(self, view: View, answers: AnswerWords, vocabulary: bool) -> DecoderReading:
        """Answers of several tokens: every prompt once per label, the answer's tokens appended on the right."""
        B, C = view.input_ids_BT.shape[0], len(answers.token_ids)
        A = max(len(ids) for ids in answers.token_ids)
        device = view.input_ids_BT.device
        ids_CA = torch.full((C, A), self.pad_token_id, device=device)
        for c, ids in enumerate(answers.token_ids):
            ids_CA[c, : len(ids)] = torch.tensor(ids, device=device)
        length_C = torch.tensor([len(ids) for ids in answers.token_ids], device=device)
        known_CA = torch.arange(A, device=device) < length_C[:, None]
        # The last answer token is scored, never read: append all but one.
        longer = append_answers(view, ids_CA[:, :-1], known_CA[:, :-1] & known_CA[:, 1:])
        logits, rows_LNHT, hidden_ND = self._pass(longer, keep=A)
        logprob_BCAV = logits.float().log_softmax(-1).unflatten(0, (B, C))
        token_BCA = logprob_BCAV.gather(-1, ids_CA.expand(B, C, A)[..., None])[..., 0]
        label_BC = (token_BCA * known_CA).sum(-1) / length_C
        T = view.input_ids_BT.shape[1]
        rows_LBHT = rows_LNHT.unflatten(1, (B, C))[:, :, 0, :, :T]
        return DecoderReading(
            label_BC, hidden_ND.unflatten(0, (B, C))[:, 0], rows_LBHT, logprob_BCAV[:, 0, 0] if vocabulary else None
        )


@contextmanager
def answering(model: nn.Module) -> Iterator[None]:
    """No gradient and no dropout inside; training mode is restored after."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def append_answers(view: View, ids_CA: torch.Tensor, known_CA: torch.Tensor) -> View:
    """View of B*C rows: row b*C+c is prompt b followed by answer c (right padding masked)."""
    B = len(view.input_ids_BT)
    C, A = ids_CA.shape
    repeated = [x.repeat_interleave(C, 0) for x in (view.input_ids_BT, view.attention_mask_BT, view.position_BT)]
    step_A = torch.arange(1, A + 1, device=ids_CA.device)
    position_NA = repeated[2][:, -1:] + step_A
    mask_NA = known_CA.repeat(B, 1).to(repeated[1].dtype)
    word_NA = torch.full((B * C, A), -1, device=ids_CA.device, dtype=view.word_of_token_BT.dtype)
    return View(
        input_ids_BT=torch.cat([repeated[0], ids_CA.repeat(B, 1)], 1),
        attention_mask_BT=torch.cat([repeated[1], mask_NA], 1),
        position_BT=torch.cat([repeated[2], position_NA], 1),
        word_of_token_BT=torch.cat([view.word_of_token_BT.repeat_interleave(C, 0), word_NA], 1),
        word_mask_BW=view.word_mask_BW.repeat_interleave(C, 0),
    )


def choose_layers(choice: str | tuple[int, ...], depth: int) -> tuple[int, ...]:
    """Layer indices of an `attention.layers` setting for a decoder of `depth` layers. Raises AfaError out of range.

    `auto` gives all: which of them is settled when the decoder can be asked (run_layers).
    """
    if choice in ("all", "auto"):
        return tuple(range(depth))
    if choice == "last_half":
        return tuple(range(depth // 2, depth))
    if choice == "last_third":
        return tuple(range(depth - max(1, depth // 3), depth))
    wrong = [layer for layer in choice if not -depth <= int(layer) < depth]
    if wrong or not choice:
        raise AfaError(f"attention.layers = {list(choice)}: the model has layers 0 to {depth - 1} (or -{depth} to -1)")
    return tuple(sorted({int(layer) % depth for layer in choice}))
