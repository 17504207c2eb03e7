"""Measures what a precision costs: agreement in the next token with float32, and words wrong by Whisper tiny.

    python benchmarks/precision.py --sentences held-out.txt [--engines torch:int8 llamacpp:int8 ...] [--count 100]

The likeliest next token is compared after prefixes of what float32 said, some of each sentence. Words are those of one
sample a sentence, with the same seeds in every precision. Writes benchmarks/results/precision.md.
"""

import argparse
from pathlib import Path
from typing import Any

import machine

machine.on_two_cores()

import numpy as np  # noqa: E402
from bars.saying import say, sound  # noqa: E402

from llasa.engine import Sampling  # noqa: E402
from llasa.measure import listeners, metrics, statistics  # noqa: E402
from llasa.measure.tables import Row, percent, points, table, write_text  # noqa: E402
from llasa.tts import Llasa  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "precision.md"
EXACT = "torch:float32"
ENGINES = ["torch:bfloat16", "torch:int8", "torch:int4", "llamacpp:float16", "llamacpp:int8", "llamacpp:int4"]
PREFIXES = 4  # of a sentence


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=Path, required=True, help="held-out sentences, one a line")
    parser.add_argument("--engines", nargs="+", default=ENGINES, help=f"BACKEND:DTYPE (default {' '.join(ENGINES)})")
    parser.add_argument("--voice", default="alma")
    parser.add_argument("--count", type=int, default=100, help="sentences, from the first (default 100)")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    texts = [line.strip() for line in arguments.sentences.read_text(encoding="utf-8").splitlines() if line.strip()]
    texts = texts[: arguments.count]
    models = {name: load(name) for name in dict.fromkeys([EXACT, *arguments.engines])}
    voice = models[EXACT].voice(arguments.voice)
    spoken = {name: [say(model, text, voice, i) for i, text in enumerate(texts)] for name, model in models.items()}
    prompts = prefixes(models[EXACT], texts, voice, [speech.codes for speech in spoken[EXACT] if speech])
    likeliest = {name: next_tokens(model, prompts) for name, model in models.items()}
    words = [len(metrics.words(text)) for text in texts]
    errors = {
        name: [
            metrics.word_errors(text, heard)[0]
            for text, heard in zip(texts, listeners.spread(listeners.whisper, list(map(sound, some))), strict=True)
        ]
        for name, some in spoken.items()
    }
    rows = []
    for name in models:
        same = [float(a == b) for a, b in zip(likeliest[name], likeliest[EXACT], strict=True)]
        if name != EXACT:
            rows.append(Row(f"next token as in {EXACT}, {name} ({len(same)})", percent(statistics.mean(same))))
        rows.append(Row(f"word error rate, {name} ({len(texts)})", percent(statistics.error_rate(errors[name], words))))
        if name != EXACT:
            change = statistics.error_rate_difference(errors[name], errors[EXACT], words)
            rows.append(Row(f"word error rate, {name} less {EXACT}, paired", points(change)))
    llamacpp = ["llama-cpp-python"] if any(name.startswith("llamacpp:") for name in models) else []
    facts = machine.describe("faster-whisper", *llamacpp)
    facts |= {"voice": arguments.voice, "sentences": arguments.sentences.name}
    about = "# Precisions of the language model\n\nOne sample a sentence; words by Whisper tiny; 95 % intervals.\n"
    write_text(
        arguments.output,
        "\n".join([about, table(rows), "; ".join(f"{key}: {value}" for key, value in facts.items()) + "\n"]),
    )
    print(table(rows))


def load(name: str) -> Llasa:
    """The embedded model in a `BACKEND:DTYPE`."""
    backend, _, dtype = name.partition(":")
    return Llasa.load("tiny", device="cpu", backend=backend, dtype=dtype)


def prefixes(model: Llasa, texts: list[str], voice: Any, codes: list[np.ndarray]) -> list[list[int]]:
    """Prompts followed by some of the codes that were said."""
    vocabulary, found = model.vocabulary, []
    for text, said in zip(texts, codes, strict=True):  # each is one chunk
        request = model.request(text, voice, 0, {})
        prompt = request.planner.pieces(request.chunks[:1], voice)[0].prompt
        found += [[*prompt, *vocabulary.tokens(said[:n])] for n in np.linspace(0, len(said) - 1, PREFIXES).astype(int)]
    return found


def next_tokens(model: Llasa, prompts: list[list[int]]) -> list[int]:
    """The likeliest token after each prompt; -1 for the end."""
    found = []
    for prompt in prompts:
        state = model.backend.start([prompt], sampling=Sampling(temperature=0), max_tokens=1)
        tokens = model.backend.extend(state, 1).tokens[0]
        found.append(tokens[0] if tokens else -1)
    return found


if __name__ == "__main__":
    main()
