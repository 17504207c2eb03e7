"""Measures what speculative decoding would gain on a model: codes guessed ahead, and checked exactly.

    python benchmarks/speculation.py --texts english.txt [--model tiny] [--count 120] [--minutes 5] [-o FILE]

A guess is checked together with the next step, and kept with the probability that leaves the distribution as it is
(Leviathan et al., arXiv 2211.17192, section 2.3). Two guessers: an n-gram, which guesses what followed when the last
codes occurred before, in the reference or in the speech; and a small head, which guesses one code further than the
model from the same hidden state (Medusa, arXiv 2401.10774, section 2.1), trained here on the model's own speech. The
gain is codes a step over the time of such a step. Writes benchmarks/results/speculation.md.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import machine
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llasa.engine.llama import forward
from llasa.engine.sampling import Sampler
from llasa.measure.statistics import mean
from llasa.measure.tables import Row, percent, table, write_text
from llasa.tts import Llasa

RESULTS = Path(__file__).parent / "results" / "speculation.md"
LONGEST = 4  # codes that an n-gram looks back at most
PAST = 400  # codes and text before a step that is timed
HELD_OUT = 4  # every fourth text is judged, the others are learnt from


class Head(nn.Module):
    """Guesses the logits of the code after the next from a hidden state: one residual layer, and the model's head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + F.silu(self.layer(hidden))


def said(model: Llasa, texts: Sequence[str]) -> list[tuple[list[int], int, int]]:
    """Prompt and tokens of each text as the model says it, and where the reference's codes and the model's begin."""
    made = []
    for seed, text in enumerate(texts):
        piece = model.request(text, None, seed, {}).piece(0)
        state = model.backend.start([piece.prompt], 1, [seed], model.defaults, piece.limit, [piece.least])
        state = model.backend.extend(state, piece.limit)
        voice = model.voice()
        codes = 0 if voice is None else len(voice.codes)
        made.append(([*piece.prompt, *state.tokens[0]], len(piece.prompt) - codes, len(piece.prompt)))
    return made


def hidden_states(engine: Any, ids: list[int], first: int) -> Tensor:
    """The last layer's outputs (n, width) from the token before `first` on."""
    places = torch.arange(len(ids))
    return forward(engine.llama, torch.tensor(ids), places, engine._attend_causally)[first - 1 :]


def guess(codes: Sequence[int]) -> int | None:
    """What followed the longest of the last codes' runs that occurred before, the newest time."""
    for size in range(min(LONGEST, len(codes) - 1), 0, -1):
        last = list(codes[-size:])
        for place in range(len(codes) - size - 1, -1, -1):
            if list(codes[place : place + size]) == last:
                return codes[place + size]
    return None


def train(head: Head, states: Sequence[Tensor], codes: Sequence[Tensor], output: Tensor, minutes: float) -> int:
    """Teaches the head what comes two codes after each state; returns the number of steps."""
    inputs = torch.cat([hidden[:-1] for hidden in states]).float()
    wanted = torch.cat([ids[1:] for ids in codes])
    optimiser = torch.optim.AdamW(head.parameters(), 1e-3)
    began, steps = time.monotonic(), 0
    while time.monotonic() - began < 60 * minutes:
        rows = torch.randint(len(inputs), (512,))
        loss = F.cross_entropy(head(inputs[rows]) @ output.T, wanted[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps += 1
        if steps % 100 == 1:
            print(f"step {steps}, loss {loss.item():.2f}", flush=True)
    return steps


@torch.inference_mode()
def step_seconds(engine: Any, tokens: int) -> float:
    """The median time of a step that reads so many tokens of one row after `PAST` others, logits included."""
    llama = engine.llama
    shape = (len(llama.layers), llama.kv_heads, PAST, llama.head_size)
    keys, values = torch.randn(shape).to(llama.dtype), torch.randn(shape).to(llama.dtype)

    def attend(layer: int, qkv: Tensor) -> Tensor:
        q, k, v = qkv.transpose(0, 1).split((llama.heads, llama.kv_heads, llama.kv_heads))
        mask = torch.ones(tokens, PAST + tokens, dtype=torch.bool).tril(PAST)
        k, v = torch.cat([keys[layer], k], 1)[None], torch.cat([values[layer], v], 1)[None]
        out = F.scaled_dot_product_attention(q[None], k, v, mask, scale=1.0, enable_gqa=True)
        return out[0].transpose(0, 1).flatten(1)

    ids, places, times = torch.arange(tokens), torch.arange(PAST, PAST + tokens), []
    for _ in range(60):
        began = time.perf_counter()
        llama.head(forward(llama, ids, places, attend)).float().softmax(-1)
        times.append(time.perf_counter() - began)
    return median(times[10:])


def measure(model: Llasa, texts: Sequence[str], minutes: float) -> list[Row]:
    engine: Any = model.backend
    first, size = engine.first, engine.size
    sampler = Sampler([model.defaults], torch.device("cpu"))
    with torch.no_grad():
        made = said(model, texts)
        states = [hidden_states(engine, ids, start)[:-1] for ids, _, start in made]
    codes = [torch.tensor(ids[start:]) - first for ids, _, start in made]
    # The logits are linear in the state, so unit vectors give the matrix.
    with torch.no_grad():
        output = engine.llama.head(torch.eye(engine.llama.embedding.shape[1])).float().T[:size]
    learnt = [i for i in range(len(made)) if i % HELD_OUT]
    head = Head(output.shape[1])
    steps = train(head, [states[i] for i in learnt], [codes[i] for i in learnt], output, minutes)

    grams: list[float] = []
    heads: list[float] = []
    found = tried = 0
    with torch.inference_mode():
        for i in range(0, len(made), HELD_OUT):
            ids, reference, start = made[i]
            likely = sampler.probabilities(engine.llama.head(states[i]).float())[:, :size]
            likely /= likely.sum(-1, keepdim=True).clamp_min(1e-9)
            ahead = sampler.probabilities(head(states[i].float()) @ output.T)
            ahead /= ahead.sum(-1, keepdim=True)
            heads += torch.minimum(likely[1:], ahead[:-1]).sum(-1).tolist()
            history = ids[reference:]
            for t in range(len(codes[i])):
                guessed = guess(history[: start - reference + t])
                tried += 1
                if guessed is not None:
                    found += 1
                    grams.append(float(likely[t, guessed - first]))
    cost = {tokens: step_seconds(engine, tokens) for tokens in (1, 2, 3)}
    gram, ours = mean(grams), mean(heads)
    share = found / tried
    rows = [
        Row("texts learnt from and judged", f"{len(learnt)} and {len(made) - len(learnt)}"),
        Row("n-gram: steps in which there is a guess", f"{100 * share:.0f} %"),
        Row("n-gram: guesses that are kept", percent(gram)),
        Row(f"head after {steps} steps: guesses that are kept", percent(ours)),
        Row("time of a step with one guess, over one without", f"{cost[2] / cost[1]:.2f}"),
        Row("time of a step with two guesses, over one without", f"{cost[3] / cost[1]:.2f}"),
        Row(
            "codes a second with the n-gram, over those without", f"{(1 + share * gram.value) * cost[1] / cost[2]:.2f}"
        ),
        Row("codes a second with the head, over those without", f"{(1 + ours.value) * cost[1] / cost[2]:.2f}"),
    ]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True, help="sentences, one a line")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--count", type=int, default=120, help="number of sentences, from the first (default 120)")
    parser.add_argument("--minutes", type=float, default=5.0, help="that the head is trained (default 5)")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    model = Llasa.load(arguments.model, device="cpu")
    texts = [line for line in arguments.texts.read_text().splitlines() if line.strip()][: arguments.count]
    rows = measure(model, texts, arguments.minutes)
    lines = [
        f"# Speculative decoding of `{arguments.model}`\n",
        "How often a guessed code may be kept so that the speech has the same distribution, and what a step with",
        "guesses costs in one row. Above 1 in the last two lines, guessing would be faster.\n",
        table(rows),
        "",
        *(f"- {name}: {fact}" for name, fact in machine.describe().items()),
    ]
    print("\n".join(lines))
    write_text(arguments.output, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
