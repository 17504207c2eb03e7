"""Speech tokens in a language model's tokenizer, and prompts.

Every size is read from the tokenizer, so the same code serves the embedded model and the official ones, whose codebooks
differ.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from llasa.errors import LlasaError
from llasa.layout import PLAIN, read_layout

# In the order in which upstream's training script adds them, which decides their ids.
SPECIAL_TOKENS = (
    "<|TEXT_GENERATION_START|>",
    "<|TEXT_GENERATION_END|>",
    "<|TEXT_UNDERSTANDING_START|>",
    "<|TEXT_UNDERSTANDING_END|>",
    "<|SPEECH_GENERATION_START|>",
    "<|SPEECH_GENERATION_END|>",
    "<|SPEECH_UNDERSTANDING_START|>",
    "<|SPEECH_UNDERSTANDING_END|>",
)
INSTRUCTION = "Convert the text to speech:"
LISTENING = "Convert the speech to text:"


def extend_tokenizer(tokenizer: Any, codebook_size: int) -> int:
    """Adds the special tokens and then `<|s_0|>` to `<|s_{codebook_size - 1}|>` to a transformers tokenizer, in place.

    Returns the tokenizer's new length, to which the model's embedding must be resized. Adding the tokens twice changes
    nothing.
    """
    tokenizer.add_tokens([*SPECIAL_TOKENS, *(f"<|s_{i}|>" for i in range(codebook_size))], special_tokens=True)
    return len(tokenizer)


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer with speech tokens. Made by `read_vocabulary`.

    Attributes:
        tokenizer: the transformers tokenizer.
        first: id of `<|s_0|>`; code `c` is token `first + c`.
        size: number of speech tokens, the codec's codebook size.
        start, end: ids of `<|SPEECH_GENERATION_START|>` and `<|SPEECH_GENERATION_END|>`.
    """

    tokenizer: Any
    first: int
    size: int
    start: int
    end: int

    @property
    def speech(self) -> range:
        """The ids of the speech tokens."""
        return range(self.first, self.first + self.size)

    def prompt(
        self,
        text: str,
        reference_text: str | None = None,
        reference_codes: Iterable[int] = (),
        speaker: str | None = None,
    ) -> list[int]:
        """Token ids of the prompt, which the model continues with speech tokens.

        The transcript of a reference voice goes before the text and its codes after `<|SPEECH_GENERATION_START|>`, so
        the model clones by continuing. `speaker` is the name that some fine-tuned models expect before that token
        ("Speaker kore ").

        Raises:
            LlasaError: a code lies outside the codebook, or the tokenizer has no chat template that works.
        """
        spoken = f"{reference_text} {text}" if reference_text else text
        lead = f"Speaker {speaker} " if speaker else ""
        layout = read_layout(self.tokenizer)
        asked = f"{INSTRUCTION}<|TEXT_UNDERSTANDING_START|>{spoken}<|TEXT_UNDERSTANDING_END|>"
        whole = f"{layout.before}{asked}{layout.between}{lead}<|SPEECH_GENERATION_START|>"
        ids = self.tokenizer(whole, add_special_tokens=False)["input_ids"]
        return [*ids, *self.tokens(reference_codes)]

    def heard(self, codes: Iterable[int]) -> list[int]:
        """Token ids of the prompt that the model continues with what was said, up to `<|TEXT_GENERATION_END|>`.

        Raises:
            LlasaError: as `prompt`; or the tokenizer lacks the tokens of recognition.
        """
        marks = self.marks(*SPECIAL_TOKENS[6:], SPECIAL_TOKENS[0])
        layout = read_layout(self.tokenizer)
        asked = self.tokenizer(f"{layout.before}{LISTENING}", add_special_tokens=False)["input_ids"]
        between = self.tokenizer(layout.between, add_special_tokens=False)["input_ids"] if layout.between else []
        return [*asked, marks[0], *self.tokens(codes), marks[1], *between, marks[2]]

    def marks(self, *names: str) -> list[int]:
        """The ids of special tokens.

        Raises:
            LlasaError: the tokenizer lacks one.
        """
        table = self.tokenizer.get_vocab()
        if missing := [name for name in names if name not in table]:
            raise LlasaError(f"this model's tokenizer has no {missing[0]}: it cannot recognise speech")
        return [table[name] for name in names]

    def tokens(self, codes: Iterable[int]) -> list[int]:
        """Codes to token ids.

        Raises:
            LlasaError: a code lies outside the codebook.
        """
        array = np.asarray(list(codes) if not isinstance(codes, np.ndarray) else codes, dtype=np.int64)
        if array.size and (array.min() < 0 or array.max() >= self.size):
            bad = int(array.min() if array.min() < 0 else array.max())
            raise LlasaError(
                f"code {bad} is outside this model's codebook of {self.size}: was it made by another codec?"
            )
        return (array + self.first).tolist()

    def written(self, tokens: Iterable[int]) -> str:
        """The text of text tokens, special ones left out."""
        core = self.tokenizer.backend_tokenizer
        special = core.get_added_tokens_decoder()
        kept = [token for token in tokens if token not in special]
        # A tokenizer of single characters has no decoder, and would put a space between any two.
        return core.decode(kept) if core.decoder else "".join(map(core.id_to_token, kept))

    def codes(self, tokens: Iterable[int]) -> np.ndarray:
        """Token ids to codes as uint16. Tokens that are not speech are left out."""
        array = np.asarray(list(tokens), dtype=np.int64) - self.first
        return array[(array >= 0) & (array < self.size)].astype(np.uint16)


def read_vocabulary(tokenizer: Any) -> Vocabulary:
    """Finds the speech tokens in a tokenizer.

    Raises:
        LlasaError: it has none, or their ids are not consecutive.
    """
    table = tokenizer.get_vocab()
    missing = [t for t in ("<|s_0|>", "<|SPEECH_GENERATION_START|>", "<|SPEECH_GENERATION_END|>") if t not in table]
    if missing:
        raise LlasaError(f"this tokenizer has no speech tokens ({missing[0]} is missing): pass a Llasa model")
    first = table["<|s_0|>"]
    size = sum(1 for token in table if token.startswith("<|s_") and token[4:-2].isdigit())
    if table.get(f"<|s_{size - 1}|>") != first + size - 1:
        raise LlasaError("the ids of this tokenizer's speech tokens are not consecutive: copy the model folder again")
    start, end = table["<|SPEECH_GENERATION_START|>"], table["<|SPEECH_GENERATION_END|>"]
    return Vocabulary(tokenizer, first, size, start, end)


def character_tokenizer(alphabet: Iterable[str], codebook_size: int, context: int) -> Any:
    """A tokenizer whose text tokens are single characters, with the speech tokens added.

    To save the context of a small model, the instruction is one token and the chat template adds nothing to the
    contents. Characters outside the alphabet are dropped.

    Args:
        alphabet: the characters, space included.
        codebook_size: number of speech tokens.
        context: longest sequence of the model, in tokens.
    """
    import re

    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(set(alphabet))
    marks = ["<|begin_of_text|>", "<|pad|>"]
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(marks + letters)}, merges=[]))
    core.normalizer = normalizers.Replace(Regex(f"[^{re.escape(''.join(letters))}]"), "")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=marks[0], pad_token=marks[1], model_max_length=context
    )
    # normalized=False: matched in the raw text, before the normaliser drops its characters.
    tokenizer.add_tokens([AddedToken(INSTRUCTION, normalized=False, special=True)], special_tokens=True)
    tokenizer.chat_template = PLAIN
    extend_tokenizer(tokenizer, codebook_size)
    tokenizer.eos_token = "<|SPEECH_GENERATION_END|>"
    return tokenizer
