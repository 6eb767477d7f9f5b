"""Settings that several tests share."""

EVERY_PART = [
    "attention.layers=last_half",
    "masking.direction=both",
    "adversary.features=[hidden, labels, focus]",
    "adversary.against=clean",
    "reward.label_weight=0.5",
    "reward.normalise=false",
    "objective.policy_gradient_weight=0.2",
    "rollouts.reader=tuned",
]
"""Both faces, all features of the adversary, the label-aware part of the reward: more parts at work than by default."""
