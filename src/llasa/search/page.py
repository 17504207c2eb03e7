"""Writes the candidates of a search into a folder: each as a WAV, their scores as a CSV, and a page to compare them.

The page is plain HTML that refers only to the WAVs beside it, so the folder can be moved and sent.
"""

import csv
import io
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path

from llasa import audio
from llasa.codec import Codec
from llasa.errors import LlasaError, reason
from llasa.files import absolute, exists, is_folder, read_bytes
from llasa.speak.account import Account, Candidate
from llasa.speak.word_times import Word

Timed = Callable[[Candidate], Sequence[Word] | None]
PAGE, TABLE = "index.html", "candidates.csv"
MARK = '<meta name="generator" content="llasa candidates">'
_OURS = re.compile(rf"\d+-\d+\.wav|{re.escape(PAGE)}|{re.escape(TABLE)}")
_WORK = {"lm": "language model", "codec": "codec", "verifier": "verifiers"}

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --dim: #687076; --paper: #fff; --card: #f5f6f7; --line: #dfe3e6;
  --bar: #5b8def; --good: #1a7f4b; --bad: #b3423a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --dim: #9aa4ad; --paper: #16191c; --card: #1f2428;
  --line: #343a40; --bar: #6f9bf2; --good: #4cc38a; --bad: #f0877f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.35rem; margin: 0 0 .75rem; }
h2 { font-size: 1.05rem; font-weight: 600; margin: 2.2rem 0 .6rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0; padding: .8rem 1rem;
  background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
dt, .dim { color: var(--dim); }
dd { margin: 0; overflow-wrap: anywhere; }
.words .now { background: var(--bar); color: var(--paper); border-radius: 4px; }
ol { list-style: none; margin: 0; padding: 0; }
li { display: grid; grid-template-columns: 7.5rem minmax(0, 1fr) minmax(11rem, 15rem); gap: .3rem 1rem;
  align-items: center; padding: .55rem .8rem; border: 1px solid var(--line); border-radius: 8px; margin-bottom: .4rem; }
li.chosen { border-color: var(--good); box-shadow: inset 0 0 0 1px var(--good); background: var(--card); }
li.condemned .name, li.fragment .name { color: var(--dim); font-weight: 400; }
.name { font-weight: 600; }
.tag { color: var(--good); font-weight: 600; }
.bad { color: var(--bad); }
.dim, .tag, .bad { font-size: .85em; }
audio { width: 100%; height: 2.2rem; }
.scores { display: grid; grid-template-columns: 5.5rem 1fr 3rem; gap: .1rem .5rem; align-items: center;
  font-size: .85em; font-variant-numeric: tabular-nums; }
.scores span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.scores b { text-align: right; font-weight: 500; }
.track { height: .45rem; background: var(--line); border-radius: 4px; overflow: hidden; }
.track i { display: block; height: 100%; background: var(--bar); }
@media (max-width: 44rem) { li { grid-template-columns: 1fr; } }
"""

_SCRIPT = """
document.addEventListener('play', event => {
  const audio = event.target;
  for (const other of document.querySelectorAll('audio')) if (other !== audio) other.pause();
  const words = audio.closest('ol').previousElementSibling.querySelectorAll('.words span');
  const starts = (audio.dataset.starts || '').split(' ').filter(Boolean).map(Number);
  const light = () => {
    const now = audio.paused ? -1 : audio.currentTime;
    words.forEach((word, i) => word.classList.toggle('now', starts[i] <= now && !(starts[i + 1] <= now)));
    if (!audio.paused) requestAnimationFrame(light);
  };
  if (starts.length) light();
}, true);
"""


def check_folder(folder: Path) -> None:
    """Makes sure that candidates can be saved to a folder, before any search.

    Raises:
        LlasaError: the folder is a file, holds anything besides an earlier page, or cannot be written.
    """
    try:
        folder = absolute(folder)
        if is_folder(folder):
            names = [path.name for path in folder.iterdir()]
            if names and not _is_page(folder, names):
                raise LlasaError(f"{folder} holds files that are not candidates: choose a new or empty folder")
        elif exists(folder):
            raise LlasaError(f"{folder} is a file: choose a folder for the candidates")
        above = next(path for path in folder.parents if exists(path))
        with tempfile.TemporaryDirectory(dir=above, prefix=".llasa"):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from error


def save_candidates(account: Account, folder: Path, codec: Codec, timed: Timed | None = None) -> None:
    """Writes WAVs (`chunk-number.wav`), `candidates.csv` and `index.html`. The folder appears whole or not at all.

    An earlier page in that folder is replaced. Candidates are decoded again one by one, including those that the search
    condemned before it decoded them. A candidate without codes appears in the table and on the page, without a WAV.

    Args:
        timed: tells when a candidate says each word, so that the page can show it.

    Raises:
        LlasaError: as `check_folder`.
    """
    check_folder(folder)
    folder = absolute(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".llasa") as scratch:
            made = Path(scratch) / "new"
            made.mkdir()
            for candidate in account.candidates:
                if candidate.codes.size:
                    audio.save(made / _wav(candidate), codec.decode(candidate.codes), codec.rate)
            (made / TABLE).write_text(_table(account, codec), encoding="utf-8", newline="")
            (made / PAGE).write_text(_page(account, codec, timed), encoding="utf-8")
            if exists(folder):
                os.replace(folder, Path(scratch) / "old")  # goes with the scratch folder
            try:
                os.replace(made, folder)
            except OSError:
                if exists(Path(scratch) / "old"):
                    shutil.move(Path(scratch) / "old", folder)
                raise
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> LlasaError:
    return LlasaError(f"cannot save candidates in {folder}: {reason(error)}")


def _is_page(folder: Path, names: list[str]) -> bool:
    """Whether a folder holds what `save_candidates` wrote and nothing else, and may therefore be replaced."""
    if PAGE not in names or not all(_OURS.fullmatch(name) for name in names):
        return False
    return MARK in read_bytes(folder / PAGE).decode("utf-8", "replace")[:1000]


def _wav(candidate: Candidate) -> str:
    return f"{candidate.chunk}-{candidate.number}.wav"


def _verifiers(account: Account) -> list[str]:
    """Names of all verifiers that scored a candidate, in the order of their first score."""
    return list(dict.fromkeys(name for candidate in account.candidates for name in candidate.scores))


def _seconds(candidate: Candidate, codec: Codec) -> float:
    return len(candidate.codes) * codec.hop / codec.rate


def _table(account: Account, codec: Codec) -> str:
    verifiers = _verifiers(account)
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["chunk", "number", "seconds", "tokens", "finished", "condemned", *verifiers, "total", "chosen"])
    for one in account.candidates:
        scores = [f"{one.scores[name]:.6g}" if name in one.scores else "" for name in verifiers]
        total = f"{one.key[-1]:.6g}" if one.scores else ""
        writer.writerow(
            [one.chunk, one.number, f"{_seconds(one, codec):.3f}", len(one.codes), int(one.finished),
             one.condemned or "", *scores, total, int(one.chosen)]
        )  # fmt: skip
    return buffer.getvalue()


def _page(account: Account, codec: Codec, timed: Timed | None) -> str:
    ranges = {}
    for name in _verifiers(account):
        scores = [candidate.scores[name] for candidate in account.candidates if name in candidate.scores]
        # Most verifiers score from 0 to 1; a user's own function need not.
        ranges[name] = (0.0, 1.0) if min(scores) >= 0 and max(scores) <= 1 else (min(scores), max(scores))
    parts = []
    for chunk, text in enumerate(account.texts):
        own = [one for one in account.candidates if one.chunk == chunk]
        own.sort(key=lambda one: (one.chosen, one.rank), reverse=True)
        starts = [_starts(one, timed) for one in own]
        items = "\n".join(_item(one, ranges, codec, begun) for one, begun in zip(own, starts, strict=True))
        words = " ".join(f"<span>{escape(word)}</span>" for word in text.split()) if any(starts) else escape(text)
        number = f'<span class="dim">{chunk + 1} of {len(account.texts)}</span> ' if len(account.texts) > 1 else ""
        parts.append(f'<h2>{number}<span class="words">{words}</span></h2>\n<ol>\n{items}\n</ol>')
    title = escape(f"{account.strategy}, {len(account.candidates)} candidates")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{MARK}\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        f"{_facts(account)}\n" + "\n".join(parts) + f"\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _facts(account: Account) -> str:
    times = ", ".join(f"{_WORK.get(name, name)} {seconds:.2f} s" for name, seconds in account.seconds.items())
    facts: Iterable[tuple[str, str]] = [
        ("search", account.strategy),
        ("scored by", account.verify),
        ("sampled", f"{account.tokens:,} tokens in {account.rows:,} rows"),
        ("time", f"{sum(account.seconds.values()):.2f} s: {times}"),
        *(("note", note) for note in account.notes),
    ]
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{escape(fact)}</dd>" for name, fact in facts) + "</dl>"


def _starts(candidate: Candidate, timed: Timed | None) -> str:
    """The attribute that tells when a candidate says each word, in seconds; empty if that is not known."""
    words = timed(candidate) if timed and len(candidate.codes) else None
    return "" if words is None else f' data-starts="{" ".join(f"{word.start:.2f}" for word in words)}"'


def _item(candidate: Candidate, ranges: dict[str, tuple[float, float]], codec: Codec, starts: str) -> str:
    tokens = len(candidate.codes)
    sound = f'<audio controls preload="none" src="{_wav(candidate)}"{starts}></audio>' if tokens else ""
    kind, remark = "", ""
    if candidate.condemned is not None:
        kind, remark = "condemned", f'<div class="bad">{escape(candidate.condemned)}</div>'
    elif not candidate.finished:
        kind, remark = "fragment", '<div class="dim">left unfinished</div>'
    if candidate.chosen:
        kind, remark = f"{kind} chosen".strip(), f'<div class="tag">chosen</div>{remark}'
    bars = "".join(_bar(name, score, *ranges[name]) for name, score in candidate.scores.items())
    if len(candidate.scores) > 1:
        bars += f"<span>total</span><span></span><b>{candidate.key[-1]:.3f}</b>"
    return (
        f'<li class="{kind}"><div><span class="name">no. {candidate.number}</span>{remark}'
        f'<div class="dim">{_seconds(candidate, codec):.1f} s, {tokens} tokens</div></div><div>{sound}</div>'
        f'<div class="scores">{bars}</div></li>'
    )


def _bar(name: str, score: float, low: float, high: float) -> str:
    share = 100 * (score - low) / (high - low) if high > low else 100.0
    label = escape(name)
    bar = f'<div class="track"><i style="width:{share:.1f}%"></i></div>'
    return f'<span title="{label}">{label}</span>{bar}<b>{score:.3f}</b>'
