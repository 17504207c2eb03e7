"""Measures what packing saves in training the language model, and the overhead of a training step.

    python benchmarks/training.py packing recipes/tiny/lm.yaml [--utterances 16] [--rows 50]
    python benchmarks/training.py overhead recipes/tiny/lm.yaml [--steps 30]

`--corpus FOLDER` uses shards of the embedded codec's codes instead of the recipe's corpus and codec.

`packing` trains the recipe's model, with random weights, on the same utterances in two ways: packed as by `llasa train
lm`, or each in a row of 2,048 with masked padding, as by upstream's data set class and transformers. The forward and
backward passes take turns, and the best of three counts.

`overhead` runs the training of `llasa train lm`, and after each of its steps a bare forward and backward pass of the
same model over a row of the same corpus, so that both run under the same load.

Each part writes benchmarks/results/training-PART.md.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import machine

machine.on_two_cores()

import torch  # noqa: E402
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM  # noqa: E402

from llasa.data.official import WIDTH  # noqa: E402
from llasa.measure.tables import write_text  # noqa: E402
from llasa.models.hub import EMBEDDED, find_model  # noqa: E402
from llasa.text.lexicon import load_lexicon  # noqa: E402
from llasa.train.lm.data import Corpus, Pack, Reader, Sample, pack, packs, samples  # noqa: E402
from llasa.train.lm.memory import make_plan, matmul_speed, read_config  # noqa: E402
from llasa.train.lm.run import move, train  # noqa: E402
from llasa.train.lm.settings import LMSettings  # noqa: E402
from llasa.train.lm.stage import Trainer, make_model  # noqa: E402
from llasa.train.settings import changed, read_settings  # noqa: E402

RESULTS = Path(__file__).parent / "results"
ROUNDS = 3
PLAIN = {"embeddings.factored": False, "embeddings.output_groups": [], "losses.pointing_heads": []}
TINY = EMBEDDED["tiny"].parent
# bfloat16 without sparsity, from their data sheets.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}


def corpus_of(settings: LMSettings) -> tuple[Corpus, Callable[[Any], Reader], float]:
    """The recipe's corpus, a function that makes its reader for a vocabulary, and frames a second."""
    codec = AutoConfig.from_pretrained(find_model(settings.codec))
    rate = codec.sampling_rate / codec.hop_length
    lexicon = load_lexicon(Path(settings.data.lexicon)) if settings.data.lexicon else None
    corpus = Corpus({Path(folder): weight for folder, weight in settings.data.corpus.items()})
    return corpus, lambda vocabulary: Reader(vocabulary, lexicon, rate), rate


def padded(chosen: list[Sample], pad: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, mask and labels of one utterance a row, (n, WIDTH) each."""
    ids, labels = torch.full((len(chosen), WIDTH), pad), torch.full((len(chosen), WIDTH), -100)
    mask = torch.zeros(len(chosen), WIDTH, dtype=torch.long)
    for i, sample in enumerate(chosen):
        size = len(sample.ids)
        ids[i, :size], mask[i, :size] = torch.from_numpy(sample.ids), 1
        labels[i, sample.first_target : size] = ids[i, sample.first_target : size]
    return ids, mask, labels


def race(runs: dict[str, Callable[[], torch.Tensor]], model: LlamaForCausalLM) -> dict[str, tuple[float, float]]:
    """For each way, the loss and the seconds of its fastest forward and backward pass."""
    found: dict[str, tuple[float, float]] = {}
    for turn in range(ROUNDS + 1):  # the first warms up
        for name, run in runs.items():
            begin = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16):
                loss = run()
            loss.backward()
            seconds = time.perf_counter() - begin
            model.zero_grad()
            if turn and (name not in found or seconds < found[name][1]):
                found[name] = (float(loss.detach()), seconds)
    return found


def packing(recipe: LMSettings, utterances: int, rows: int) -> str:
    settings = changed(recipe, {"data.joined": 0.0, "data.spell": 0.0} | PLAIN)
    torch.manual_seed(0)
    model, vocabulary = make_model(settings)
    corpus, reader_of, rate = corpus_of(settings)
    reader, pad = reader_of(vocabulary), vocabulary.tokenizer.pad_token_id or 0

    def stream() -> Iterator[Sample]:
        return samples(corpus, reader, 0, settings.data.longest, 0.0, itertools.count())

    taken = list(itertools.islice(packs(stream(), settings.data.tokens, rate, pad), rows))
    # In a row that is not full, the last bound is that of its padding.
    filled = [row.bounds[-2] if int(row.ids[-1]) == pad else settings.data.tokens for row in taken]
    packed_share = sum(filled) / (rows * settings.data.tokens)
    lengths = [len(sample.ids) for sample in itertools.islice(stream(), min(len(corpus.order), 5000))]
    padded_share = sum(lengths) / (len(lengths) * WIDTH)

    chosen = list(itertools.islice(stream(), utterances))
    useful = sum(len(sample.ids) for sample in chosen)
    one_row, (ids, mask, labels) = pack(chosen, useful, rate, pad), padded(chosen, pad)
    trainer = Trainer(model, settings).train()
    plain = LlamaForCausalLM(LlamaConfig(**model.config.to_dict())).train()
    plain.load_state_dict(model.state_dict())
    both = {
        "packed": lambda: trainer(one_row)["speech"],
        "padded to 2,048": lambda: plain(ids, attention_mask=mask, labels=labels).loss,
    }
    measured, width = race(both, model), settings.data.tokens
    lines = [
        "# Packing against padding\n",
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters; {len(corpus.rows):,} utterances, on",
        f"average {sum(lengths) / len(lengths):.0f} tokens. Useful tokens: those of the text, the speech and their",
        f"marks, of all that are computed, over {rows} rows of {width:,} tokens. Speed: forward and backward",
        f"pass over the same {utterances} utterances ({useful:,} tokens) in bfloat16, the best of {ROUNDS}. The padded",
        "rows, as transformers computes them, have logits at every position and an attention under a mask; the packed",
        "one has neither, which is why it gains more than the share of useful tokens says.\n",
        "| rows | useful tokens | loss | s | useful tokens/s | speed-up |\n|---|---|---|---|---|---|",
    ]
    slow = measured["padded to 2,048"][1]
    for (name, (loss, seconds)), share in zip(measured.items(), (packed_share, padded_share), strict=True):
        speed = f"{useful / seconds:,.0f} | {slow / seconds:.1f}"
        lines.append(f"| {name} | {share:.1%} | {loss:.4f} | {seconds:.2f} | {speed} |")
    verdict = "pass" if packed_share > 0.97 else "**fail**"
    return "\n".join([*lines, f"\nBar: over 97 % useful tokens in packed rows: {verdict}.\n"])


def flops(model: LlamaForCausalLM, settings: LMSettings, row: Pack) -> float:
    """FLOPs that a forward and a backward pass need: no logits without a loss, and nothing computed twice."""
    config = model.config
    matrices = sum(p.numel() for name, p in model.named_parameters() if "layers." in name and p.ndim == 2)
    width = config.num_attention_heads * (config.head_dim or config.hidden_size // config.num_attention_heads)
    pairs = sum((b - a) ** 2 for a, b in itertools.pairwise(row.bounds))
    rows = config.vocab_size
    if settings.embeddings.output_groups:
        groups: Any = model.lm_head.parametrizations.weight[0]  # type: ignore[union-attr]
        rows += sum(groups.sizes) - groups.count
    logits = int((row.labels >= 0).sum()) * rows * config.hidden_size
    return 6.0 * (matrices * len(row.ids) + logits + config.num_hidden_layers * width * pairs)


def in_turns(settings: LMSettings, rows: int, steps: int) -> tuple[list[float], list[float], float]:
    """Seconds of each training step, seconds of the bare forward and backward passes after it, and a step's FLOPs.

    A step has `rows` rows, and as many passes follow it. The first three steps are left out, and so are checkpoints,
    which a run writes only every few minutes.
    """
    gpu = torch.accelerator.is_available()
    device = torch.accelerator.current_accelerator() if gpu else torch.device("cpu")
    assert device is not None
    torch.manual_seed(1)
    model, vocabulary = make_model(settings)
    bare = Trainer(model, settings).train().to(device)
    corpus, reader_of, rate = corpus_of(settings)
    source = samples(corpus, reader_of(vocabulary), 1, settings.data.longest, settings.data.joined, itertools.count())
    stream = packs(source, settings.data.tokens, rate, vocabulary.tokenizer.pad_token_id or 0)
    taken = [move(row, device) for row in itertools.islice(stream, 8)]
    again = itertools.cycle(taken)
    trained: list[float] = []
    alone: list[float] = []

    def now() -> float:
        if gpu:
            torch.accelerator.synchronize()
        return time.perf_counter()

    mark = 0.0

    def turn(*_: Any) -> None:
        """Runs the bare passes after each step of the training."""
        nonlocal mark
        begin = now()
        if alone:
            trained.append(begin - mark)
        for row in itertools.islice(again, rows):
            with torch.autocast(device.type, torch.bfloat16):
                terms = bare(row)
            torch.stack(list(terms.values())).sum().backward()
        bare.zero_grad()
        mark = now()
        alone.append(mark - begin)

    with tempfile.TemporaryDirectory() as folder:
        changes = {"schedule.steps": steps + 4, "data.rows": rows, "schedule.checkpoint_minutes": 1e9}
        train(changed(settings, changes | {"out": folder}), turn)
    return trained[3:], alone[4:], rows * statistics.mean(flops(model, settings, row) for row in taken)


def overhead(recipe: LMSettings, steps: int) -> str:
    kinds = {"the recipe as it is": (recipe, 1), "the recipe with two rows a step": (recipe, 2)}
    plain = changed(recipe, PLAIN | {"schedule.muon_lr": 0.0})
    if plain != recipe:
        kinds["a plain Llama with AdamW"] = (plain, 1)
    gpu = torch.cuda.is_available()
    name = torch.cuda.get_device_name() if gpu else "this CPU"
    peaks = [peak for card, peak in PEAKS.items() if gpu and card in name]
    config, tokens = read_config(recipe), recipe.data.tokens
    peak = peaks[0] if peaks else matmul_speed(torch.device("cuda" if gpu else "cpu"), config, recipe.data.tokens)
    lines = [
        "# Training beside a bare loop\n",
        f"{make_plan(plain, config).parameters / 1e6:.1f} M parameters, rows of {tokens:,} tokens in bfloat16,",
        f"{steps} steps. A step of the training makes its rows, computes losses and their gradients, clips them, and",
        "updates weights, average and log. The bare loop is forward and backward passes of the same model with the",
        "same losses over rows that are there. Both in turns; medians, with the middle half in brackets.\n",
        "| training | s a step | s of the bare loop | tokens/s | of the bare loop's | MFU | bar 0.9 |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, (settings, rows) in kinds.items():
        trained, bare, work = in_turns(settings, rows, steps)
        seconds, share = statistics.median(trained), statistics.median(bare) / statistics.median(trained)
        spread = [f"{times[1]:.3f} ({times[0]:.3f} to {times[2]:.3f})" for times in map(quarters, (trained, bare))]
        verdict = "pass" if share >= 0.9 else "**fail**"
        figures = f"{rows * recipe.data.tokens / seconds:,.0f} | {share:.2f} | {work / seconds / peak:.0%}"
        lines.append(f"| {kind} | {' | '.join(spread)} | {figures} | {verdict} |")
    source = "by its data sheet" if peaks else "measured in one large matrix product"
    lines.append(f"\nMFU: the FLOPs that the model needs, of {peak / 1e12:.3g} TFLOP/s, {name}'s peak {source}.\n")
    return "\n".join(lines)


def quarters(times: list[float]) -> list[float]:
    return statistics.quantiles(times, n=4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["packing", "overhead"])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--utterances", type=int, default=16)
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    changes: dict[str, Any] = {}
    if arguments.corpus:
        folder = str(arguments.corpus)
        changes = {
            "data.corpus": {folder: 1},
            "data.validation": folder,
            "codec": str(TINY / "codec"),
            "data.lexicon": str(TINY / "lm"),
        }
    settings = read_settings(LMSettings, arguments.recipe, changes)
    if arguments.part == "packing":
        text = packing(settings, arguments.utterances, arguments.rows)
    else:
        text = overhead(settings, arguments.steps)
    text += "\n" + "\n".join(f"- {name}: {fact}" for name, fact in machine.describe().items()) + "\n"
    write_text(arguments.output or RESULTS / f"training-{arguments.part}.md", text)
    print(text)


if __name__ == "__main__":
    main()
