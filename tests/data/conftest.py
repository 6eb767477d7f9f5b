"""Small real tokenizers, trained in a moment on a few sentences, and a helper that writes data files."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SENTENCES = [
    "Review: a great film with friends\nSentiment: positive",
    "Review: a terrible soup, stale and bland\nSentiment: negative",
    "Is this review positive or negative? It is good. It is bad. Overall, it was great. In one word: terrible",
    "user assistant system Answer with one word: negative or positive.",
] * 5

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_level(specials: list[str], bos: bool = True, eos: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level BPE as in GPT, Llama 3 and Qwen."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=400, special_tokens=specials, initial_alphabet=alphabet)
    )
    single = ("<s> " if bos else "") + "$A" + (" </s>" if eos else "")
    ends = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>") if token in specials]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


@pytest.fixture(scope="session")
def raw_tokenizer() -> PreTrainedTokenizerFast:
    return byte_level(["<s>", "</s>", "<pad>"])


@pytest.fixture(scope="session")
def ending_tokenizer() -> PreTrainedTokenizerFast:
    """Appends EOS to whatever it encodes."""
    return byte_level(["<s>", "</s>", "<pad>"], eos=True)


@pytest.fixture(scope="session")
def bare_tokenizer() -> PreTrainedTokenizerFast:
    """Puts nothing before what it encodes, as those of GPT-2, Qwen and SmolLM2."""
    return byte_level(["<s>", "</s>", "<pad>"], bos=False)


@pytest.fixture
def chat_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = byte_level(["<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>"])
    tokenizer.chat_template = CHATML
    return tokenizer


@pytest.fixture(scope="session")
def metaspace_tokenizer() -> PreTrainedTokenizerFast:
    """Pieces with a leading ▁ and no byte fallback, as in SentencePiece models: unknown characters become <unk>."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    specials = ["<unk>", "<s>", "</s>", "<pad>"]
    tokenizer.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=300, special_tokens=specials))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


@pytest.fixture(autouse=True)
def _no_folder_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Suites are looked for where a test says, not where this machine has them."""
    monkeypatch.delenv("AFA_DATA", raising=False)
