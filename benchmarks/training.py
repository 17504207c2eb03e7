"""What packing saves in training the language model, against upstream's rows padded to 2,048 tokens.

    python benchmarks/training.py packing recipes/tiny/lm.yaml [--utterances 16] [--rows 50]

Both train the same model, of the recipe and with random weights, on the same utterances of the recipe's corpus, each
said alone: packed as `llasa train lm` does it, or each in a row of 2,048 with its padding masked, as upstream's data
set class and transformers do it. Forward and backward pass in turns, the best of three. Writes
benchmarks/results/training-packing.md.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import machine

machine.on_two_cores()

import torch  # noqa: E402
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM  # noqa: E402

from llasa.data.upstream import WIDTH  # noqa: E402
from llasa.eval.report import write_text  # noqa: E402
from llasa.lexicon import load_lexicon  # noqa: E402
from llasa.loading import find_model  # noqa: E402
from llasa.train.lm import Settings, Trainer, make_model  # noqa: E402
from llasa.train.lm_data import Corpus, Reader, Sample, pack, packs, samples  # noqa: E402
from llasa.train.loop import read_settings  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "training-packing.md"
ROUNDS = 3


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


def packing(recipe: Path, utterances: int, rows: int) -> str:
    settings = replace(read_settings(Settings, recipe), joined=0.0, spell=0.0, factored=False, pointing_heads=[])
    torch.manual_seed(0)
    model, vocabulary = make_model(settings)
    codec = AutoConfig.from_pretrained(find_model(settings.codec))
    rate, pad = codec.sampling_rate / codec.hop_length, vocabulary.tokenizer.pad_token_id or 0
    lexicon = load_lexicon(Path(settings.lexicon)) if settings.lexicon else None
    reader = Reader(vocabulary, lexicon, rate)
    corpus = Corpus({Path(folder): weight for folder, weight in settings.corpus.items()})

    def stream() -> Iterator[Sample]:
        return samples(corpus, reader, 0, settings.longest, 0.0, itertools.count())

    taken = list(itertools.islice(packs(stream(), settings.tokens, rate, pad), rows))
    # The last bound of a row that is not full is that of its padding.
    filled = [row.bounds[-2] if int(row.ids[-1]) == pad else settings.tokens for row in taken]
    packed_share = sum(filled) / (rows * settings.tokens)
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
    measured = race(both, model)
    lines = [
        "# Packing against padding\n",
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters; {len(corpus.rows):,} utterances, on",
        f"average {sum(lengths) / len(lengths):.0f} tokens. Useful tokens: those of the text, the speech and their",
        f"marks, of all that are computed, over {rows} rows of {settings.tokens:,} tokens. Speed: forward and backward",
        f"pass over the same {utterances} utterances ({useful:,} tokens) in bfloat16, the best of {ROUNDS}.\n",
        "| rows | useful tokens | loss | s | useful tokens/s | speed-up |\n|---|---|---|---|---|---|",
    ]
    slow = measured["padded to 2,048"][1]
    for (name, (loss, seconds)), share in zip(measured.items(), (packed_share, padded_share), strict=True):
        speed = f"{useful / seconds:,.0f} | {slow / seconds:.1f}"
        lines.append(f"| {name} | {share:.1%} | {loss:.4f} | {seconds:.2f} | {speed} |")
    return "\n".join([*lines, "", *(f"- {name}: {fact}" for name, fact in machine.describe().items())]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["packing"])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--utterances", type=int, default=16)
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    text = packing(arguments.recipe, arguments.utterances, arguments.rows)
    write_text(arguments.output, text)
    print(text)


if __name__ == "__main__":
    main()
