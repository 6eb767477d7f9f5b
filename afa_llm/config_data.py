"""Settings of what is read and what is measured: reviews, prompts, evaluation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from afa_llm.config_section import MOST, Section, at_home

FILE_TYPES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
"""Ends of the names of files with reviews, .gz left out; a test holds them to those of data/sources.py."""
LEAST_TOKENS = 8
"""A shorter prompt holds no review."""


class Spurious(Section):
    """A word put into reviews that goes with one label without meaning it (a shortcut, see data/spurious.py)."""

    token: str = Field("honestly", pattern=r"^\S+$", description="the word, without white space")
    label: str = Field("positive", description="label that it goes with, a name of data.labels")
    correlation: float = Field(
        0.9, ge=-1, le=1, description="share of reviews with the word: of this label less that of the others"
    )
    place: Literal["start", "end", "random"] = Field("random", description="where among the review's words it stands")


class Source(Section):
    """One data set: a hub name or a local jsonl/csv/parquet file, and how its columns map."""

    name: str = Field("", description="name in reports; empty: last part of path, of a data set with its split")
    path: str = Field(
        "builtin:planted",
        min_length=1,
        description="suite:<name> (see data/suites.py), hub name, local .jsonl/.csv/.parquet (.gz too), "
        "builtin:planted, or builtin:checklist",
    )
    subset: str | None = Field(None, description="hub configuration name, such as sst2 of glue")
    split: str = Field("train", description="split name, or train/validation/test of the builtin data")
    revision: str | None = Field(None, description="hub revision")
    text_column: str = Field("text", description="column with the review")
    label_column: str = Field("label", description="column with the label")
    id_column: str | None = Field(None, description="column with a stable id; none: the row number")
    group_column: str | None = Field(None, description="column that names a subpopulation, for worst-group accuracy")
    pair_column: str | None = Field(
        None, description="column that joins reviews which belong together, such as an original and its edits"
    )
    side_column: str | None = Field(
        None, description="column that says what a review is in its pair, such as original or edited"
    )
    edits_path: str | None = Field(
        None,
        min_length=1,
        description="local file whose n-th row is an edit of the n-th row of path (contrast sets are published so): "
        "they are pairs, instead of by pair_column and side_column",
    )
    where: dict[str, tuple[str | int | float | bool, ...]] = Field(
        default={}, description="column -> values: rows that have others are left out, and counted"
    )
    exclude_ids: str | None = Field(
        None, description="text file with an id a line: these rows are left out, and counted"
    )
    part: tuple[float, float] | None = Field(
        None,
        description="keep this part of the reviews, by a hash of their text: [0, 0.9] of a file to train on and "
        "[0.9, 1] of the same file to measure on never hold the same review; none: all",
    )
    words_column: str | None = Field(None, description="column with the review's words (list of strings), if given")
    rationale_column: str | None = Field(
        None, description="column with a number per word of words_column: how decisive it is (0..1), or a class"
    )
    rationale_neutral: float | None = Field(
        None, description="if set, a word is decisive where rationale_column differs from this value (SST: 2)"
    )
    rationale_span_column: str | None = Field(
        None, description="column with [start, end] or a list of them: decisive characters of the text"
    )
    spurious: Spurious | None = Field(None, description="a shortcut put into the reviews; none: they stay as they are")
    max_samples: int | None = Field(
        None,
        ge=1,
        le=MOST,
        description="use this many rows, drawn evenly by seed (whole pairs, at most so many); none: all",
    )

    @field_validator("part")
    @classmethod
    def _part_is_a_range(cls, part: tuple[float, float] | None) -> tuple[float, float] | None:
        if part is not None and not 0 <= part[0] < part[1] <= 1:
            raise ValueError("two rising numbers between 0 and 1, such as [0, 0.9]")
        return part

    @property
    def title(self) -> str:
        if self.name:
            return self.name
        stem = self.path.removeprefix("builtin:").removeprefix("suite:").rstrip("/").split("/")[-1].split(".")[0]
        is_file = self.path.lower().removesuffix(".gz").endswith(FILE_TYPES)
        return stem if is_file and self.split == "train" else f"{stem}_{self.split}"  # a file has no splits


class Data(Section):
    train: Source = Field(default_factory=lambda: Source(split="train"), description="reviews to train on")
    evaluation: tuple[Source, ...] = Field(
        default_factory=lambda: (Source(split="validation"),), description="data sets measured before and after"
    )
    validation: Source | None = Field(
        None, description="reviews for training.adapter=best: neither trained on nor reported"
    )
    suites_dir: str | None = Field(
        None, description="folder with local data for suite:<name>; none: the environment variable AFA_DATA"
    )
    labels: dict[str, tuple[str | int | float | bool, ...]] = Field(
        default={"negative": (0, "negative", "neg"), "positive": (1, "positive", "pos")},
        description="label name -> raw values that mean it; the order is the order of classes",
    )
    max_tokens: int = Field(512, ge=LEAST_TOKENS, le=MOST, description="longest prompt, in tokens of the model")
    too_long: Literal["quarantine", "truncate"] = Field(
        "quarantine", description="what happens to a longer review: set aside, or its last words cut"
    )
    max_bad_rows: int | None = Field(
        None, ge=0, le=MOST, description="stop when more rows than this are bad; none: 10 percent"
    )
    duplicates_across: Literal["warn", "error", "ignore"] = Field(
        "warn", description="reviews that stand in two of the training set, data.validation and an evaluation set"
    )


class Prompts(Section):
    file: str = Field(
        "builtin:sentiment", min_length=1, description="YAML with templates and answer words, or builtin:sentiment"
    )
    train: str = Field("review_sentiment", description="template to train with")
    evaluation: tuple[str, ...] = Field(
        ("review_sentiment", "overall_it_was", "is_this_review"),
        min_length=1,
        description="templates to evaluate with",
    )
    chat: Literal["auto", "always", "never"] = Field(
        "auto", description="dress the prompt in the tokenizer's chat template; auto: where it has one"
    )
    demonstrations: int = Field(
        0,
        ge=0,
        le=MOST,
        description="answered training reviews before each review (few-shot), drawn by seed, labels balanced",
    )
    demonstration_words: int = Field(
        60, ge=1, le=MOST, description="longest review that is drawn as a demonstration, in words"
    )

    _home = field_validator("file")(at_home)


class Evaluation(Section):
    batch_size: int = Field(64, ge=1, le=MOST, description="prompts of one forward pass")
    calibrations: tuple[Literal["none", "contextual", "domain", "batch"], ...] = Field(
        ("none", "contextual", "domain", "batch"), min_length=1, description="ways to score the answers"
    )
    headline_calibration: Literal["none", "contextual", "domain", "batch"] = Field(
        "none", description="the one that headlines compare"
    )
    bootstrap_samples: int = Field(2000, ge=100, le=1_000_000, description="resamples of the paired bootstrap")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="level of all intervals")
    focus_samples: int = Field(200, ge=0, le=MOST, description="reviews of each data set for focus quality; 0: none")
    focus_fractions: tuple[float, ...] = Field(
        (0.01, 0.05, 0.1, 0.2, 0.5), min_length=1, description="shares of words removed; focus_samples=0 measures none"
    )
    rare_quantile: float = Field(0.25, gt=0, lt=1, description="words under this training-frequency quantile are rare")
    through_engine: bool = Field(
        False, description="prompts of before and after are answered by the engine of rollouts.backend too"
    )
    before_folder: str | None = Field(
        None,
        description="folder where the base's measurement is kept, and found by runs with the same base, prompts and "
        "settings; none: every run measures it",
    )
    lexicon: str | None = Field(
        None, description="text file with an opinion word a line: decisive words of reviews without a rationale"
    )
    leave_one_out_samples: int = Field(
        50, ge=0, le=MOST, description="reviews of each data set whose words are hidden one by one; 0: none"
    )
    leave_one_out_words: int = Field(60, ge=2, le=MOST, description="longer reviews are not hidden word by word")

    _home = field_validator("before_folder")(at_home)
