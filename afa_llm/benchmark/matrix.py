"""All outcomes of a benchmark, and how a value is found among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from afa_llm.benchmark.by_review import SetValues
from afa_llm.benchmark.cells import Cell
from afa_llm.benchmark.outcomes import ACCURACY, Outcome
from afa_llm.benchmark.settings import Benchmark
from afa_llm.evaluation.estimates import Resampling

Key = tuple[str, str]
"""Data set and evaluation set."""


@dataclass(frozen=True)
class Matrix:
    """All outcomes of a benchmark, by data set, arm and seed. `how`: of base's evaluation settings."""

    benchmark: Benchmark
    cells: Sequence[Cell]
    outcomes: Mapping[tuple[str, str, int], Outcome]

    @property
    def how(self) -> Resampling:
        settings = self.cells[0].config.evaluation
        return Resampling(settings.bootstrap_samples, settings.confidence, 0)

    def of(self, data_set: str, arm: str) -> dict[int, Outcome]:
        """By seed."""
        found = {seed: self.outcomes.get((data_set, arm, seed)) for seed in self.benchmark.seeds}
        return {seed: outcome for seed, outcome in found.items() if outcome}

    def sets(self) -> list[Key]:
        """Every evaluation set that a finished cell measured, in the order of the file."""
        keys = [(data, name) for (data, _, _), outcome in self.outcomes.items() for name in outcome.final]
        order = list(self.benchmark.data_sets)
        return sorted(dict.fromkeys(keys), key=lambda key: order.index(key[0]))

    def label(self, key: Key) -> str:
        """The evaluation set's name, with its data set before it where several have a set of that name."""
        return key[1] if sum(other[1] == key[1] for other in self.sets()) == 1 else f"{key[0]}/{key[1]}"

    def values(self, key: Key, arm: str, metric: str, phase: str = "final") -> dict[int, float]:
        """A metric by seed, of the seeds that have it. Phase: final or before."""
        found = {}
        for seed, outcome in self.of(key[0], arm).items():
            measured = getattr(outcome, phase).get(key[1])
            if measured and metric in measured.metrics:
                found[seed] = measured.metrics[metric]
        return found

    def by_review(self, key: Key, arm: str, metric: str) -> dict[int, SetValues]:
        """A metric's values of single reviews by seed, after training; empty where a seed that has it lacks them."""
        found = {}
        for seed in self.values(key, arm, metric):
            measured = self.of(key[0], arm)[seed].final[key[1]]
            if metric not in measured.by_review:
                return {}
            found[seed] = measured.by_review[metric]
        return found

    def metrics(self) -> list[str]:
        names = dict.fromkeys(
            name
            for outcome in self.outcomes.values()
            for measured in outcome.final.values()
            for name in measured.metrics
        )
        return [ACCURACY, *(name for name in names if name != ACCURACY)] if names else []
