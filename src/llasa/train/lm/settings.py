"""Defines the settings in recipes of the language model, `recipes/*/lm.yaml`."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from llasa.errors import LlasaError
from llasa.train.settings import Schedule, key, part


def llama_keys() -> Collection[str]:
    """The keys of transformers' `LlamaConfig`."""
    from transformers import LlamaConfig

    return {*LlamaConfig().to_dict(), "rope_theta", "rope_scaling"}


@dataclass
class Data:
    """What the model learns from, and how samples and rows are made."""

    corpus: dict[str, int] = key(
        {},
        "folders of codes shards, or of upstream's rows, each with a weight: how often a round takes each of its "
        "utterances",
        least=1,
        most=1000,
    )
    chat: dict[str, int] = key({}, "the same for conversations in text", least=1, most=1000)
    validation: str = key("", "a folder of codes shards; its first 150 utterances are never trained on", required=True)
    lexicon: str | None = key(None, "a folder with `lexicon.txt.gz`, which turns texts into phones")
    spell: float = key(
        0.12, "the share of words that then stay in letters, so that the model can read unknown ones", least=0, most=1
    )
    joined: float = key(
        0.5, "how often an utterance follows another of its speaker, which teaches cloning", least=0, most=1
    )
    recognition: float = key(
        0.0,
        "the share of samples that are heard instead of said, speech in and text out, so that the model can "
        "transcribe; such as 0.5",
        least=0,
        most=1,
    )
    longest: int = key(1024, "the most tokens of a sample; longer ones are left out", least=1)
    tokens: int = key(6144, "tokens of a row", least=1)
    rows: int | None = key(
        None, "rows of a step, divided among the processes; without it, one for each process", least=1
    )


@dataclass
class Embeddings:
    """How speech tokens are learnt as digits of their codes."""

    factored: bool = key(
        True,
        "whether embeddings and outputs of speech tokens are learnt as a table plus a sum over the code's digits; they "
        "are saved as one table",
    )
    output_groups: list[int] = key(
        [],
        "how many of the codec's levels make up each group of digits, such as `[4, 3]`: outputs are sums over groups, "
        "which makes a large codebook cheap",
        least=1,
    )


@dataclass
class Losses:
    """Losses besides that of the next token."""

    pointing_heads: list[list[int]] = key(
        [], "`[layer, head]` pairs taught to attend to the phone being spoken, if the corpus has phones", least=0
    )
    pointing_weight: float = key(0.2, "the weight of that loss", least=0)
    phone_weight: float = key(
        0.3, "the weight of naming the phone heard at each code, in recognition, if the corpus has phones", least=0
    )
    sampled: float = key(
        0.0,
        "in every other step, up to this share of the codes that the model reads are its own predictions, so that it "
        "learns to keep its place in the text despite errors; a small model needs this, such as 0.9",
        least=0,
        most=1,
    )


@dataclass
class Memory:
    """Settings that take less memory and more time."""

    shard: bool = key(False, "whether each of several processes holds a part of the model (FSDP2) instead of a copy")
    gradient_checkpointing: bool = key(False, "whether activations are computed twice instead of kept")


@dataclass
class LMSettings:
    """A recipe of the language model. A step has the same rows on any number of processes."""

    out: str = key("", "the run's folder", required=True)
    codec: str = key(
        "",
        "the codec that made the codes; codes that `llasa data encode` made with another codec are refused. A codec "
        "of which only the decoder was trained further has the same codes",
        required=True,
    )
    init: str | None = key(None, "a pretrained model to start from, folder or hub id; without it, a fresh Llama")
    model: dict[str, Any] = key(
        {}, "sizes of a fresh Llama, keys of transformers' `LlamaConfig`; with `init`, sizes for the plan",
        keys=llama_keys,
    )  # fmt: skip
    data: Data = part(Data, "what it learns from")
    embeddings: Embeddings = part(Embeddings, "how speech tokens are learnt")
    losses: Losses = part(Losses, "losses besides that of the next token")
    schedule: Schedule = part(Schedule, "how long and how fast", muon_lr=2e-3)
    memory: Memory = part(Memory, "settings that take less memory")

    def check(self) -> None:
        """Refuses impossible settings, before anything is loaded.

        Raises:
            LlasaError: says what is impossible, and what to change.
        """
        data, memory = self.data, self.memory
        if data.longest > data.tokens:
            raise LlasaError(
                f"`data.longest` is {data.longest}: it must be at most `data.tokens`, {data.tokens}, so that every "
                "sample fits into a row"
            )
        if not data.corpus and not data.chat:
            raise LlasaError("`data.corpus` is missing: it must name something to train on, `FOLDER: 1`")
        if not all(len(pair) == 2 for pair in self.losses.pointing_heads):
            raise LlasaError("`losses.pointing_heads` must hold pairs `[layer, head]`")
        if self.losses.sampled and memory.shard:
            raise LlasaError("`losses.sampled` and `memory.shard` cannot be combined: leave one of them out")
        if memory.shard and self.has_aids:
            raise LlasaError(
                "`memory.shard: true` trains a plain Llama with AdamW: set `embeddings.factored: false`, "
                "`embeddings.output_groups: []`, `schedule.muon_lr: 0`, `losses.pointing_heads: []`, "
                "`losses.phone_weight: 0`"
            )

    @property
    def has_aids(self) -> bool:
        """Whether a setting reads weights outside their own layer, which a model in parts (FSDP2) does not allow."""
        made, losses = self.embeddings, self.losses
        names_phones = self.data.recognition and self.data.lexicon and losses.phone_weight
        return bool(
            made.factored or made.output_groups or self.schedule.muon_lr or losses.pointing_heads or names_phones
        )
