"""Defines how the language model learns to turn text into speech tokens (Llasa, section 3.2).

It starts from scratch or from a pretrained Llama. Samples are packed into one row; attention, a function registered
with transformers, runs in each sample separately, so none sees another and little is spent on padding. Three aids speed
up training, and the saved model is still a plain Llama:

- A speech token is an FSQ code, which has digits. During training, embeddings and outputs are a table plus a sum over
  digits, so the model knows from the start that codes one level apart sound alike. They are saved as one table.
- With `output_groups`, the output of a speech token is only a sum over groups of digits. The softmax over all codes is
  then a product of softmaxes over the groups, and the loss is cheap even for a large codebook. In exchange, the groups
  of one code are drawn independently, given all that came before.
- If the corpus says which phone each frame speaks, chosen heads are trained to attend to it. The model then finds the
  alignment of text to speech within the first hundreds of steps, much earlier than otherwise.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from llasa.errors import LlasaError
from llasa.files import absolute, exists
from llasa.models.folder import codec_sizes
from llasa.models.hub import find_model
from llasa.models.sizes import llama_config
from llasa.text.lexicon import ALPHABET, load_lexicon, save_lexicon
from llasa.train.checkpoint import replacing
from llasa.train.lm.data import UNKNOWN, Pack
from llasa.train.lm.embeddings import parametrise
from llasa.train.lm.packed import ATTENTION
from llasa.train.lm.settings import LMSettings
from llasa.vocabulary import Vocabulary, character_tokenizer, extend_tokenizer, read_vocabulary

LOGITS = 1024  # rows of logits held at once, with gradient checkpointing or when codes are sampled
TEMPERATURE = 0.8  # of the sampled codes that the model reads


class Trainer(nn.Module):
    """The language model with its training losses.

    `forward` takes a Pack and returns the loss terms, each a mean: `speech`, and if the pack has such targets, `text`
    of conversations and of what was heard, `pointing`, and `phones` heard.
    """

    def __init__(self, model: LlamaForCausalLM, settings: LMSettings) -> None:
        super().__init__()
        self.model, self.settings = model, settings
        model.set_attn_implementation(ATTENTION)
        if settings.memory.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        self.seen: dict[int, tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]] = {}
        for layer in {layer for layer, _ in settings.losses.pointing_heads}:
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
        # If a pack holds only conversations, the loss of speech is 0.
        terms = {"speech": losses[~chat].sum() / (~chat).sum().clamp(min=1)}
        if chat.any():
            terms["text"] = losses[chat].mean()
        if self.settings.losses.pointing_heads and pack.taught:
            terms["pointing"] = self.pointing(pack)
        if self.settings.losses.phone_weight and pack.phones is not None:
            heard = pack.phones >= 0
            table = self.model.lm_head.weight[: int(pack.phones.max()) + 1]  # text comes before speech
            terms["phones"] = F.cross_entropy(F.linear(hidden[heard], table).float(), pack.phones[heard])
        self.seen.clear()
        return terms

    @torch.no_grad()
    def reading_itself(self, pack: Pack, codes: range, seed: int) -> Pack:
        """The pack with some of the input codes replaced by the model's own samples; the labels do not change.

        In training a model reads true codes and learns to trust them. When it speaks it reads its own codes, and an
        error can make it lose its place in the text. Scheduled sampling (Bengio et al. 2015) shows it its own errors,
        here those that it makes in one pass over the true codes (Mihaylova & Martins 2019). Each sample has a random
        share of them, up to `settings.losses.sampled`.

        Args:
            codes: the token ids of speech.
        """
        device = pack.ids.device
        dice = torch.Generator(device).manual_seed(seed)
        hidden = self.hidden(pack)
        self.seen.clear()
        places = ((pack.labels >= codes.start) & (pack.labels < codes.stop)).nonzero()[:, 0]
        sample = torch.bucketize(places, pack.starts[1:].long(), right=True)
        share = torch.rand(len(pack.bounds), generator=dice, device=device)[sample] * self.settings.losses.sampled
        places = places[torch.rand(len(places), generator=dice, device=device) < share]
        table = self.model.lm_head.weight[codes.start : codes.stop]
        ids = pack.ids.clone()
        for part in places.split(LOGITS):
            logits = F.linear(hidden[part], table.to(hidden.dtype)).float() / TEMPERATURE
            # The largest of the logits with Gumbel noise is a sample.
            noise = torch.empty_like(logits).exponential_(generator=dice).log()
            ids[part + 1] = codes.start + (logits - noise).argmax(1)
        return replace(pack, ids=ids)

    def hidden(self, pack: Pack) -> torch.Tensor:
        """The last layer's output for each token, (T, hidden)."""
        return self.model.model(
            input_ids=pack.ids[None],
            position_ids=pack.positions[None],
            bounds=pack.bounds,
            starts=pack.starts,
            use_cache=False,
        ).last_hidden_state[0]

    def entropies(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of each label, (n,) float32; with gradient checkpointing, for LOGITS labels at a time."""

        def part(hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            if self.settings.embeddings.output_groups:
                weight: Any = self.model.lm_head.parametrizations.weight  # type: ignore[union-attr]
                return weight[0].entropies(weight.original, hidden, labels)
            return F.cross_entropy(self.model.lm_head(hidden).float(), labels, reduction="none")

        if not self.settings.memory.gradient_checkpointing:
            return part(hidden, labels)
        parts = zip(hidden.split(LOGITS), labels.split(LOGITS), strict=True)
        return torch.cat([checkpoint(part, *both, use_reentrant=False) for both in parts])  # type: ignore[misc]

    def scores(self, layer: int, head: int, where: torch.Tensor) -> torch.Tensor:
        """One head's causal attention logits (n, L, L) float32 in n samples, whose tokens are at the places `where`.

        Args:
            where: (n, L) indices into the row. A sample of fewer than L tokens is padded at the end, where the logits
                are meaningless.
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
        """Mean cross-entropy of the heads' attention, whose target is the text token spoken next."""
        heads, losses = self.settings.losses.pointing_heads, []
        for where, targets in alike(pack):
            for layer, head in heads:
                scores = self.scores(layer, head, where).flatten(0, 1)
                losses.append(F.cross_entropy(scores, targets.flatten(), ignore_index=UNKNOWN, reduction="sum"))
        return torch.stack(losses).sum() / (pack.pointers >= 0).sum() / len(heads)


def alike(pack: Pack, ratio: float = 1.25) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Groups the samples with pointers by length, so that a group is computed in one call with little padding.

    Yields:
        For each group, the indices of its tokens in the row, (n, L), and the index in the sample that each token should
        attend to, or UNKNOWN.
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


def make_model(settings: LMSettings) -> tuple[LlamaForCausalLM, Vocabulary]:
    """Makes the model to train, in float32, and its vocabulary: pretrained and extended, or fresh, reading characters.

    The rows of new tokens start at the mean of the existing rows, as transformers' `resize_token_embeddings` does it.
    Speech tokens then start out alike, and the model's answers to text hardly change
    (https://nlp.stanford.edu/~johnhew/vocab-expansion.html).

    Raises:
        LlasaError: the pretrained model has more or fewer speech tokens than the codec has codes, or does not have the
            sizes in `model`.
    """
    levels, _ = codec_sizes(settings.codec)
    size = math.prod(levels)
    if settings.init:
        folder = find_model(settings.init)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        # Without dtype, the model would keep the half precision that its folder may have.
        model: LlamaForCausalLM = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)  # type: ignore[assignment]
        for config in (model.config, model.generation_config):
            vars(config).pop("default_voice", None)  # the new folder has no voices
        model.resize_token_embeddings(max(extend_tokenizer(tokenizer, size), model.config.vocab_size))
        for key, value in settings.model.items():
            if getattr(model.config, key, None) != value:
                found = getattr(model.config, key, None)
                raise LlasaError(f"{settings.init} has {key} {found}, not {value}: correct `model` in the recipe")
    else:
        tokenizer = character_tokenizer(ALPHABET, size, context=settings.model.get("max_position_embeddings", 2048))
        model = LlamaForCausalLM(
            llama_config(
                {
                    "vocab_size": len(tokenizer),
                    "bos_token_id": tokenizer.bos_token_id,
                    "eos_token_id": tokenizer.eos_token_id,
                    "pad_token_id": tokenizer.pad_token_id,
                    "tie_word_embeddings": False,
                }
                | settings.model
            )
        )
    vocabulary = read_vocabulary(tokenizer)
    if vocabulary.size != size:
        raise LlasaError(
            f"{settings.init} has {vocabulary.size} speech tokens and {settings.codec} has {size} codes: "
            "name a model and a codec that belong together"
        )
    layers, heads = model.config.num_hidden_layers, model.config.num_attention_heads
    for layer, head in settings.losses.pointing_heads:
        if layer >= layers or head >= heads:
            raise LlasaError(
                f"`losses.pointing_heads` has [{layer}, {head}]: the model has layers 0 to {layers - 1}, each with "
                f"heads 0 to {heads - 1}"
            )
    model.config.eos_token_id = model.generation_config.eos_token_id = vocabulary.end
    if settings.embeddings.factored or settings.embeddings.output_groups:
        parametrise(
            model,
            levels,
            vocabulary.first,
            settings.embeddings.factored,
            settings.embeddings.output_groups,
            not settings.init,
        )
    return model, vocabulary


def save_model(
    model: LlamaForCausalLM,
    vocabulary: Vocabulary,
    settings: LMSettings,
    out: Path,
    write: bool = True,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes a model folder, which replaces an older one only as a whole.

    It holds plain Llama weights, the tokenizer, the lexicon and the codec's name.

    Args:
        write: whether this process writes. All processes of a model in parts must call this, and one of them writes.
        dtype: precision of the written weights.

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
    with torch.device("meta"):  # no random initialisation
        plain = LlamaForCausalLM(model.config)
    plain.load_state_dict(state, assign=True)
    plain.tie_weights()
    if settings.data.recognition:
        plain.config.recognition = True  # it can transcribe
    if settings.losses.pointing_heads:
        plain.config.pointing_heads = settings.losses.pointing_heads  # which tell when each word is spoken
    plain.config.codec = str(absolute(settings.codec)) if exists(settings.codec) else settings.codec
    if settings.init and not exists(settings.init):
        plain.config.base_model = settings.init  # `llasa export` derives the licence from it
    plain.generation_config = model.generation_config
    with replacing(out) as fresh:
        plain.save_pretrained(fresh)
        vocabulary.tokenizer.save_pretrained(fresh)
        if settings.data.lexicon and (lexicon := load_lexicon(Path(settings.data.lexicon))):
            save_lexicon(lexicon, fresh)
