"""Trains the language model: text in, speech tokens out (Llasa, section 3.2), from scratch or from a pretrained Llama.

Samples are packed into one row; attention, a function registered with transformers, runs each sample by itself, so
none sees another and nothing is spent on padding. Three aids that leave a plain Llama behind:

- Speech tokens are digits of an FSQ code, so during training their embeddings and outputs are a table plus a sum over
  digits, which tells the model from the start that codes one level apart sound alike. Saved, it is one table.
- With `output_groups` the output of a speech token is a sum over groups of digits and nothing else. The softmax over
  all codes is then a product of one over each group, and a large codebook's loss costs next to nothing. In exchange the
  groups of one code are drawn independently, given all that came before.
- Where the corpus says which phone each frame speaks, chosen heads are trained to look at it. The alignment of text to
  speech, which is otherwise found late, is there from the first hundreds of steps.
"""

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from llasa.errors import LlasaError
from llasa.lexicon import ALPHABET, load_lexicon, save_lexicon
from llasa.loading import codec_sizes, find_model
from llasa.train.lm_data import UNKNOWN, Pack
from llasa.train.loop import saving
from llasa.train.packed import ATTENTION
from llasa.train.tables import parametrise
from llasa.vocabulary import Vocabulary, character_tokenizer, extend_tokenizer, read_vocabulary

LOGITS = 1024  # with gradient checkpointing, or of samples, so many rows of logits are held at once
TEMPERATURE = 0.8  # of the codes that the model reads of itself


@dataclass
class Settings:
    """`recipes/*/lm.yaml`.

    `corpus` maps folders of codes shards (or of upstream's rows) to how often a round takes each utterance, `chat` does
    so for conversations in plain text (see `llasa.train.chat`). `init` is `tiny`, a pretrained folder or a hub id,
    without which `model` is a fresh LlamaConfig; beside it, `model` is what a plan goes by before `init` is there, its
    `vocab_size` that with the speech tokens. A step is `rows` rows of `tokens`, shared out among the processes, so that
    it is the same on any number of them.
    """

    corpus: dict[str, int]
    validation: str
    codec: str
    out: str
    chat: dict[str, int] = field(default_factory=dict)
    init: str | None = None
    model: dict[str, Any] = field(default_factory=dict)
    lexicon: str | None = None
    spell: float = 0.12
    # In every other step up to this share of the codes that the model reads are its own (see `Trainer.reading_itself`).
    sampled: float = 0.0
    joined: float = 0.5
    longest: int = 1024
    tokens: int = 6144
    # Without it, a row each for as many processes as the run was begun with.
    rows: int | None = None
    # Each process holds a part of the model and its optimiser (FSDP2), and of the checkpoint, instead of a copy.
    shard: bool = False
    # Activations are computed again in the backward pass instead of kept: a third more work, a fraction of the memory.
    gradient_checkpointing: bool = False
    steps: int = 4000
    lr: float = 2e-3
    # Share of `lr` that the schedule ends at.
    lr_floor: float = 0.05
    # 0: AdamW for everything.
    muon_lr: float = 2e-3
    warmup: int = 100
    decay: float = 0.01
    factored: bool = True
    # How many of the codec's levels, from the first, make up each group of digits: [4, 3].
    output_groups: list[int] = field(default_factory=list)
    # [layer, head] pairs taught to look at the phone that is about to be spoken.
    pointing_heads: list[list[int]] = field(default_factory=list)
    pointing_weight: float = 0.2
    # 0: no average is kept, and the weights themselves are the model.
    ema: float = 0.999
    checkpoint_minutes: float = 4.0
    seed: int = 0


class Trainer(nn.Module):
    """The language model with its training losses. `forward` takes a Pack and returns the loss terms, each a mean:
    `speech`, and where the pack has any, `text` of conversations and `pointing`."""

    def __init__(self, model: LlamaForCausalLM, settings: Settings) -> None:
        super().__init__()
        self.model, self.settings = model, settings
        model.set_attn_implementation(ATTENTION)
        if settings.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        self.seen: dict[int, tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]] = {}
        for layer in {layer for layer, _ in settings.pointing_heads}:
            attention = model.model.layers[layer].self_attn
            attention.register_forward_pre_hook(self._remember(layer), with_kwargs=True)

    def _remember(self, layer: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.seen[layer] = (kwargs["hidden_states"], kwargs["position_embeddings"])

        return hook

    def forward(self, pack: Pack) -> dict[str, torch.Tensor]:
        hidden = self.hidden(pack)
        wanted = pack.labels >= 0
        losses, chat = self.entropies(hidden[wanted], pack.labels[wanted]), pack.chat[wanted]
        # A pack may be all chat: then the sum over no speech is 0.
        terms = {"speech": losses[~chat].sum() / (~chat).sum().clamp(min=1)}
        if chat.any():
            terms["text"] = losses[chat].mean()
        if self.settings.pointing_heads and pack.taught:
            terms["pointing"] = self.pointing(pack)
        self.seen.clear()
        return terms

    @torch.no_grad()
    def reading_itself(self, pack: Pack, codes: range, seed: int) -> Pack:
        """The pack with some of the codes that the model reads sampled by the model; what it is to say stays.

        While training, all that a model reads is true, and it trusts it; when it speaks it reads itself, and an error
        makes it lose its place in the text. Scheduled sampling (Bengio et al. 2015) lets it meet its errors, here
        those that it makes in one pass over the truth (Mihaylova & Martins 2019). Each sample has another share of
        them, up to `settings.sampled`.

        Args:
            codes: the token ids of speech.
        """
        device = pack.ids.device
        dice = torch.Generator(device).manual_seed(seed)
        hidden = self.hidden(pack)
        self.seen.clear()
        places = ((pack.labels >= codes.start) & (pack.labels < codes.stop)).nonzero()[:, 0]
        sample = torch.bucketize(places, pack.starts[1:].long(), right=True)
        share = torch.rand(len(pack.bounds), generator=dice, device=device)[sample] * self.settings.sampled
        places = places[torch.rand(len(places), generator=dice, device=device) < share]
        table = self.model.lm_head.weight[codes.start : codes.stop]
        ids = pack.ids.clone()
        for part in places.split(LOGITS):
            logits = F.linear(hidden[part], table.to(hidden.dtype)).float() / TEMPERATURE
            # The largest of logits with Gumbel noise is a sample.
            noise = torch.empty_like(logits).exponential_(generator=dice).log()
            ids[part + 1] = codes.start + (logits - noise).argmax(1)
        return replace(pack, ids=ids)

    def hidden(self, pack: Pack) -> torch.Tensor:
        """What the last layer makes of each token, (T, hidden)."""
        return self.model.model(
            input_ids=pack.ids[None],
            position_ids=pack.positions[None],
            bounds=pack.bounds,
            starts=pack.starts,
            use_cache=False,
        ).last_hidden_state[0]

    def entropies(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of each label, (n,) float32; with gradient checkpointing, logits of a few at a time."""

        def part(hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            if self.settings.output_groups:
                weight: Any = self.model.lm_head.parametrizations.weight  # type: ignore[union-attr]
                return weight[0].entropies(weight.original, hidden, labels)
            return F.cross_entropy(self.model.lm_head(hidden).float(), labels, reduction="none")

        if not self.settings.gradient_checkpointing:
            return part(hidden, labels)
        parts = zip(hidden.split(LOGITS), labels.split(LOGITS), strict=True)
        return torch.cat([checkpoint(part, *both, use_reentrant=False) for both in parts])  # type: ignore[misc]

    def scores(self, layer: int, head: int, where: torch.Tensor) -> torch.Tensor:
        """One head's causal attention logits inside samples that are at (n, L) places in the row: (n, L, L) float32.

        A sample of fewer tokens than L has its own in front; what stands behind means nothing.
        """
        attention: Any = self.model.model.layers[layer].self_attn
        hidden, (cos, sin) = self.seen[layer]
        width = attention.head_dim
        shared = head // attention.num_key_value_groups
        tokens = hidden[0, where]
        q = F.linear(tokens, attention.q_proj.weight[head * width : (head + 1) * width])[:, None]
        k = F.linear(tokens, attention.k_proj.weight[shared * width : (shared + 1) * width])[:, None]
        q, k = apply_rotary_pos_emb(q, k, cos[0, where], sin[0, where])
        logits = (q[:, 0] @ k[:, 0].transpose(1, 2)).float() * attention.scaling
        return logits.masked_fill(torch.ones_like(logits[0], dtype=torch.bool).triu(1), float("-inf"))

    def pointing(self, pack: Pack) -> torch.Tensor:
        """Mean cross-entropy of the heads' attention against the text token that is spoken next."""
        heads, losses = self.settings.pointing_heads, []
        for where, targets in alike(pack):
            for layer, head in heads:
                scores = self.scores(layer, head, where).flatten(0, 1)
                losses.append(F.cross_entropy(scores, targets.flatten(), ignore_index=UNKNOWN, reduction="sum"))
        return torch.stack(losses).sum() / (pack.pointers >= 0).sum() / len(heads)


def alike(pack: Pack, ratio: float = 1.25) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The samples with pointers in groups of about the same length, so that a group is one call and little is padded.

    Returns:
        Of each group the places of its tokens in the row, (n, L), and the places in the sample that they are to look
        at, UNKNOWN where there is none.
    """
    spans = sorted((pack.bounds[i + 1] - pack.bounds[i], pack.bounds[i]) for i in pack.taught)
    while spans:
        group = [span for span in spans if span[0] <= ratio * spans[0][0]]
        spans = spans[len(group) :]
        sizes, starts = torch.tensor(group, device=pack.ids.device)[:, :, None].unbind(1)
        within = torch.arange(group[-1][0], device=pack.ids.device)
        where = (starts + within).clamp(max=len(pack.ids) - 1)
        pointers = pack.pointers[where]
        yield where, torch.where((within < sizes) & (pointers >= 0), pointers - starts, UNKNOWN)


def make_model(settings: Settings) -> tuple[LlamaForCausalLM, Vocabulary]:
    """The model to train, in float32, and its vocabulary: pretrained and extended, or fresh with a character tokenizer.

    Rows of new tokens start at the mean of the rows that are there, as transformers' `resize_token_embeddings` has it:
    speech tokens begin alike, and what the model says to text hardly changes
    (https://nlp.stanford.edu/~johnhew/vocab-expansion.html).

    Raises:
        LlasaError: the pretrained model has another number of speech tokens than the codec has codes, or is not the one
            that `model` describes.
    """
    levels, _ = codec_sizes(settings.codec)
    size = math.prod(levels)
    if settings.init:
        folder = find_model(settings.init)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        # Without dtype, the half precision that a folder was saved in would stay.
        model: LlamaForCausalLM = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)  # type: ignore[assignment]
        for config in (model.config, model.generation_config):
            vars(config).pop("default_voice", None)  # the voices stay in the folder
        model.resize_token_embeddings(max(extend_tokenizer(tokenizer, size), model.config.vocab_size))
        for key, value in settings.model.items():
            if getattr(model.config, key, None) != value:
                found = getattr(model.config, key, None)
                raise LlasaError(f"{settings.init} has {key} {found}, not {value}: correct `model` in the recipe")
    else:
        tokenizer = character_tokenizer(ALPHABET, size, context=settings.model.get("max_position_embeddings", 2048))
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                **({"tie_word_embeddings": False} | settings.model),
            )
        )
    vocabulary = read_vocabulary(tokenizer)
    if vocabulary.size != size:
        raise LlasaError(f"{settings.init} speaks {vocabulary.size} codes, {settings.codec} has {size}: not a pair")
    model.config.eos_token_id = model.generation_config.eos_token_id = vocabulary.end
    if settings.factored or settings.output_groups:
        parametrise(model, levels, vocabulary.first, settings.factored, settings.output_groups, not settings.init)
    return model, vocabulary


def save_model(
    model: LlamaForCausalLM,
    vocabulary: Vocabulary,
    settings: Settings,
    out: Path,
    write: bool = True,
    dtype: torch.dtype = torch.float32,
) -> None:
    """A model folder, whole before it replaces an older one: plain Llama weights, tokenizer, lexicon, codec's name.

    Args:
        write: of a model in parts, one process writes and the others lend it theirs.
        dtype: of the weights that are written.

    Raises:
        LlasaError: the disk is full.
    """
    from torch.distributed.tensor import DTensor

    tensors = {name: tensor for name, tensor in model.state_dict().items() if ".parametrizations." not in name}
    tensors["model.embed_tokens.weight"] = model.model.embed_tokens.weight
    tensors["lm_head.weight"] = model.lm_head.weight
    state = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach()
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if write:
            state[name] = whole.cpu().to(dtype)
    if not write:
        return
    with torch.device("meta"):  # nothing to draw at random
        plain = LlamaForCausalLM(model.config)
    plain.load_state_dict(state, assign=True)
    plain.tie_weights()
    plain.config.codec = str(Path(settings.codec).resolve()) if Path(settings.codec).exists() else settings.codec
    if settings.init and not Path(settings.init).exists():
        plain.config.base_model = settings.init  # what `llasa export` knows its licence by
    plain.generation_config = model.generation_config
    fresh = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    with saving(out.parent, fresh):
        plain.save_pretrained(fresh)
        vocabulary.tokenizer.save_pretrained(fresh)
        if settings.lexicon and (lexicon := load_lexicon(Path(settings.lexicon))):
            save_lexicon(lexicon, fresh)
        shutil.rmtree(out, ignore_errors=True)
        fresh.rename(out)
