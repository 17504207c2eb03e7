"""Writes the files of a suite: a table of every item, a table of all together, and a page with sounds.

The page contains its sounds, so it can be sent as it is.
"""

import csv
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from llasa import audio
from llasa.measure import tables
from llasa.measure.metrics import Usage
from llasa.measure.tables import write_text
from llasa.studies.inference.plots import Series
from llasa.suites import blind
from llasa.suites.evaluation import SUITES, EvalSettings, Job, stored
from llasa.suites.judges import Judge, make_judges
from llasa.suites.published import COLUMNS
from llasa.suites.scoreboard import TOGETHER, Part, Results, codes_used, collect, findings, problems
from llasa.suites.table_rows import COPIES, Row, choosers
from llasa.verifiers import RATE

HEARD = 3  # items of each part on the page
TOLD = 20  # problems on the page; all are in results.csv

_STYLE = """
body { max-width: 84rem; } th { min-width: 4.5rem; } h3 { font-size: 1rem; margin: 1.6rem 0 0; }
tbody.measured td { font-weight: 500; } tbody.published td { color: var(--dim); }
tbody.published tr:first-child td { border-top: 2px solid var(--line); padding-top: .6rem; }
tbody td small { font-weight: 400; }
.better { color: #1a7f4b; } .worse { color: #b3423a; }
@media (prefers-color-scheme: dark) { .better { color: #4cc38a; } .worse { color: #f0877f; } }
tr.part td { font-weight: 600; padding-top: .9rem; text-align: left; }
.note { border-left: 3px solid #d9a514; padding: .4rem .9rem; margin: 1rem 0; }
.said { margin: 1.6rem 0 .3rem; font-weight: 600; } .said span { font-weight: 400; color: var(--dim); }
td.heard { text-align: left; white-space: normal; min-width: 14rem; max-width: 26rem; color: var(--dim); }
td.sound { padding: .2rem .4rem; text-align: left; } .sounds td { vertical-align: middle; }
"""


def write_report(settings: EvalSettings, jobs: Sequence[Job], judges: tuple[str, ...], folder: Path) -> list[str]:
    """Writes results.csv, summary.csv and report.html, and returns the findings, a line each.

    Raises:
        LlasaError: a stored result is damaged, or a file cannot be written.
    """
    results, made, suite = stored(jobs, folder), make_judges(judges), SUITES[settings.suite]
    lines = []
    if suite.blind and (count := blind.add_scores(results, folder, settings.seed)):
        made = [blind.JUDGE, *made]
        lines.append(f"{count} scores by hand were read")
    parts = collect(settings.suite, results, made, together=suite.blind)
    rows = list(dict.fromkeys(job.row for job in jobs))
    lines += findings([part for part in parts if not suite.blind or part.name.startswith(TOGETHER)], rows)
    used = codes_used(results)
    if used:
        lines.append(
            f"codes used: {100 * used.share:.1f} % of {used.size:,}, perplexity {used.perplexity:,.0f}, "
            f"in {used.count:,} codes"
        )
    write_text(folder / "results.csv", _results(results, made))
    write_text(folder / "summary.csv", _summary(parts, used))
    write_text(folder / "report.html", page(settings, results, parts, rows, lines))
    if suite.blind:
        lines.append(f"{blind.write_page(results, folder, settings.seed)}: to score by hand, blind")
    if failed := [one for one in results if one["problems"]]:
        row, name, what = problems(failed)[0]
        lines.append(
            f"{len(failed)} of {len(results)} results lack a figure, first {name} of {row} ({what}); the same command "
            "tries them again"
        )
    return lines


def page(
    settings: EvalSettings, results: Results, parts: Sequence[Part], rows: Sequence[Row], lines: Sequence[str]
) -> str:
    """report.html."""
    said = "".join(f"<li>{escape(line)}</li>" for line in lines)
    suite = SUITES[settings.suite]
    counted = [part for part in parts if not suite.blind or part.name.startswith(TOGETHER)]
    counts = "; ".join(f"{part.name}: {part.count}" for part in counted)
    facts = (
        f"Items: {counts}. Seed {settings.seed}. Intervals are of 95 %, by bootstrap over items; below them stands the "
        "paired difference from the first row that no person spoke, with its p."
    )
    body = [f'<p class="dim">{escape(facts)}</p>', *_remarks(parts, rows), f"<ul>{said}</ul>"]
    if suite.blind:
        body.append(f"<h2>Categories</h2>\n{_table(parts, rows)}\n{_problems(results)}\n<h2>To listen to</h2>")
        parts = [part for part in parts if not part.name.startswith(TOGETHER)]
    for part in parts:
        own = [one for one in results if one["item"]["part"] == part.name]
        if suite.blind:
            body.append(_sounds(part, own, 1))
        else:
            body.append(f"<h2>{escape(part.name)}</h2>\n{_table([part], rows)}\n{_problems(own)}")
            body.append(f"<h3>To listen to</h3>\n{_sounds(part, own, HEARD)}")
    return tables.page(f"{suite.title}: {settings.model}", "\n".join(body), _STYLE)


def _remarks(parts: Sequence[Part], rows: Sequence[Row]) -> list[str]:
    """What a reader must know to compare: other judges than the papers', and judges that chose."""
    remarks = []
    judges = list(dict.fromkeys(judge for part in parts for judge in part.judges))
    if any(part.published for part in parts):
        own = {judge.as_published for judge in judges}
        other = {key for part in parts for one in part.published for key in one.figures} - own
        if other:
            names = ", ".join(COLUMNS[key][0] for key in COLUMNS if key in other)
            remarks.append(
                f"Nobody measured {names} here. These columns hold published figures only, and figures of other judges "
                "do not compare with them."
            )
    chose = choosers(rows)
    if biased := [judge.label for judge in judges if judge.verifier and judge.verifier in chose]:
        remarks.append(f"† {', '.join(biased)} also chose in a search: there, trust the other judges.")
    return [f'<p class="note">{escape(remark)}</p>' for remark in remarks]


def _table(parts: Sequence[Part], rows: Sequence[Row]) -> str:
    """Parts in one table, the published rows of each below its own.

    Published figures stand in the column of the judge that they had, or in columns of their own.
    """
    chose, judges = choosers(rows), list(dict.fromkeys(judge for part in parts for judge in part.judges))
    keys = {key for part in parts for row in part.published for key in row.figures}
    extra = [key for key in COLUMNS if key in keys - {judge.as_published for judge in judges}]
    heads = []
    for judge in judges:
        mark = " †" if judge.verifier and judge.verifier in chose else ""
        heads.append(_head(parts[0], judge) + mark)
    heads += [f"{COLUMNS[key][0]}{' (%)' if key in ('wer', 'cer', 'words') else ''}" for key in extra]
    spoken = any(one.tokens for part in parts for one in part.series)  # by a language model
    heads = ["", *(["tokens"] if spoken else []), *heads]
    cells = "".join(f"<th>{escape(head)}</th>" for head in heads)
    lines = [f"<thead><tr>{cells}</tr></thead>"]
    for part in parts:
        lines.append('<tbody class="measured">')
        named = len(parts) > 1 and len(part.series) == 1
        if len(parts) > 1 and not named:
            lines.append(f'<tr class="part"><td colspan="{len(heads)}">{escape(part.name)}, {part.count}</td></tr>')
        for one in part.series:
            label = f"{part.name}, {part.count}" if named else one.strategy
            figures = "".join(_cell(part, one, judge) if judge in part.judges else "<td></td>" for judge in judges)
            tokens = f"<td>{f'{one.tokens:.0f}' if one.tokens else ''}</td>" if spoken else ""
            empty = "<td></td>" * len(extra)
            lines.append(f"<tr><td>{escape(label)}</td>{tokens}{figures}{empty}</tr>")
        lines.append('</tbody><tbody class="published">')
        for row in part.published:
            figures = "".join(
                f"<td>{row.figures[key]:.{COLUMNS[key][1]}f}</td>" if key in row.figures else "<td></td>"
                for key in [*(judge.as_published for judge in judges), *extra]
            )
            label = f"{escape(row.label)}<small>{escape(row.source)}</small>"
            lines.append(f"<tr><td>{label}</td>{'<td></td>' if spoken else ''}{figures}</tr>")
        lines.append("</tbody>")
    return tables.wide(lines)


def _head(part: Part, judge: Judge) -> str:
    return f"{part.label(judge)}{' (%)' if judge.factor == 100 else ''}"


def _cell(part: Part, one: Series, judge: Judge) -> str:
    found, count = part.found(one, judge), part.heard(one, judge)
    if not count:
        return "<td>none</td>"

    def figure(value: float, sign: str = "") -> str:
        return f"{value * judge.factor:{sign}.{judge.digits}f}"

    of = f"<br>{count} of {part.count}" if count < part.count else ""
    cell = f"{figure(found.value.value)}<small>{figure(found.value.low)} to {figure(found.value.high)}{of}</small>"
    if found.p < 1 and one is not part.base:
        better = (found.difference.value < 0) == judge.less
        kind = ("better" if better else "worse") if found.sure else ""
        cell += f'<small class="{kind}">{figure(found.difference.value, "+")}, p {found.p:.2g}</small>'
    return f"<td>{cell}</td>"


def _problems(results: Results) -> str:
    found = problems(results)
    if not found:
        return ""
    rows = "".join(f"<li>{escape(row)}, {escape(name)}: {escape(what)}</li>" for row, name, what in found[:TOLD])
    more = f"<li>and {len(found) - TOLD} more, in results.csv</li>" if len(found) > TOLD else ""
    return f"<details><summary>{len(found)} remarks on items</summary><ul>{rows}{more}</ul></details>"


def _sounds(part: Part, results: Results, count: int) -> str:
    """The items that the first judge finds best, middling and worst in the base row, in all rows; or a middling one."""
    if not part.judges:
        return ""
    judge = part.judges[0]
    values = part.base.values[judge.written] * (1 if judge.less else -1)
    heard = [place for place in np.argsort(values, kind="stable") if np.isfinite(values[place])]
    shares = [0.5] if count == 1 else [k / (count - 1) for k in range(count)]
    places = sorted({round(share * (len(heard) - 1)) for share in shares}) if heard else []
    ids = list(dict.fromkeys(one["item"]["id"] for one in results))
    blocks = [_said(part, [one for one in results if one["item"]["id"] == ids[heard[place]]]) for place in places]
    names = {1: "middling", 2: "best and worst"}
    which = names.get(min(count, len(places)), "best, middling and worst")
    told = f"{part.name}: {which} in {part.base.strategy} by {part.label(judge)}"
    return f'<p class="dim">{escape(told)}</p>\n' + "\n".join(blocks)


def _said(part: Part, results: Results) -> str:
    item = results[0]["item"]
    heads = "".join(f"<th>{escape(_head(part, judge))}</th>" for judge in part.judges)
    rows = [f"<tr><th></th><th></th>{heads}<th></th></tr>"]
    if item["prompt"] and item["prompt"] != item["recording"]:
        rows.append(f'<tr><td>prompt</td><td class="sound" colspan="{len(part.judges) + 2}">{_prompt(item)}</td></tr>')
    for one in results:
        figures = "".join(f"<td>{_figure(one, judge)}</td>" for judge in part.judges)
        sound = tables.player(one["wav"]) if one["wav"] else "silence"
        heard = escape("; ".join(one["heard"].values()))
        rows.append(
            f'<tr><td>{escape(one["row"]["name"])}</td><td class="sound">{sound}</td>{figures}'
            f'<td class="heard">{heard}</td></tr>'
        )
    began = f"<span>{escape(item['prompt_text'])}</span> " if item["cut"] else ""
    said = f"{began}{escape(item['text'])} <span>{escape(item['id'])}</span>"
    return f'<p class="said">{said}</p>\n<div class="sounds">{tables.wide(rows)}</div>'


def _prompt(item: dict[str, Any]) -> str:
    samples = audio.load(item["prompt"])
    samples = samples[: round(item["cut"] * RATE)] if item["cut"] else samples
    return tables.player(audio.wav_bytes(samples, RATE))


def _figure(one: dict[str, Any], judge: Judge) -> str:
    found = one["figures"].get(judge.written)
    return f"{found[0] * judge.factor:.{judge.digits}f}" if found else "none"


def _results(results: Results, judges: Sequence[Judge]) -> str:
    """A row for each item in each row of the table."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    names = [judge.written for judge in judges]
    weights = [f"{judge.written} weight" for judge in judges if judge.words]
    writer.writerow(["part", "id", "row", "seconds_of_audio", "tokens", "seconds", *names, *weights, "remarks"])
    for one in results:
        facts, figures = one["facts"], one["figures"]
        told = "; ".join(what for _, _, what in problems([one]))
        writer.writerow(
            [one["item"]["part"], one["item"]["id"], one["row"]["name"],
             *(f"{facts[key]:g}" if facts else "" for key in ("seconds_of_audio", "tokens", "seconds")),
             *(f"{figures[name][0]:.6g}" if name in figures else "" for name in names),
             *(f"{figures[j.written][1]:g}" if j.written in figures else "" for j in judges if j.words), told]
        )  # fmt: skip
    return buffer.getvalue()


def _summary(parts: Sequence[Part], used: Usage | None) -> str:
    """A row for each part, row and figure, measured or published; and how many of the codes a codec's copies use."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(
        ["part", "row", "figure", "value", "low", "high", "items", "of", "difference", "difference_low",
         "difference_high", "p", "source"]
    )  # fmt: skip
    for part in parts:
        for one in part.series:
            for judge in part.judges:
                found = part.found(one, judge)
                shown = [
                    "" if np.isnan(x) else f"{x * judge.factor:.6g}"
                    for i in (found.value, found.difference) for x in (i.value, i.low, i.high)
                ]  # fmt: skip
                apart = one is not part.base and found.p < 1
                writer.writerow(
                    [part.name, one.strategy, part.label(judge), *shown[:3], part.heard(one, judge), part.count,
                     *(shown[3:] if apart else ["", "", ""]), f"{found.p:.4g}" if apart else "", "measured"]
                )  # fmt: skip
        for row in part.published:
            for key, value in row.figures.items():
                writer.writerow(
                    [part.name, row.label, COLUMNS[key][0], f"{value:g}", "", "", "", "", "", "", "", "", row.source]
                )
    if used:
        shares = [f"{100 * used.share:.4g}", "", "", used.count, used.count]
        writer.writerow(["all", COPIES, f"codes used of {used.size}, %", *shares, "", "", "", "", "measured"])
    return buffer.getvalue()
