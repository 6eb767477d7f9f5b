"""Settings of the method: focus, masks, adversary, reward, objective."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from afa_llm.config_section import MOST, Section


class Attention(Section):
    layers: Literal["auto", "all", "last_half", "last_third"] | tuple[int, ...] = Field(
        "auto",
        description="layers whose readout row makes the focus; negative numbers count from the end; auto: all of a "
        "model of fewer than 12, else those that the base knows most in about what decides (see `afa layers`)",
    )


class Infill(Section):
    """masking.view=infill only: how words are found that stand in for hidden ones."""

    candidates: int = Field(
        4,
        ge=1,
        le=MOST,
        description="proposals for each gap, one chosen by how well the text goes on; 1: the first one stands",
    )
    temperature: float = Field(1.0, gt=0, description="of the proposals; no top-p, no top-k")
    lookahead: int = Field(
        16, ge=1, le=MOST, description="tokens after a gap that judge the proposals, up to the next gap"
    )


class Masking(Section):
    direction: Literal["unattended", "attended", "both", "random"] = Field(
        "attended", description="which words the policy prefers to hide; random ignores the focus (a control)"
    )
    rate: float = Field(0.2, gt=0, lt=1, description="share of a review's words that one mask hides (rounded up)")
    masks_per_review: int = Field(4, ge=1, le=MOST, description="masks drawn for each review in a round (K)")
    temperature: float = Field(1.0, gt=0, description="scores are ± log focus / temperature")
    view: Literal["block", "replace", "delete", "infill"] = Field(
        "block",
        description="how a word is hidden: its keys blocked, fillers for it, cut out, or other words in its place",
    )
    fillers: tuple[str, ...] = Field(
        (" _",), min_length=1, description="replace only: texts whose tokens stand in; drawn word by word where several"
    )
    infill: Infill = Field(default_factory=Infill, description="infill only: how the other words are found")


class Adversary(Section):
    features: tuple[Literal["hidden", "labels", "shift", "focus"], ...] = Field(
        ("shift",),
        min_length=1,
        description="what the adversary sees of a view: hidden state, the labels' answers (the right one first), how "
        "far they moved from those to the whole review, shape of the focus",
    )
    against: Literal["clean", "random"] = Field(
        "random", description="what it tells a policy mask from: the clean view, or a random mask of the same size"
    )
    width: int = Field(64, ge=1, le=65536, description="hidden units")
    learning_rate: float = Field(1e-3, gt=0, le=1e6, description="step size of its AdamW")
    weight_decay: float = Field(0.01, ge=0, description="decay of its AdamW")
    steps_per_round: int = Field(2, ge=0, le=MOST, description="its updates in each round")
    spectral_norm: bool = Field(True, description="bound the Lipschitz constant of its layers")
    r1: float = Field(0.0, ge=0, description="weight of the gradient penalty on its input")
    replay: int = Field(4, ge=0, le=MOST, description="older rounds whose views are kept for its updates")
    warmup_rounds: int = Field(
        8, ge=0, le=MOST, description="rounds in which it learns while the policy gets no feedback"
    )
    auroc_high: float = Field(0.98, gt=0.5, le=1, description="alarm above this held-out AUROC: reward saturates")
    auroc_low: float = Field(0.52, ge=0, lt=1, description="alarm below this held-out AUROC: reward is noise")


class Reward(Section):
    source: Literal["adversary", "answer_shift", "probability_drop", "rationale", "rarity"] = Field(
        "adversary",
        description="adversary: log P(detected); answer_shift: how far the answers move, whichever way, without an "
        "adversary; probability_drop: the fall of log p(label), without an adversary; rationale: the "
        "share of words that annotators call decisive, a control that says what a perfect judge would reach; rarity: "
        "how rare the hidden words are, a control that says what counting words reaches without a judge",
    )
    rarity_power: float = Field(
        0.0,
        ge=0,
        le=10,
        description="ρ: what a mask found counts by the rarity of its words among the training reviews (0..1, mean "
        "over the mask, inverse document frequency) to this power; for the adversary P(detected) · rarity^ρ",
    )
    label_weight: float = Field(0.0, ge=0, description="η: weight of the label-aware part beside the adversary's")
    normalise: bool = Field(
        True,
        description="advantages divided by their root mean square over the round: λ means the same whatever the scale",
    )
    shuffle: bool = Field(False, description="control: rewards permuted over the masks of the round")

    @property
    def asks_rarity(self) -> bool:
        """Whether words are counted for it."""
        return self.rarity_power > 0 or self.source == "rarity"


class Objective(Section):
    task_weight: float = Field(1.0, ge=0, description="weight of the cross-entropy on the label's answer")
    task_scope: Literal["vocabulary", "labels"] = Field(
        "labels", description="cross-entropy over the whole vocabulary, or between the answers of the labels"
    )
    policy_gradient_weight: float = Field(0.1, ge=0, description="λ: weight of the policy gradient of the masks")
    policy_gradient_schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="how λ falls from the first step to 0 after the last; constant: it does not"
    )
    entropy_weight: float = Field(0.0, ge=0, description="β: reward for a spread focus")
    kl_weight: float = Field(0.0, ge=0, description="κ: KL(base ‖ tuned) of the next token on the clean prompt")
    word_mass_weight: float = Field(
        0.0,
        ge=0,
        description="μ: KL(base ‖ tuned) of the attention's split into the review's words and all else, the sink first",
    )
    masked_task_weight: float = Field(0.0, ge=0, description="weight of the cross-entropy on one masked view")
    masked_base_weight: float = Field(
        0.0, ge=0, description="weight of KL(base ‖ tuned) between the labels' answers on one masked view"
    )
    masked_consistency_weight: float = Field(
        0.0,
        ge=0,
        description="weight of KL(whole ‖ masked) between the tuned model's own answers on the whole review, which "
        "teach, and on one masked view, which learns",
    )
    masked_by: Literal["policy", "random"] = Field(
        "policy", description="whose mask makes that view: the policy's first (attended), or a random one of its size"
    )
    masked_rate: float | None = Field(
        None, gt=0, lt=1, description="share of words that a random mask hides in that view; null: masking.rate"
    )
    shown_task_weight: float = Field(
        0.0, ge=0, description="weight of the cross-entropy where only the words of one attended mask are shown"
    )
    self_supervised_weight: float = Field(
        0.0,
        ge=0,
        description="γ of the rival: attention towards words that made answers right (method/self_supervision.py)",
    )
    self_supervised_rounds: int = Field(
        5, ge=1, le=MOST, description="words of a review that the rival mines, one a round"
    )
    self_supervised_entropy: float = Field(
        3.0, gt=0, description="the rival takes a word where the entropy of the focus is under this, in nats"
    )
    group_floor: float = Field(1e-4, ge=0, description="groups whose rewards differ by less (std) are skipped")

    @property
    def uses_masked_view(self) -> bool:
        """Whether the decoder learns from a view with words hidden."""
        return max(self.masked_task_weight, self.masked_base_weight, self.masked_consistency_weight) > 0

    @property
    def looks_ahead(self) -> bool:
        """Whether anything is read before the pass that learns: masks to draw, views to judge, words to mine."""
        judges, mines = self.policy_gradient_weight > 0, self.self_supervised_weight > 0
        holds = self.word_mass_weight > 0
        return judges or mines or holds or self.uses_masked_view or self.shown_task_weight > 0
