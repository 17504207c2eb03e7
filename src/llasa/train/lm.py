"""Trains the language model: text in, speech tokens out (Llasa, section 3.2), from scratch or from a pretrained Llama.

Samples are packed into one row; attention, a function registered with transformers, runs each sample by itself, so
none sees another and nothing is spent on padding. Two aids that leave a plain Llama behind:

- Speech tokens are digits of an FSQ code, so during training their embeddings and outputs are a table plus a sum over
  digits, which tells the model from the start that codes one level apart sound alike. Saved, it is one table.
- Where the corpus says which phone each frame speaks, chosen heads are trained to look at it. The alignment of text to
  speech, which is otherwise found late, is there from the first hundreds of steps.
"""

import itertools
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from llasa.errors import LlasaError
from llasa.lexicon import ALPHABET, load_lexicon, save_lexicon
from llasa.loading import find_model
from llasa.train import loop
from llasa.train.lm_data import Corpus, Pack, Reader, packs, sample_indices, samples
from llasa.train.processes import make_accelerator
from llasa.vocabulary import Vocabulary, character_tokenizer, extend_tokenizer, read_vocabulary


@dataclass
class Settings:
    """`recipes/*/lm.yaml`.

    `corpus` maps folders of codes shards (or of upstream's rows) to how often a round takes each utterance; `init` is
    `tiny`, a pretrained folder or a hub id, without which `model` is a fresh LlamaConfig. `tokens` is what each process
    takes a step.
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
    """Parametrisation of an embedding: the rows of speech tokens get a learned vector for each level of each digit.

    The vectors start at zero, where the table is what it was.
    """

    def __init__(self, levels: list[int], first: int, rows: int, width: int) -> None:
        super().__init__()
        index, digits = torch.arange(int(torch.tensor(levels).prod())), []
        for count in levels:
            digits.append(F.one_hot(index % count, count))
            index = index // count
        self.first, self.after = first, rows - first - len(index)
        self.digits: torch.Tensor
        self.register_buffer("digits", torch.cat(digits, 1).float(), persistent=False)
        self.vectors = nn.Parameter(torch.zeros(sum(levels), width))

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
    """The model to train, in float32, and its vocabulary: pretrained and extended, or fresh with a character tokenizer.

    Raises:
        LlasaError: the pretrained model has another number of speech tokens than the codec has codes.
    """
    levels = AutoConfig.from_pretrained(find_model(settings.codec)).quantization_levels
    size = int(torch.tensor(list(levels)).prod())
    if settings.init:
        folder = find_model(settings.init)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        # Without dtype, the half precision that a folder was saved in would stay.
        model: LlamaForCausalLM = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)  # type: ignore[assignment]
        for config in (model.config, model.generation_config):
            vars(config).pop("default_voice", None)  # the voices stay in the folder
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
    if vocabulary.size != size:
        raise LlasaError(f"{settings.init} speaks {vocabulary.size} codes, {settings.codec} has {size}: not a pair")
    model.config.eos_token_id = model.generation_config.eos_token_id = vocabulary.end
    if settings.factored:
        rows, width = model.config.vocab_size, model.config.hidden_size
        parts = [model.get_input_embeddings(), model.get_output_embeddings()]
        # Tied embeddings stay one table.
        tied = parts[0].weight is parts[1].weight
        tables = [DigitTable(levels, vocabulary.first, rows, width) for _ in parts]
        for part, table in zip(parts, [tables[0]] * 2 if tied else tables, strict=True):
            if not settings.init:
                nn.init.normal_(table.vectors, std=0.02)
            parametrize.register_parametrization(part, "weight", table)
    return model, vocabulary


def save_model(model: LlamaForCausalLM, vocabulary: Vocabulary, settings: Settings, out: Path) -> None:
    """A model folder, whole before it replaces an older one: plain Llama weights, tokenizer, lexicon, codec's name."""
    state = {}
    for name, tensor in model.state_dict().items():
        if ".parametrizations." not in name:
            state[name] = tensor.detach().clone()
    state["model.embed_tokens.weight"] = model.model.embed_tokens.weight.detach().clone()
    state["lm_head.weight"] = model.lm_head.weight.detach().clone()
    plain = LlamaForCausalLM(model.config)
    plain.load_state_dict(state)
    plain.config.codec = str(Path(settings.codec).resolve()) if Path(settings.codec).exists() else settings.codec
    if settings.init and not Path(settings.init).exists():
        plain.config.base_model = settings.init  # what `llasa export` knows its licence by
    plain.generation_config = model.generation_config
    fresh = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    plain.save_pretrained(fresh)
    vocabulary.tokenizer.save_pretrained(fresh)
    if settings.lexicon and (lexicon := load_lexicon(Path(settings.lexicon))):
        save_lexicon(lexicon, fresh)
    shutil.rmtree(out, ignore_errors=True)
    fresh.rename(out)


def train(settings: Settings) -> None:
    """Trains, or goes on training, in `settings.out`; leaves the model folder in `out/model`.

    On one process, or on several under `torchrun` or `accelerate launch`. Each makes packs of its own share of the
    corpus; a step is then what one process would do with all their packs. Only the main process writes. Where each
    process is in the corpus is part of the checkpoint: a run that was stopped or killed ends like one that was not.

    Raises:
        LlasaError: the settings or the launcher ask for what cannot be, or the loss is no longer a number.
    """
    from accelerate.utils import gather_object

    from llasa.train.lm_validation import validate

    if settings.longest > settings.tokens:
        raise LlasaError(f"a sample of `longest: {settings.longest}` doesn't fit into `tokens: {settings.tokens}`")
    accelerator = make_accelerator()
    main, processes = accelerator.is_main_process, accelerator.num_processes
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    model, vocabulary = make_model(settings)
    trainer = Trainer(model, settings).train()
    groups = loop.optimisers(trainer, settings.lr, settings.muon_lr, decay=settings.decay)
    saved = loop.load_checkpoint(out) or {"step": 0, "streams": [], "log": {}}
    if "model" in saved:
        trainer.load_state_dict(saved["model"])
    wrapped, *optimisers = accelerator.prepare(trainer, *groups)
    for optimiser, state in zip(groups, saved.get("optimisers", []), strict=False):
        optimiser.load_state_dict(state)
    step = saved["step"]

    codec = AutoConfig.from_pretrained(find_model(settings.codec))
    rate, pad = codec.sampling_rate / codec.hop_length, vocabulary.tokenizer.pad_token_id or 0
    lexicon = load_lexicon(Path(settings.lexicon)) if settings.lexicon else None
    reader = Reader(vocabulary, lexicon, rate, settings.spell)
    corpus = Corpus({Path(folder): weight for folder, weight in settings.corpus.items()})
    indices = sample_indices(saved["streams"], accelerator.process_index, processes)
    source = samples(corpus, reader, settings.seed, settings.longest, settings.joined, indices)
    stream = packs(source, settings.tokens, rate, pad)

    clock = loop.Clock(settings.checkpoint_minutes, quiet=not main)
    if main:
        average = loop.Average(trainer, settings.ema)
        if "average" in saved:
            average.weights = {name: tensor.to(accelerator.device) for name, tensor in saved["average"].items()}
        log = loop.Log(out, "lm", settings.steps, after=step)
        log.sums = saved["log"]
        unseen, still = Corpus({Path(settings.validation): 1}, 150, "val"), Reader(vocabulary, lexicon, rate)
        fixed = packs(samples(unseen, still, 0, settings.longest, 0.0, itertools.count()), settings.tokens, rate, pad)
        held_out = [move(next(fixed), accelerator.device) for _ in range(4)]
    while step < settings.steps:
        pack = move(next(stream), accelerator.device)
        counts = torch.stack([(pack.labels >= 0).sum(), (pack.pointers >= 0).sum()])
        # Where one process has more tokens than another, its mean loss counts for more: all tokens count the same.
        weights = counts * processes / accelerator.reduce(counts, "sum").clamp(min=1)
        loop.set_learning_rate(groups, step, settings.warmup, settings.steps)
        terms = wrapped(pack)
        losses = torch.stack([terms["speech"], terms.get("pointing", torch.zeros_like(terms["speech"]))]) * weights
        accelerator.backward(losses[0] + settings.pointing_weight * losses[1])
        # What all must agree on before the next step: whether to stop after this one, and whether to save it.
        facts = losses.new_tensor([pack.seconds, clock.stop, main and clock.due()])
        speech, pointing, *facts = accelerator.reduce(torch.cat([losses.detach(), facts]), "mean").tolist()
        values = {"speech": speech} | ({"pointing": pointing} if settings.pointing_heads else {})
        values["gradient"] = float(accelerator.clip_grad_norm_(trainer.parameters(), 1.0))
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        step += 1
        loop.check_finite("lm", step, values)
        seconds, stop, due = facts[0] * processes, facts[1] > 0, facts[2] > 0
        if main:
            average.update(trainer, step)
            log.step(step, seconds, values)
        if stop or due or step == settings.steps:
            streams = gather_object([(pack.waiting, pack.last)])
            if main:
                with average.swapped(trainer), accelerator.autocast():
                    figures = validate(trainer, held_out, out, step)
                    save_model(model, vocabulary, settings, out / "model")
                log.write(step, figures)
                print("validation", "  ".join(f"{k} {v:.4f}" for k, v in figures.items()), flush=True)
                # Last of all: what a kill left half done before this is done again.
                state = {"model": trainer.state_dict(), "optimisers": [o.state_dict() for o in groups]}
                state |= {"average": average.weights, "step": step, "streams": streams, "log": log.sums}
                loop.save_checkpoint(out, state | {"settings": asdict(settings)})
        if stop:
            break
    accelerator.wait_for_everyone()
    accelerator.end_training()


def move(pack: Pack, device: torch.device) -> Pack:
    """The pack with its tensors on a device."""
    return replace(
        pack, **{name: getattr(pack, name).to(device) for name in ("ids", "labels", "positions", "pointers")}
    )
