"""The adversary: told two views of one review, it says which one has words hidden.

The paper has a discriminator that "strives to detect significant differences induced by these masks". The form is ours:
an antisymmetric pair score s(a, b) = g(a, b) - g(b, a), P(a is the masked one) = σ(s). Training pairs are balanced by
construction, and s = 0 (P = 1/2) where the views are the same.

Legend: N pairs of views, F features of one view.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from afa_llm.method.replay import Replay
from afa_llm.method.view_features import FeaturePair

ReduceSum = Callable[[list[Tensor]], None]


def one_process(tensors: list[Tensor]) -> None:
    """The sum over the ranks of a single process: nothing to do."""


class Discriminator(nn.Module):
    """s(a, b) [N] from features a, b [N, F], antisymmetric: s(b, a) = -s(a, b).

    g is a small network of the mean and the difference of the two views; swapping them flips the difference. Each
    layer but the last is bounded to Lipschitz constant 1 with `spectral_norm` (Miyato et al. 2018, arXiv 1802.05957);
    the last one sets how sharp P may become, under weight decay. Inputs have fixed scales and there are no running
    statistics, so that all ranks compute the same.
    """

    def __init__(self, features: int, width: int, spectral_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(2 * features, width, device="cpu"), nn.Linear(width, width, device="cpu")]
        if spectral_norm:
            layers = [parametrizations.spectral_norm(layer) for layer in layers]
        self.inner = nn.Sequential(layers[0], nn.LeakyReLU(0.2), layers[1], nn.LeakyReLU(0.2))
        self.outer = nn.Linear(width, 1, bias=False, device="cpu")

    def forward(self, a_NF: Tensor, b_NF: Tensor) -> Tensor:
        mean, difference = (a_NF + b_NF) / 2, a_NF - b_NF
        forth, back = torch.cat([mean, difference], dim=-1), torch.cat([mean, -difference], dim=-1)
        # One pass for both orders: in training mode spectral_norm takes a power step at each pass, and two passes would
        # use two slightly different networks.
        g_forth, g_back = self.outer(self.inner(torch.cat([forth, back]))).squeeze(-1).chunk(2)
        return g_forth - g_back


@dataclass(frozen=True)
class AdversaryUpdate:
    """What one call of `Adversary.update` did. `loss` is the global mean before the last step, in nats per pair; NaN
    where there were no pairs.

    `steps` counts the optimizer steps taken: fewer than asked where there were no pairs or something was not finite.
    """

    loss: float
    steps: int
    pairs: float


class Adversary:
    """The discriminator with its optimizer and its memory of older rounds.

    All ranks hold the same weights: the same seed, and gradients that are summed over ranks before each step. Each rank
    holds its share of the replay; what is drawn from all shares together does not depend on how they are cut.
    """

    def __init__(
        self,
        features: int,
        *,
        width: int,
        learning_rate: float,
        weight_decay: float,
        spectral_norm: bool,
        r1: float,
        replay: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.discriminator = _seeded(lambda: Discriminator(features, width, spectral_norm), seed).to(device).eval()
        self.optimizer = torch.optim.AdamW(
            self.discriminator.parameters(), lr=learning_rate, weight_decay=weight_decay, foreach=False
        )
        self.r1 = r1
        self.device = torch.device(device)
        self.replay = Replay(features, replay, seed)
        self.rounds = 0

    @torch.no_grad()
    def detect(self, pair: FeaturePair) -> Tensor:
        """s(masked, clean) [N]: the logit of P_detect. No gradient; changes nothing."""
        return self.discriminator(pair.masked_NF.to(self.device), pair.clean_NF.to(self.device))

    def update(
        self,
        pair: FeaturePair,
        weight_N: Tensor,
        *,
        steps: int,
        key_N: Tensor | None = None,
        reduce_sum: ReduceSum = one_process,
    ) -> AdversaryUpdate:
        """Learn from this round's pairs and about as many older ones, then remember this round's.

        `weight_N` is 0 for pairs of filler rows, else 1. `key_N` names each pair within the round, alike in every
        layout (default: its place). `reduce_sum` sums tensors over ranks in place; it is called
        once in each step, on every rank, whatever the rank holds. The loss is Σ -log σ(s(masked, clean)) over the
        pairs of all ranks divided by their number, so the layout doesn't change the gradient. A step whose summed
        loss or gradient is not finite is not taken, and such a round is not remembered.
        """
        real_N = weight_N > 0
        real = pair.select(real_N.to(pair.clean_NF.device))
        key_N = (torch.arange(len(weight_N)) if key_N is None else key_N.cpu())[real_N.cpu()]
        taken, loss, pairs = 0, math.nan, 0.0
        finite = True
        for step in range(steps):
            loss, pairs, stepped = self._step(self._with_older(real, step), reduce_sum)
            finite = finite and (stepped or pairs == 0)
            taken += stepped
        if finite:
            self.replay.remember(real, key_N, self.rounds)
        self.rounds += 1
        return AdversaryUpdate(loss=loss, steps=taken, pairs=pairs)

    def loss_sum(self, pair: FeaturePair) -> Tensor:
        """Scalar Σ -log σ(s) over pairs, plus r1/2 · Σ ‖∂s/∂(a, b)‖² where r1 > 0 (Mescheder et al. 2018,
        1801.04406)."""
        masked, clean = pair.masked_NF.to(self.device), pair.clean_NF.to(self.device)
        if self.r1 == 0:
            return functional.softplus(-self.discriminator(masked, clean)).sum()
        masked, clean = masked.clone().requires_grad_(), clean.clone().requires_grad_()
        logit_N = self.discriminator(masked, clean)
        slopes = torch.autograd.grad(logit_N.sum(), (masked, clean), create_graph=True)
        penalty = torch.stack([slope.square().sum() for slope in slopes]).sum()
        return functional.softplus(-logit_N).sum() + self.r1 / 2 * penalty

    def state_dict(self) -> dict[str, Any]:
        """Everything the next round depends on: weights, power-iteration vectors, optimizer, rounds, replay."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rounds": self.rounds,
            "replay": self.replay.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` stood, with the step size and decay that this one was made with."""
        self.discriminator.load_state_dict(state["discriminator"])
        groups = self.optimizer.state_dict()["param_groups"]  # those of the state are of the settings it was saved with
        self.optimizer.load_state_dict(state["optimizer"] | {"param_groups": groups})
        self.rounds = int(state["rounds"])
        self.replay.load_state_dict(state["replay"])

    @torch.enable_grad()
    def _step(self, pair: FeaturePair, reduce_sum: ReduceSum) -> tuple[float, float, bool]:
        """One optimizer step on all ranks: (global mean loss before it, global number of pairs, was it taken)."""
        parameters = list(self.discriminator.parameters())
        self.discriminator.train()
        numerator = self.loss_sum(pair)
        self.discriminator.eval()
        gradients = list(torch.autograd.grad(numerator, parameters))
        totals = torch.stack([numerator.detach(), numerator.new_tensor(float(len(pair.clean_NF)))])
        reduce_sum([*gradients, totals])
        pairs = float(totals[1])
        loss = float(totals[0]) / pairs if pairs else math.nan
        finite = bool(torch.stack([tensor.isfinite().all() for tensor in (*gradients, totals)]).all())
        if pairs == 0 or not finite:
            return loss, pairs, False
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient / pairs
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss, pairs, True

    def _with_older(self, pair: FeaturePair, step: int) -> FeaturePair:
        """This round's pairs joined by about as many of the replay, drawn anew for each step."""
        older, device = self.replay.draw(self.rounds, step), pair.clean_NF.device
        return pair.join(FeaturePair(older.clean_NF.to(device), older.masked_NF.to(device)))


def _seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build a CPU module from a seed of its own; the global generator is left as it was found."""
    before = torch.get_rng_state()
    try:
        torch.default_generator.manual_seed(seed)
        return build()
    finally:
        torch.set_rng_state(before)
