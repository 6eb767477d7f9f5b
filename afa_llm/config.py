"""Every setting of a run: frozen, typed, documented, checked before torch is imported.

The sections are in config_running.py, config_data.py and config_method.py. `afa config` prints the resolved values.
Loading (YAML, overrides, messages) is in config_loading.py.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from afa_llm.config_data import Data, Evaluation, Prompts
from afa_llm.config_method import Adversary, Attention, Masking, Objective, Reward
from afa_llm.config_running import Lora, Model, Rollouts, Run, Training
from afa_llm.config_section import Section


class Config(Section):
    run: Run = Field(default_factory=Run, description="name, place, seed")
    model: Model = Field(default_factory=Model, description="the decoder and how it is stored")
    lora: Lora = Field(default_factory=Lora, description="the trained adapter")
    data: Data = Field(default_factory=Data, description="reviews and labels")
    prompts: Prompts = Field(default_factory=Prompts, description="templates and answer words")
    attention: Attention = Field(default_factory=Attention, description="where the focus is read")
    masking: Masking = Field(default_factory=Masking, description="the masking policy")
    adversary: Adversary = Field(default_factory=Adversary, description="the discriminator head")
    reward: Reward = Field(default_factory=Reward, description="what the masks earn")
    objective: Objective = Field(default_factory=Objective, description="weights of the loss")
    training: Training = Field(default_factory=Training, description="optimizer, engine, checkpoints")
    rollouts: Rollouts = Field(default_factory=Rollouts, description="the generator that answers prompts")
    evaluation: Evaluation = Field(default_factory=Evaluation, description="what is measured")

    @property
    def asks_in_rounds(self) -> bool:
        """Whether rounds of training ask an engine."""
        return self.rollouts.backend != "transformers" and self.objective.policy_gradient_weight > 0

    def asks_engine(self, *, training: bool) -> bool:
        """Whether a job asks an engine anything."""
        return self.evaluation.through_engine or (training and self.asks_in_rounds)

    @property
    def judges_by_answers(self) -> bool:
        """Whether rounds judge masks by answers alone, so that an engine's are all that is wanted of masked views."""
        return self.reward.source != "adversary" or set(self.adversary.features) <= {"labels", "shift"}

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        from afa_llm.config_checks import contradictions

        found = contradictions(self)
        if found:
            raise ValueError("\n".join(found).encode("utf-8", "backslashreplace").decode())  # pydantic takes no other
        return self
