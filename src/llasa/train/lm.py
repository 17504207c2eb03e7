"""Trains the language model: text in, speech tokens out (Llasa, section 3.2), from scratch or from a pretrained Llama.

Samples are packed into one row; attention, a function registered with transformers, runs each sample by itself, so
none sees another and nothing is spent on padding. Two aids that leave a plain Llama behind:

- Speech tokens are digits of an FSQ code, so during training their embeddings and outputs are a table plus a sum over
  digits, which tells the model from the start that codes one level apart sound alike. Saved, it is one table.
- Where the corpus says which phone each frame speaks, chosen heads are trained to look at it. The alignment of text to
  speech, which is otherwise found late, is there from the first hundreds of steps.
"""

import itertools
import random
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from llasa.lexicon import ALPHABET, load_lexicon, save_lexicon
from llasa.train import loop
from llasa.train.lm_data import Corpus, Pack, Reader, packs, samples
from llasa.vocabulary import Vocabulary, character_tokenizer, extend_tokenizer, read_vocabulary


@dataclass
class Settings:
    """`recipes/*/lm.yaml`.

    `corpus` maps folders of codes shards to how often a round takes each utterance; `init` is a pretrained folder or
    hub id, without which `model` is a fresh LlamaConfig.
    """

    corpus: dict[str, int]
    validation: str
    codec: str
    out: str
    init: str | None = None
    model: dict[str, Any] = field(default_factory=dict)
    lexicon: str | None = None
    spell: float = 0.12
    joined: float = 0.5
    longest: int = 1024
    tokens: int = 6144
    steps: int = 4000
    lr: float = 2e-3
    muon_lr: float = 2e-3
    warmup: int = 100
    decay: float = 0.01
    factored: bool = True
    # [layer, head] pairs taught to look at the phone that is about to be spoken.
    pointing_heads: list[list[int]] = field(default_factory=list)
    pointing_weight: float = 0.2
    ema: float = 0.999
    checkpoint_minutes: float = 4.0
    seed: int = 0


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    bounds: list[int],
    scaling: float | None = None,
    **ignored: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each sample of a packed row; (1, heads, T, D) to (1, T, heads, D)."""
    grouped = query.shape[1] != key.shape[1]
    parts = [
        F.scaled_dot_product_attention(
            query[:, :, a:b], key[:, :, a:b], value[:, :, a:b], is_causal=True, scale=scaling, enable_gqa=grouped
        )
        for a, b in itertools.pairwise(bounds)
    ]
    return torch.cat(parts, 2).transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS["packed"] = packed_attention


class DigitTable(nn.Module):
    """Parametrisation of an embedding: the rows of speech tokens get a learned vector for each level of each digit."""

    def __init__(self, levels: list[int], first: int, rows: int, width: int) -> None:
        super().__init__()
        index, digits = torch.arange(int(torch.tensor(levels).prod())), []
        for count in levels:
            digits.append(F.one_hot(index % count, count))
            index = index // count
        self.first, self.after = first, rows - first - len(index)
        self.digits: torch.Tensor
        self.register_buffer("digits", torch.cat(digits, 1).float(), persistent=False)
        self.vectors = nn.Parameter(torch.randn(sum(levels), width) * 0.02)

    def forward(self, table: torch.Tensor) -> torch.Tensor:
        return table + F.pad(self.digits @ self.vectors, (0, 0, self.first, self.after))


class Trainer(nn.Module):
    """The language model with its training losses. `forward` takes a Pack and returns the loss terms."""

    def __init__(self, model: LlamaForCausalLM, settings: Settings) -> None:
        super().__init__()
        self.model, self.settings = model, settings
        model.set_attn_implementation("packed")
        self.seen: dict[int, tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]] = {}
        for layer in {layer for layer, _ in settings.pointing_heads}:
            attention = model.model.layers[layer].self_attn
            attention.register_forward_pre_hook(self._remember(layer), with_kwargs=True)

    def _remember(self, layer: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.seen[layer] = (kwargs["hidden_states"], kwargs["position_embeddings"])

        return hook

    def forward(self, pack: Pack) -> dict[str, torch.Tensor]:
        hidden = self.model.model(
            input_ids=pack.ids[None], position_ids=pack.positions[None], bounds=pack.bounds, use_cache=False
        ).last_hidden_state[0]
        wanted = pack.labels >= 0
        logits = self.model.lm_head(hidden[wanted]).float()
        terms = {"speech": F.cross_entropy(logits, pack.labels[wanted])}
        if self.settings.pointing_heads and bool((pack.pointers >= 0).any()):
            losses = [self.pointing(pack, layer, head) for layer, head in self.settings.pointing_heads]
            terms["pointing"] = torch.stack(losses).mean()
        self.seen.clear()
        return terms

    def scores(self, pack: Pack, layer: int, head: int, a: int, b: int) -> torch.Tensor:
        """One head's causal attention logits inside the sample from a to b: (b - a, b - a) float32."""
        attention: Any = self.model.model.layers[layer].self_attn
        hidden, (cos, sin) = self.seen[layer]
        width = attention.head_dim
        shared = head // attention.num_key_value_groups
        q = F.linear(hidden[:, a:b], attention.q_proj.weight[head * width : (head + 1) * width])[:, None]
        k = F.linear(hidden[:, a:b], attention.k_proj.weight[shared * width : (shared + 1) * width])[:, None]
        q, k = apply_rotary_pos_emb(q, k, cos[:, a:b], sin[:, a:b])
        logits = (q[0, 0] @ k[0, 0].T).float() * attention.scaling
        return logits.masked_fill(torch.ones_like(logits, dtype=torch.bool).triu(1), float("-inf"))

    def pointing(self, pack: Pack, layer: int, head: int) -> torch.Tensor:
        """Mean cross-entropy of the head's attention against the text token that is spoken next."""
        losses = []
        for a, b in zip(pack.bounds, pack.bounds[1:], strict=False):
            pointers = pack.pointers[a:b]
            known = pointers >= 0
            if known.any():
                scores = self.scores(pack, layer, head, a, b)[known]
                losses.append(F.cross_entropy(scores, pointers[known] - a, reduction="sum"))
        return torch.stack(losses).sum() / (pack.pointers >= 0).sum()


def make_model(settings: Settings) -> tuple[LlamaForCausalLM, Vocabulary]:
    """The model to train and its vocabulary: pretrained and extended, or fresh with a character tokenizer."""
    levels = AutoConfig.from_pretrained(settings.codec).quantization_levels
    size = int(torch.tensor(list(levels)).prod())
    if settings.init:
        tokenizer = AutoTokenizer.from_pretrained(settings.init)
        model: LlamaForCausalLM = AutoModelForCausalLM.from_pretrained(settings.init)  # type: ignore[assignment]
        model.resize_token_embeddings(max(extend_tokenizer(tokenizer, size), model.config.vocab_size))
    else:
        tokenizer = character_tokenizer(ALPHABET, size, context=settings.model.get("max_position_embeddings", 2048))
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                tie_word_embeddings=False,
                **settings.model,
            )
        )
    vocabulary = read_vocabulary(tokenizer)
    model.config.eos_token_id = model.generation_config.eos_token_id = vocabulary.end
    if settings.factored:
        rows, width = model.config.vocab_size, model.config.hidden_size
        for part in {id(t): t for t in (model.get_input_embeddings(), model.get_output_embeddings())}.values():
            parametrize.register_parametrization(part, "weight", DigitTable(levels, vocabulary.first, rows, width))
    return model, vocabulary


def save_model(model: LlamaForCausalLM, vocabulary: Vocabulary, settings: Settings, out: Path) -> None:
    """A model folder: plain Llama weights, tokenizer, lexicon, and the name of the codec."""
    state = {}
    for name, tensor in model.state_dict().items():
        if ".parametrizations." not in name:
            state[name] = tensor.detach().clone()
    state["model.embed_tokens.weight"] = model.model.embed_tokens.weight.detach().clone()
    state["lm_head.weight"] = model.lm_head.weight.detach().clone()
    plain = LlamaForCausalLM(model.config)
    plain.load_state_dict(state)
    plain.config.codec = str(Path(settings.codec).resolve()) if Path(settings.codec).exists() else settings.codec
    plain.save_pretrained(out)
    vocabulary.tokenizer.save_pretrained(out)
    if settings.lexicon and (lexicon := load_lexicon(Path(settings.lexicon))):
        save_lexicon(lexicon, out)


@torch.no_grad()
def validate(trainer: Trainer, held_out: list[Pack], out: Path, step: int) -> dict[str, float]:
    """Loss a speech token, and how often the pointing heads look within one character of the right one."""
    trainer.eval()
    total = count = near = known = 0.0
    pictures: list[torch.Tensor] = []
    for pack in held_out:
        terms_of = trainer.forward(pack)
        n = int((pack.labels >= 0).sum())
        total, count = total + float(terms_of["speech"]) * n, count + n
    if trainer.settings.pointing_heads:
        layer, head = trainer.settings.pointing_heads[-1]
        for pack in held_out[:2]:
            trainer.model.model(
                input_ids=pack.ids[None], position_ids=pack.positions[None], bounds=pack.bounds, use_cache=False
            )
            for a, b in zip(pack.bounds, pack.bounds[1:], strict=False):
                pointers = pack.pointers[a:b]
                mask = pointers >= 0
                if mask.any():
                    attention = trainer.scores(pack, layer, head, a, b).softmax(-1)[mask]
                    near += float(((attention.argmax(-1) - (pointers[mask] - a)).abs() <= 1).sum())
                    known += float(mask.sum())
                    pictures.append(attention[:, : int((pointers.max() - a) + 2)])
        trainer.seen.clear()
        picture(pictures[:3], out / "validation" / f"{step:06d}.png")
    trainer.train()
    return {"loss": total / max(1, count), "pointing_right": near / max(1, known)}


def picture(attentions: list[torch.Tensor], path: Path) -> None:
    """The attention of speech frames (across) over characters (up): where speech is aligned to text, a diagonal."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, max(1, len(attentions)), figsize=(15, 4), squeeze=False)
    for axis, attention in zip(axes[0], attentions, strict=False):
        axis.imshow(attention.T.float(), origin="lower", aspect="auto", vmin=0, vmax=1)
        axis.set_xlabel("speech frame")
        axis.set_ylabel("text token")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=60)
    pyplot.close(figure)


def train(settings: Settings) -> None:
    """Trains, or goes on training, in `settings.out`; leaves the model folder in `out/model`.

    On one process, or on several under `accelerate launch`: each draws its own samples.
    """
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision="bf16")
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    model, vocabulary = make_model(settings)
    codec = AutoConfig.from_pretrained(settings.codec)
    rate = codec.sampling_rate / codec.hop_length
    lexicon = load_lexicon(Path(settings.lexicon)) if settings.lexicon else None
    trainer = Trainer(model, settings).train()
    groups = loop.optimisers(trainer, settings.lr, settings.muon_lr, decay=settings.decay)
    average, step = loop.Average(trainer, settings.ema), 0
    if (saved := loop.load_checkpoint(out)) is not None:
        trainer.load_state_dict(saved["model"])
        for optimiser, state in zip(groups, saved["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        average.weights, step = saved["average"], saved["step"]
    pad = vocabulary.tokenizer.pad_token_id or 0
    reader = Reader(vocabulary, lexicon, rate, settings.spell)
    rng = random.Random(f"{settings.seed}-{step}-{accelerator.process_index}")
    corpus = Corpus({Path(folder): weight for folder, weight in settings.corpus.items()})
    stream = packs(samples(corpus, reader, rng, settings.longest, settings.joined), settings.tokens, rate, pad)
    still = Reader(vocabulary, lexicon, rate)
    unseen = Corpus({Path(settings.validation): 1}, limit=150)
    fixed = packs(samples(unseen, still, random.Random(0), settings.longest, 0.0), settings.tokens, rate, pad)
    held_out = [next(fixed) for _ in range(4)]
    prepared = accelerator.prepare(trainer, *groups)
    wrapped, optimisers = prepared[0], prepared[1:]
    log, clock = loop.Log(out, "lm", settings.steps), loop.Clock(settings.checkpoint_minutes)
    while step < settings.steps:
        pack = move(next(stream), accelerator.device)
        loop.set_learning_rate(groups, step, settings.warmup, settings.steps)
        terms = wrapped(pack)
        loss = terms["speech"] + settings.pointing_weight * terms.get("pointing", torch.zeros(()))
        accelerator.backward(loss)
        values = {key: float(value.detach()) for key, value in terms.items()}
        values["gradient"] = float(accelerator.clip_grad_norm_(trainer.parameters(), 1.0))
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        step += 1
        average.update(trainer, step)
        if not accelerator.is_main_process:
            continue
        log.step(step, pack.seconds * accelerator.num_processes, values)
        if clock.due() or step == settings.steps:
            state = {"model": trainer.state_dict(), "optimisers": [o.state_dict() for o in groups]}
            loop.save_checkpoint(out, state | {"average": average.weights, "step": step, "settings": asdict(settings)})
            with average.swapped(trainer), accelerator.autocast():
                figures = validate(trainer, [move(p, accelerator.device) for p in held_out], out, step)
                save_model(model, vocabulary, settings, out / "model")
            log.write(step, figures)
            print("validation", "  ".join(f"{k} {v:.4f}" for k, v in figures.items()), flush=True)
        if clock.stop:
            return


def move(pack: Pack, device: torch.device) -> Pack:
    """The pack's tensors on a device."""
    tensors = {name: getattr(pack, name).to(device) for name in ("ids", "labels", "positions", "pointers")}
    return Pack(**tensors, bounds=pack.bounds, seconds=pack.seconds)
