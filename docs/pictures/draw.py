"""Draws the pictures of the README and the docs, as SVG, into the folder that this script lies in.

    python docs/pictures/draw.py

`layers.svg` is drawn from the import contract in pyproject.toml, `search.svg` from the tables of measurements, so both
change when their sources do. tests/test_docs.py compares the files with what this script draws.
"""

import csv
import math
import tomllib
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Who speaks, and the table of its search.
SEARCHES = {
    "people whom it has never heard, cloned": ROOT / "benchmarks/results/search-clones.csv",
    "the default preset": ROOT / "benchmarks/results/search-words.csv",
}

# Colours for a light and for a dark page; the card is opaque, so that it can be read on either.
STYLE = """
text { font: 14px -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328; }
.small { font-size: 12px; fill: #59636e; }
.middle { text-anchor: middle; }
.right { text-anchor: end; }
.bold { font-weight: 600; }
.card { fill: #ffffff; }
.box { fill: #eef2f7; stroke: #9aa7b5; }
.model { fill: #d8e8fb; stroke: #4a83c3; }
.line { stroke: #59636e; fill: none; stroke-width: 1.5; }
.grid { stroke: #d6dbe0; }
.head { fill: #59636e; }
.curve { stroke: #2a6fb8; fill: none; stroke-width: 2; }
.band { fill: #2a6fb8; opacity: 0.18; }
.dot { fill: #2a6fb8; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .small { fill: #a5b0bb; }
  .card { fill: #161b22; }
  .box { fill: #262d36; stroke: #5d6875; }
  .model { fill: #1d3b5c; stroke: #6ea8e5; }
  .line { stroke: #a5b0bb; }
  .grid { stroke: #343c46; }
  .head { fill: #a5b0bb; }
  .curve { stroke: #79b4f2; }
  .band, .dot { fill: #79b4f2; }
}
"""

# What each layer does, beside its box. The layers themselves and their order come from pyproject.toml.
DOES = {
    "cli": "starts a verb; prints an error as one line",
    "commands": "the verbs of the command line, one file each",
    "serve": "many clients at once, over HTTP",
    "studies": "what compute buys: llasa study",
    "suites": "the paper's evaluations",
    "train": "one training loop and its stages",
    "data": "corpora: read, synthesise, encode, convert",
    "measure": "metrics, listeners, statistics, tables",
    "tts": "Llasa, the object that a user holds",
    "search": "many candidates, the best one kept",
    "listen": "recordings to text, by the model that speaks",
    "speak": "from a text to codes to sound",
    "verifiers": "score candidates; one file each",
    "voice": "a reference that a model continues",
    "export": "a model as one folder",
    "codec": "sound to codes and back",
    "engine": "prompts to tokens",
    "models": "folders, hub, weights, LoRA",
    "text": "normalise, cut, look up words",
    "vocabulary": "tokens of text and speech",
    "audio": "read and write sound files",
    "files": "write whole or not at all",
    "errors": "errors of one line",
}


def main() -> None:
    for name, svg in pictures().items():
        (HERE / name).write_text(svg, encoding="utf-8")
        print(HERE / name)


def pictures() -> dict[str, str]:
    """SVG texts by file name."""
    return {"how-it-works.svg": how_it_works(), "layers.svg": layers(), "search.svg": search()}


def how_it_works() -> str:
    """From text to sound: the language model, the codec, and how a voice gets in."""
    parts = [
        box(20, 50, 130, 60, ["text", "“Hello.”"], "box"),
        arrow(150, 80, 190, 80),
        box(190, 40, 170, 80, ["language model", "a plain Llama"], "model"),
        arrow(360, 80, 500, 80),
        label(430, 68, "codes, 50 a second", "small middle"),
        box(500, 40, 170, 80, ["codec", "decodes them"], "model"),
        arrow(670, 80, 710, 80),
        box(710, 50, 110, 60, ["sound", "16 kHz"], "box"),
        box(710, 180, 110, 60, ["a voice", "a few seconds"], "box"),
        arrow(710, 210, 670, 210),
        box(500, 170, 170, 80, ["codec", "encodes it"], "model"),
        '<path class="line" d="M500 210 H275 V128"/>',
        head(275, 120, 0, -1),
        label(390, 200, "codes that the model continues", "small middle"),
    ]
    return document(840, 270, "Text becomes codes in a Llama, and codes become sound in a codec", parts)


def layers() -> str:
    """The packages from top to bottom, as the import contract has them."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    rows = next(c["layers"] for c in contract["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    parts, y = [label(20, 30, "A module imports only from layers below its own.", "small")], 46
    for row in rows:
        names = [name.strip().removeprefix("llasa.") for name in row.replace(":", "|").split("|")]
        width = (800 - 10 * (len(names) - 1)) / len(names)
        for i, name in enumerate(names):
            x = 20 + i * (width + 10)
            parts.append(f'<rect class="box" x="{x:g}" y="{y}" width="{width:g}" height="30" rx="5"/>')
            parts.append(label(x + 12, y + 20, name, "bold"))
            parts.append(label(x + 110, y + 20, DOES.get(name, ""), "small"))
        y += 36
    return document(840, y + 14, "The layers of the source, from the command line down to errors", parts)


def search() -> str:
    """Word error rates of the best of n, over n, with their intervals."""
    left, right, top, bottom, high = 70, 800, 50, 290, 50.0
    curves = {who: curve(table) for who, table in SEARCHES.items()}
    most = max(n for points in curves.values() for n, *_ in points)

    def x(n: float) -> float:
        return left + 30 + (right - left - 60) * math.log2(n) / math.log2(most)

    def y(value: float) -> float:
        return bottom - (bottom - top) * value / high

    parts = [label(20, 28, "Words wrong by PocketSphinx, of the best of n candidates chosen by their words", "bold")]
    for value in range(0, int(high) + 1, 10):
        parts.append(f'<line class="grid" x1="{left}" y1="{y(value):.1f}" x2="{right}" y2="{y(value):.1f}"/>')
        parts.append(label(left - 8, y(value) + 4, f"{value} %", "small right"))
    for place, (who, points) in enumerate(curves.items()):
        n, _, base, top_ = points[2]  # names stand above the upper band and below the lower one
        parts.append(label(x(n), y(base) + 18 if place else y(top_) - 8, who, "middle"))
        edge = [(x(n), y(top_)) for n, _, _, top_ in points] + [(x(n), y(base)) for n, _, base, _ in reversed(points)]
        parts.append(f'<polygon class="band" points="{coordinates(edge)}"/>')
        parts.append(f'<polyline class="curve" points="{coordinates([(x(n), y(v)) for n, v, _, _ in points])}"/>')
        for n, value, _, _ in points:
            parts.append(f'<circle class="dot" cx="{x(n):.1f}" cy="{y(value):.1f}" r="3.5"/>')
            parts.append(label(x(n), y(value) - 10, f"{value:.1f}", "middle"))
    for n in sorted({n for points in curves.values() for n, *_ in points}):
        parts.append(label(x(n), bottom + 20, str(n), "small middle"))
    parts.append(label((left + right) / 2, bottom + 42, "candidates a sentence; band: 95 % interval", "small middle"))
    return document(840, bottom + 60, "Word error rates of the best of one to sixteen candidates", parts)


def curve(table: Path) -> list[tuple[int, float, float, float]]:
    """For each number of candidates the word error rate and its interval, in per cent."""
    with table.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["figure"] == "pocketsphinx" and row["strategy"] == "best-of"]
    return sorted((int(r["n"]), *(100 * float(r[key]) for key in ("value", "low", "high"))) for r in rows)  # type: ignore[misc]


def document(width: int, height: int, title: str, parts: list[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n'
        f'<rect class="card" width="{width}" height="{height}" rx="8"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def box(x: float, y: float, width: float, height: float, lines: list[str], kind: str) -> str:
    """A box with a bold first line and a small second one."""
    name, note = lines
    middle = x + width / 2
    return (
        f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>'
        + label(middle, y + height / 2 - 3, name, "middle bold")
        + label(middle, y + height / 2 + 16, note, "small middle")
    )


def label(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(text)}</text>'


def arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    """A horizontal arrow."""
    way = 1 if x2 > x1 else -1
    return f'<path class="line" d="M{x1} {y1} H{x2 - 8 * way}"/>' + head(x2, y2, way, 0)


def head(x: float, y: float, right: int, down: int) -> str:
    """The head of an arrow whose tip is at (x, y)."""
    back, side = (x - 9 * right, y - 9 * down), (5 * down, 5 * right)
    return (
        f'<polygon class="head" points="{x},{y} {back[0] + side[0]},{back[1] + side[1]} '
        f'{back[0] - side[0]},{back[1] - side[1]}"/>'
    )


def coordinates(points: list[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


if __name__ == "__main__":
    main()
