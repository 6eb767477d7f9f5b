"""What `prepare` tells and refuses of the reviews and prompts of a job."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from afa_llm.config_loading import load_config
from afa_llm.errors import AfaError
from afa_llm.material import prepare


def test_a_label_that_training_never_sees_is_told(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"text": "a fine film", "label": 1}\n{"text": "a dull film", "label": 0}\n')
    settings = [f"model.path={tiny_model}", f"data.train.path={tmp_path / 'r.jsonl'}", "data.evaluation=[]"]
    settings += ["data.labels={negative: [0], positive: [1], neutral: [2]}", f"prompts.file={tmp_path / 't.yaml'}"]
    settings += ["prompts.train=t", "prompts.evaluation=[t]", "masking.masks_per_review=2"]
    answers = '{negative: " bad", positive: " good", neutral: " fair"}'
    (tmp_path / "t.yaml").write_text(f'templates: {{t: {{prompt: "{{review}} It is", answers: {answers}}}}}')
    assert prepare(load_config(None, settings)).notices == ["data.train = r: no review is 'neutral'"]


def test_a_focus_on_reviews_of_one_class_is_told(tiny_model: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"a film {n}", "label": int(n >= 40)}) for n in range(80)]
    (tmp_path / "r.jsonl").write_text("".join(line + "\n" for line in lines))
    settings = [f"model.path={tiny_model}", "evaluation.focus_samples=40"]
    source = f"path: {tmp_path / 'r.jsonl'}"
    (told,) = prepare(load_config(None, [*settings, f"data.evaluation=[{{{source}}}]"])).notices
    assert told.startswith("r: the focus is measured on the first 40 reviews, and all of them are 'negative'")
    drawn = prepare(load_config(None, [*settings, f"data.evaluation=[{{{source}, max_samples: 40}}]"]))
    assert drawn.notices == []


def test_validation_that_is_trained_on_or_measured_is_told(tiny_model: Path, tmp_path: Path) -> None:
    texts = {"train": ["a fine film", "a dull film", "so so"], "dev": ["So, so.", "a new film"], "test": ["A new film"]}
    for name, found in texts.items():
        lines = [json.dumps({"text": text, "label": n % 2}) for n, text in enumerate(found)]
        (tmp_path / f"{name}.jsonl").write_text("".join(line + "\n" for line in lines))
    settings = [f"model.path={tiny_model}", "masking.masks_per_review=2", "data.max_bad_rows=9"]
    settings += [f"data.train.path={tmp_path / 'train.jsonl'}", f"data.validation.path={tmp_path / 'dev.jsonl'}"]
    settings += [f"data.evaluation=[{{path: {tmp_path / 'test.jsonl'}}}]"]
    told = prepare(load_config(None, settings)).notices
    assert [notice.split(" (")[0] for notice in told] == [
        "data.validation = dev: 1 of 2 reviews stand in the training set too",
        "test: 1 of 1 reviews stand in the validation set too",
    ]
    assert prepare(load_config(None, [*settings, "data.duplicates_across=ignore"])).notices == []
    with pytest.raises(AfaError, match=r"data\.validation = dev: 1 of 2 reviews"):
        prepare(load_config(None, [*settings, "data.duplicates_across=error"]))


def test_reviews_that_are_trained_on_are_found_under_a_spurious_word(tiny_model: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"a film {n}", "label": n % 2}) for n in range(40)]
    (tmp_path / "r.jsonl").write_text("".join(line + "\n" for line in lines))
    path = tmp_path / "r.jsonl"
    settings = [f"model.path={tiny_model}", f"data.train.path={path}", "masking.masks_per_review=2"]
    settings += [f"data.evaluation=[{{path: {path}, name: dev, spurious: {{correlation: -0.9}}}}]"]
    told = prepare(load_config(None, [*settings, "data.train.spurious.correlation=0.9"])).notices
    assert [notice.split(" (")[0] for notice in told] == ["dev: 40 of 40 reviews stand in the training set too"]


def test_reviews_that_are_shown_are_not_trained_on_though_they_are_cut(tiny_model: Path, tmp_path: Path) -> None:
    """Beside the demonstrations a review may have to be cut that was whole when it was drawn as one of them."""
    lines = [json.dumps({"text": f"film {n} " + "is fine " * 15, "label": n % 2}) for n in range(10)]
    (tmp_path / "r.jsonl").write_text("".join(line + "\n" for line in lines))
    settings = [f"model.path={tiny_model}", f"data.train.path={tmp_path / 'r.jsonl'}", "data.evaluation=[]"]
    settings += ["prompts.demonstrations=2", "data.too_long=truncate"]
    whole = prepare(load_config(None, settings))
    longest = min(len(prompt.token_ids) for prompt in whole.train_prompts)
    cut = prepare(load_config(None, [*settings, f"data.max_tokens={longest - 4}"]))
    trained = [{prompt.example.example_id for prompt in found.train_prompts} for found in (whole, cut)]
    assert trained[0] == trained[1] and len(trained[0]) == 8


def test_a_spurious_word_that_is_cut_off_is_in_no_group_and_told(tiny_model: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"text": "one fine film " * 40, "label": n % 2}) for n in range(8)]
    (tmp_path / "r.jsonl").write_text("".join(line + "\n" for line in lines))
    settings = [f"model.path={tiny_model}", f"data.train.path={tmp_path / 'r.jsonl'}", "data.evaluation=[]"]
    settings += ["data.too_long=truncate", "data.max_tokens=64", "data.train.spurious.correlation=1"]
    cut = prepare(load_config(None, [*settings, "data.train.spurious.place=end"]))
    assert {prompt.example.group for prompt in cut.train_prompts} == {
        "negative, without honestly",
        "positive, without honestly",
    }
    assert "4 × spurious.token was cut off with the end of the review" in cut.quarantines["data.train = r"].summary()
    kept = prepare(load_config(None, [*settings, "data.train.spurious.place=start"]))
    groups = [prompt.example.group for prompt in kept.train_prompts]
    assert groups == ["negative, without honestly", "positive, with honestly"] * 4


def test_bad_rows_name_the_setting_that_reads_them(tiny_model: Path, tmp_path: Path) -> None:
    """`afa train` said "train: train: train: 1 of 3 rows are bad" of a file called train.jsonl."""
    labels = {"train": [0, 1, 7], "good": [0, 1, 1]}
    for name, found in labels.items():
        rows = [json.dumps({"text": f"film {n} of {name}", "label": label}) for n, label in enumerate(found)]
        (tmp_path / f"{name}.jsonl").write_text("".join(row + "\n" for row in rows))
    settings = [f"model.path={tiny_model}", "masking.masks_per_review=2", "data.evaluation=[]"]
    good, bad = (f"{tmp_path / name}.jsonl" for name in ("good", "train"))
    with pytest.raises(AfaError, match=r"^data\.train = train: 1 of 3 rows are bad"):
        prepare(load_config(None, [*settings, f"data.train.path={bad}"]))
    with pytest.raises(AfaError, match=r"^data\.validation = train: 1 of 3 rows are bad"):
        prepare(load_config(None, [*settings, f"data.train.path={good}", f"data.validation.path={bad}"]))


def test_demonstrations_that_leave_nothing_to_train_on(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"text": "a fine film", "label": 1}\n{"text": "a dull film", "label": 0}\n')
    settings = [f"model.path={tiny_model}", f"data.train.path={tmp_path / 'r.jsonl'}", "data.evaluation=[]"]
    with pytest.raises(AfaError, match=r"prompts\.demonstrations = 2: all 2 training reviews"):
        prepare(load_config(None, [*settings, "prompts.demonstrations=2"]))


def test_an_evaluation_asks_no_labels_of_the_training_reviews(tiny_model: Path, tmp_path: Path) -> None:
    """Grades are measured, and the adapter was trained on two labels: the words of its reviews are counted alone."""
    lines = {"grades": ["low", "fair", "high"] * 2, "train": ["neg", "pos", None] * 4}
    for name, labels in lines.items():
        rows = [json.dumps({"text": f"a film {n} of {name}", "label": label}) for n, label in enumerate(labels)]
        (tmp_path / f"{name}.jsonl").write_text("".join(row + "\n" for row in rows))
    answers = '{low: " bad", fair: " fair", high: " good"}'
    (tmp_path / "t.yaml").write_text(f'templates: {{t: {{prompt: "{{review}} It is", answers: {answers}}}}}')
    settings = [f"model.path={tiny_model}", "data.labels={low: [low], fair: [fair], high: [high]}"]
    settings += [f"data.evaluation=[{{path: {tmp_path / 'grades.jsonl'}}}]", f"prompts.file={tmp_path / 't.yaml'}"]
    settings += ["prompts.train=t", "prompts.evaluation=[t]", "data.max_bad_rows=4"]
    train = [f"data.train.path={tmp_path / 'train.jsonl'}"]
    measured = prepare(load_config(None, [*settings, *train]), learns=False)
    assert [example.text for example in measured.train_examples][:3] == [f"a film {n} of train" for n in (0, 1, 3)]
    told = measured.quarantines["data.train = train"].summary()
    assert "4 × label is missing" in told and "8 × label that data.labels lacks; no label is asked for here" in told
    assert len(prepare(load_config(None, settings), learns=False).train_examples) > 8  # the packaged reviews
    with pytest.raises(AfaError, match="× unknown label 'neg'"):
        prepare(load_config(None, [*settings, *train]))
    with pytest.raises(AfaError, match=r"data\.labels \(low, fair, high\) lacks 0; name reviews of your own"):
        prepare(load_config(None, settings))


@pytest.mark.parametrize(
    ("longest", "settings", "way_out"),
    [
        (3, ["masking.masks_per_review=4"], "has 3; set at most 3"),
        (5, ["masking.direction=both", "masking.masks_per_review=6"], "has 5; set at most 4"),
        (3, ["masking.direction=both"], "or masking.direction=attended with 2 masks"),
        (1, ["masking.masks_per_review=2"], "has 1; name longer reviews, or set objective.policy_gradient_weight=0"),
    ],
)
def test_more_masks_than_words_tell_a_number_that_is_allowed(
    tiny_model: Path, tmp_path: Path, longest: int, settings: list[str], way_out: str
) -> None:
    """Two masks are the fewest, four with both faces: "set at most 1" led from one refusal to the next."""
    rows = [json.dumps({"text": " ".join(["film"] * longest), "label": n % 2}) for n in range(4)]
    (tmp_path / "r.jsonl").write_text("".join(row + "\n" for row in rows))
    given = [f"model.path={tiny_model}", f"data.train.path={tmp_path / 'r.jsonl'}", "data.evaluation=[]", *settings]
    with pytest.raises(AfaError, match="more masks than words, the longest training review") as told:
        prepare(load_config(None, given))
    assert str(told.value).endswith(way_out)
    assert len(prepare(load_config(None, [*given, "objective.policy_gradient_weight=0"])).train_prompts) == 4


def test_random_words_to_calibrate_by_are_no_longer_than_reviews_may_be(tiny_model: Path, tmp_path: Path) -> None:
    """Reviews of like length were all within the model's positions, and some of the random texts were not: an index
    past the end of a table of positions."""
    words = ["great", "terrible", "film", "film", "film", "unbelievable", "don't", "the"]
    rows = [json.dumps({"text": " ".join(words[n:] + words[:n]), "label": n % 2}) for n in range(8)]
    (tmp_path / "r.jsonl").write_text("".join(row + "\n" for row in rows))
    settings = [f"model.path={tiny_model}", f"data.evaluation=[{{path: {tmp_path / 'r.jsonl'}}}]"]
    settings += ["prompts.evaluation=[review_sentiment]", "data.too_long=truncate"]
    (loose,) = prepare(load_config(None, settings)).prompt_sets["r"]
    longest = max(len(prompt.token_ids) for prompt in loose.prompts)
    assert max(len(prompt.token_ids) for prompt in loose.in_domain) > longest
    (tight,) = prepare(load_config(None, [*settings, f"data.max_tokens={longest}"])).prompt_sets["r"]
    assert tight.prompts == loose.prompts
    assert longest - 6 <= max(len(prompt.token_ids) for prompt in tight.in_domain) <= longest
    small = tmp_path / "small"
    shutil.copytree(tiny_model, small)
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps(config | {"max_position_embeddings": longest}))
    with pytest.raises(AfaError, match=rf"in-domain-\d+: a prompt of \d+ tokens, .* set data.max_tokens={longest} "):
        prepare(load_config(None, [*settings, f"model.path={small}"]), training=False)
