"""Scores by hand: a page on which somebody hears all rows blind and in random order, and the reading of the scores.

The folder `listening` holds the page, its sounds under names that tell nothing, and a table of their texts, so that it
can be sent as it is, to a person or to a program that judges. Scores come back as CSV files of `name,score`.
"""

import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from llasa.errors import LlasaError
from llasa.files import read_bytes, read_text, whole
from llasa.measure import tables
from llasa.suites.judges import Judge

FOLDER, TEXTS = "listening", "texts.csv"
SCORES = "scores*.csv"
LOWEST, HIGHEST = 1, 5
JUDGE = Judge("by hand", f"score by hand, {LOWEST} to {HIGHEST}", lambda: lambda heard: 0.0, digits=2)

_STYLE = """
body { max-width: 46rem; } section { border-bottom: 1px solid var(--line); padding: 1rem 0; }
section p { margin: 0 0 .5rem; font-size: 1.1rem; } audio { width: 100%; }
fieldset { border: 0; margin: .5rem 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; }
section.done p { color: var(--dim); }
footer { position: sticky; bottom: 0; background: var(--paper); padding: .8rem 0; border-top: 1px solid var(--line); }
button { font: inherit; padding: .3rem .9rem; }
"""

_SCRIPT = """
const key = 'llasa-' + document.body.dataset.list;
const scores = JSON.parse(localStorage.getItem(key) || '{}');
const sections = [...document.querySelectorAll('section')];
const show = () => {
  for (const section of sections) section.classList.toggle('done', section.id in scores);
  document.querySelector('output').textContent = `${Object.keys(scores).length} of ${sections.length} scored`;
};
for (const section of sections) for (const input of section.querySelectorAll('input')) {
  input.checked = scores[section.id] === input.value;
  input.addEventListener('change', () => {
    scores[section.id] = input.value;
    localStorage.setItem(key, JSON.stringify(scores));
    show();
  });
}
document.addEventListener('play', event => {
  for (const other of document.querySelectorAll('audio')) if (other !== event.target) other.pause();
}, true);
document.querySelector('button').addEventListener('click', () => {
  const lines = ['name,score', ...Object.entries(scores).map(([name, score]) => `${name},${score}`)];
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([lines.join('\\n') + '\\n'], { type: 'text/csv' }));
  link.download = 'scores.csv';
  link.click();
});
show();
"""


def write_page(results: Sequence[dict[str, Any]], folder: Path, seed: int) -> Path:
    """Writes the folder `listening` and returns its page. Sounds that are silent are not in it.

    Raises:
        LlasaError: a file cannot be read or written.
    """
    heard = {_name(one, seed): one for one in results if one["wav"]}
    order = sorted(heard)  # by names that are drawn at random
    place = folder / FOLDER
    for name in order:
        with whole(place / f"{name}.wav") as temporary:
            place.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(read_bytes(heard[name]["wav"]))
    buffer = io.StringIO()
    csv.writer(buffer).writerows([("name", "text"), *((name, heard[name]["item"]["text"]) for name in order)])
    tables.write_text(place / TEXTS, buffer.getvalue())
    blocks = [_section(name, heard[name]["item"]["text"], number) for number, name in enumerate(order, 1)]
    told = (
        "Hear each sentence, and say how well it is read: whether every word is there and right, and whether a good "
        f"reader would say it so. {LOWEST} is spoilt, {HIGHEST} is as a good reader has it. Nobody is told who speaks, "
        "and the order is random. Your scores are kept in this browser until you save them; send the file back."
    )
    body = (
        f"<p>{escape(told)}</p>\n{''.join(blocks)}\n"
        f"<footer><button>Save scores</button> <output></output></footer>\n<script>{_SCRIPT}</script>"
    )
    list_ = hashlib.sha256("".join(order).encode()).hexdigest()[:12]
    page = tables.page("Listening test", body, _STYLE).replace("<body>", f'<body data-list="{list_}">')
    tables.write_text(place / "index.html", page)
    return place / "index.html"


def _section(name: str, text: str, number: int) -> str:
    inputs = "".join(
        f'<label><input type="radio" name="{name}" value="{score}"> {score}</label>'
        for score in range(LOWEST, HIGHEST + 1)
    )
    return (
        f'<section id="{name}"><p><span class="dim">{number}.</span> {escape(text)}</p>'
        f'<audio controls preload="none" src="{name}.wav"></audio><fieldset>{inputs}</fieldset></section>\n'
    )


def add_scores(results: Sequence[dict[str, Any]], folder: Path, seed: int) -> int:
    """Adds the mean of all scores in `scores*.csv` files of the folder to the results, and returns how many there are.

    Raises:
        LlasaError: a file is no table of scores, or is of another list.
    """
    known = {_name(one, seed): one for one in results}
    found = defaultdict(list)
    for path in sorted([*folder.glob(SCORES), *(folder / FOLDER).glob(SCORES)]):
        for number, row in enumerate(csv.DictReader(io.StringIO(read_text(path))), 2):
            name, score = row.get("name") or "", (row.get("score") or "").strip()
            if name not in known:
                raise LlasaError(
                    f"{path}, line {number}: no sound here is called {name!r}: remove what is of other lists"
                )
            try:
                value = float(score)
            except ValueError:
                value = float("nan")
            if not LOWEST <= value <= HIGHEST:
                raise LlasaError(f"{path}, line {number}: the score is {score!r}: it is from {LOWEST} to {HIGHEST}")
            found[name].append(value)
    for name, scores in found.items():
        known[name]["figures"][JUDGE.written] = (float(np.mean(scores)), 1.0)
    return sum(map(len, found.values()))


def _name(one: dict[str, Any], seed: int) -> str:
    """A sound's name, which tells nothing and sorts at random."""
    what = f"{seed}|{one['row']['name']}|{one['item']['part']}|{one['item']['id']}"
    return hashlib.sha256(what.encode()).hexdigest()[:10]
