"""Whether the reviews and prompts of a run are fit for what it does with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from afa_llm.config import Config
from afa_llm.errors import AfaError
from afa_llm.records import Example, Prompt


def one_sided(
    labels: Sequence[str], evaluation: Mapping[str, Sequence[Example]], focus_prompts: Mapping[str, Sequence[Prompt]]
) -> list[str]:
    """A notice for each data set that is sorted by label, as IMDB is on the hub: its first reviews are of one class."""
    notices = []
    for title, prompts in focus_prompts.items():
        seen = {prompt.example.label for prompt in prompts}
        if len(seen) == 1 and len({example.label for example in evaluation[title]}) > 1:
            notices.append(
                f"{title}: the focus is measured on the first {len(prompts)} reviews, and all of them are "
                f"{labels[seen.pop()]!r}; set max_samples of this data set, which draws evenly"
            )
    return notices


def check_classes(config: Config, prompts: Sequence[Prompt]) -> list[str]:
    """Raises AfaError where there is nothing to tell apart; a notice for each label that training never sees."""
    labels, title = tuple(config.data.labels), f"data.train = {config.data.train.title}"
    seen = {prompt.example.label for prompt in prompts}
    if len(seen) < 2:
        raise AfaError(
            f"{title}: all {len(prompts)} reviews to train on are {labels[seen.pop()]!r}, nothing tells them apart; "
            "name data with another label too, or raise data.train.max_samples"
        )
    return [f"{title}: no review is {name!r}" for k, name in enumerate(labels) if k not in seen]


def draws_masks(config: Config) -> bool:
    """Whether the masks of a review are compared with each other."""
    return config.objective.policy_gradient_weight > 0


def check_masks(config: Config, prompts: Sequence[Prompt]) -> None:
    """Masks that outnumber the words of every review only repeat each other."""
    longest, masks = max(len(prompt.example.words) for prompt in prompts), config.masking.masks_per_review
    if not draws_masks(config) or masks <= longest:
        return
    both = config.masking.direction == "both"
    most, least = (longest - longest % 2, 4) if both else (longest, 2)
    way_out = f"set at most {most}"
    if most < least:
        way_out = "name longer reviews, or set objective.policy_gradient_weight=0"
        way_out += " or masking.direction=attended with 2 masks" if both and longest >= 2 else ""
    raise AfaError(
        f"masking.masks_per_review = {masks}: more masks than words, the longest training review has {longest}; "
        f"{way_out}"
    )


def wants_rationales(config: Config) -> bool:
    return config.objective.policy_gradient_weight > 0 and config.reward.source == "rationale"


def check_rationales(config: Config, prompts: Sequence[Prompt]) -> None:
    """The control that rewards masks by the annotators' words needs some."""
    if wants_rationales(config) and not any(any(prompt.example.rationale or ()) for prompt in prompts):
        raise AfaError(
            f"reward.source = rationale: no training review of {config.data.train.title} has a decisive word marked; "
            "set data.train.rationale_column (with words_column) or rationale_span_column, or reward.source=adversary"
        )
