"""Reads the tables that name the recordings of a corpus: CSV, TSV, JSON Lines, JSON, and lines with bars (`name|text`).

A table says in its first line what its columns are, or its columns show it. Where neither is so, or a row does not fit
the others, the table is refused: a wrong text is worse than none.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from llasa.data.layouts import COLUMNS, Item, Listing, facts, pick, taken_from
from llasa.errors import LlasaError
from llasa.ffmpeg import SUFFIXES
from llasa.files import absolute, is_file, is_folder, parse_json, read_text
from llasa.text.wording import words

MANIFESTS = ("metadata.jsonl", "metadata.csv", "manifest.jsonl", "manifest.csv", "manifest.json", "metadata.json")
TABLES = {".csv", ".tsv", ".jsonl", ".json", ".txt", ".list"}  # suffixes of files that may be one
LOOKED_AT = 200  # rows by which columns are told apart
ALIKE = 0.5  # similarity of a raw text and the same text normalised
LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z]{2,4})?")

Row = tuple[int, dict[str, Any]]  # the line, and what each column holds


def usual_table(folder: Path) -> Path | None:
    """The table of a folder that has one of the usual names; whatever it says, if it can be no other file."""
    found = (folder / name for name in MANIFESTS)
    return next((path for path in found if is_file(path) and (path.suffix != ".json" or _names_recordings(path))), None)


def find_tables(folder: Path) -> list[Path]:
    """The files of a folder that name recordings; only the usual one, if there are others beside it."""
    if usual := usual_table(folder):
        return [usual]
    files = sorted(path for path in folder.iterdir() if is_file(path) and not path.name.startswith("."))
    recordings = {path.stem for path in files if path.suffix.lower() in SUFFIXES}
    tables = (path for path in files if path.suffix.lower() in TABLES and path.stem not in recordings)
    return [path for path in tables if _names_recordings(path)]


def the_table(folder: Path) -> Path:
    """The one table of a folder.

    Raises:
        LlasaError: there is none, or more than one.
    """
    found = find_tables(folder)
    if not found:
        raise LlasaError(f"{folder} has no metadata.csv, nor any other table that names recordings: pass its own path")
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:4])
        raise LlasaError(f"{folder} has several tables ({names}): pass the path of the one to use")
    return found[0]


def has_bars(table: Path) -> bool:
    """Whether a table's columns are parted by bars."""
    return "json" not in table.suffix and "|" in next((line for line in _lines(table) if line.strip()), "")


def ljspeech(source: Path) -> Listing:
    """A table of `name|text` or `name|raw text|text`, or with a speaker's column; recordings in `wavs/` or beside it.

    A first line may name the columns. The table of a folder is `metadata.csv`, or the only one that it has.

    Raises:
        LlasaError: there is no table, a row has more or fewer columns than the first, or the text cannot be told from
            the other columns.
    """
    table = source if is_file(source) else the_table(source)
    header, rows, named = _barred(table)
    find = _finder(table.parent)
    items = []
    for number, row in rows:
        name = pick(row, "audio") or pick(row, "id")
        text, speaker, language = facts(row)
        if not text:
            raise LlasaError(f"{table}, line {number}: there is no text after {name!r}: add it")
        path = find(name)
        place = path.relative_to(table.parent) if path.is_relative_to(table.parent) else path  # it may lie elsewhere
        who = speaker or absolute(table.parent).name
        items.append(Item(name, path, place.as_posix(), text, who, language or "en"))
    return Listing(items, taken_from(table, header, named))


def manifest(source: Path) -> Listing:
    """A JSONL, JSON, CSV or TSV file with the columns of COLUMNS and a row for each utterance.

    Paths start at the file's folder.

    Raises:
        LlasaError: a line is not a row or has no audio, no row has a text, two rows share an id, or none of the first
            hundred files exists.
    """
    source = source if is_file(source) else the_table(source)
    items: list[Item] = []
    seen: dict[str, int] = {}
    columns: dict[str, None] = {}
    find = _finder(source.parent)
    for number, row in _rows(source):
        name = pick(row, "audio")
        if not name:
            wanted = ", ".join(COLUMNS["audio"])
            raise LlasaError(f"{source}, line {number}: no audio file (a column of one of the names {wanted})")
        key = pick(row, "id") or Path(name).with_suffix("").as_posix()
        if key in seen:
            raise LlasaError(f"{source}, line {number}: line {seen[key]} has the id {key!r} too: change one of them")
        seen[key] = number
        columns |= dict.fromkeys(row)
        items.append(Item(key, find(name), name, *facts(row)))
    first = [Path(str(item.audio)) for item in items[:100]]
    if first and not any(is_file(path) for path in first):
        raise LlasaError(f"{source} names files that do not exist, such as {first[0]}: paths start from its folder")
    known = {name for names in COLUMNS.values() for name in names}
    if not columns.keys() & set(COLUMNS["text"]) and columns.keys() - known:
        raise LlasaError(
            f"{source} has no column of texts: call it text; its columns are {', '.join(sorted(columns))[:100]}"
        )
    return Listing(items, taken_from(source, list(columns)))


def commonvoice(source: Path) -> Listing:
    """A table of a Common Voice release, by default `validated.tsv` of its folder, with the recordings in `clips/`.

    Raises:
        LlasaError: there is no such table, or it lacks Common Voice's columns.
    """
    table = source / "validated.tsv" if is_folder(source) else source
    if not is_file(table):
        raise LlasaError(f"{source} has no validated.tsv: name the table to use, such as {source / 'train.tsv'}")
    clips = table.parent / "clips"
    items: list[Item] = []
    columns: list[str] = []
    for _, row in read_table(table, delimiter="\t", quoting=csv.QUOTE_NONE):
        columns = list(row)
        if not {"path", "sentence"} <= row.keys():
            raise LlasaError(f"{table} lacks the columns of Common Voice, path and sentence: pass another --layout")
        name = row["path"] or ""
        path = clips / (name if Path(name).suffix else f"{name}.mp3")
        items.append(Item(path.stem, path, f"clips/{path.name}", *facts(row)))
    return Listing(items, taken_from(table, columns))


def _finder(folder: Path) -> Callable[[str], Path]:
    """Finds a recording that a table calls by its name or path, with or without its suffix, whatever its case."""
    known: dict[str, Path] = {}
    for place in (folder, folder / "audio", folder / "clips", folder / "wav", folder / "wavs"):
        if is_folder(place):
            for path in sorted(place.iterdir()):
                if path.suffix.lower() in SUFFIXES:
                    known[path.stem] = known[path.name] = path  # those in wavs/ come last and win

    def find(name: str) -> Path:
        path = folder / name
        if path.suffix.lower() in SUFFIXES and is_file(path):
            return path
        bare = path.stem if path.suffix.lower() in SUFFIXES else path.name
        if "/" not in name and (found := known.get(name) or known.get(bare)):
            return found
        beside = (path.with_name(f"{path.name}{suffix}") for suffix in SUFFIXES)
        return next((place for place in beside if is_file(place)), path)

    return find


def _barred(table: Path) -> tuple[list[str], list[Row], bool]:
    """The columns of a table with bars, its rows, and whether its first line names the columns.

    Raises:
        LlasaError: see `ljspeech`.
    """
    rows = [(n, [cell.strip() for cell in line.split("|")]) for n, line in enumerate(_lines(table), 1) if line.strip()]
    if not rows:
        return [], [], False
    width = len(rows[0][1])
    for number, cells in rows:
        if len(cells) < 2:
            raise LlasaError(f"{table}, line {number}: there is no text after {cells[0]!r}: add it")
        if len(cells) != width:
            raise LlasaError(
                f"{table}, line {number} has {len(cells)} columns where line {rows[0][0]} has {width}: a text may have "
                "no | in it; correct the line"
            )
    known = {name for names in COLUMNS.values() for name in names}
    header = [cell.lower() for cell in rows[0][1]]
    if named := bool(set(header) & set(COLUMNS["text"])) and header[0] in known:
        rows = rows[1:]
    else:
        header = _guessed(table, [cells for _, cells in rows[:LOOKED_AT]])
    return header, [(number, dict(zip(header, cells, strict=True))) for number, cells in rows], named


def _guessed(table: Path, rows: list[list[str]]) -> list[str]:
    """The columns of a table with bars that does not name them."""
    columns = list(zip(*rows, strict=True))
    if len(columns) == 2:
        return ["audio", "text"]
    plain = [all(cell and not re.search(r"\s", cell) for cell in column) for column in columns]
    if len(columns) == 3:
        alike = sum(_similar(raw, text) for _, raw, text in rows)
        if alike >= ALIKE * len(rows):
            return ["audio", "raw text", "text"]
        if plain[1] != plain[2]:
            return ["audio", "speaker", "text"] if plain[1] else ["audio", "text", "speaker"]
    if len(columns) == 4 and plain[1] and plain[2] and all(map(LANGUAGE.fullmatch, columns[2])):
        return ["audio", "speaker", "language", "text"]
    raise LlasaError(
        f"cannot tell which of the {len(columns)} columns of {table} is the text: put a first line such as "
        "audio|speaker|text there, or take the | out of the text"
    )


def _similar(raw: str, text: str) -> bool:
    """Whether one text is the other with its numbers and abbreviations written out."""
    ours, theirs = words(raw), words(text)
    return not raw or SequenceMatcher(None, ours, theirs, autojunk=False).ratio() > ALIKE


def _names_recordings(table: Path) -> bool:
    """Whether the first rows of a file name recordings, by what they say and not by what exists."""
    try:
        lines = [line for line in _lines(table) if line.strip()][:2]
        if table.suffix.lower() in (".json", ".jsonl"):
            row = next(_json_rows(table), (0, {}))[1]
            return bool(pick(row, "audio"))
    except LlasaError:
        return False
    for line in lines:
        mark = next((mark for mark in "|\t," if mark in line), None)
        cells = [cell.strip(' "') for cell in line.split(mark)] if mark else []
        named = any(cell.lower() in COLUMNS["audio"] for cell in cells) or any(
            Path(c).suffix.lower() in SUFFIXES for c in cells[:1]
        )
        if named or (mark == "|" and cells and is_file(_finder(table.parent)(cells[0]))):
            return True
    return False


def _rows(source: Path) -> Iterator[Row]:
    suffix = source.suffix.lower()
    if suffix in (".csv", ".tsv"):
        yield from read_table(source, **({"delimiter": "\t", "quoting": csv.QUOTE_NONE} if suffix == ".tsv" else {}))
    else:
        yield from _json_rows(source)


def _json_rows(source: Path) -> Iterator[Row]:
    """The rows of JSON Lines, or of one JSON list."""
    text = read_text(source)
    if text.lstrip().startswith("["):
        try:
            rows = list(enumerate(parse_json(text), 1))
        except ValueError as error:
            raise LlasaError(f"{source} is not JSON ({error})") from error
    else:
        rows = []
        for number, line in enumerate(text.split("\n"), 1):  # not splitlines: JSON has other line ends
            if line.strip():
                try:
                    rows.append((number, parse_json(line)))
                except ValueError as error:
                    raise LlasaError(f"{source}, line {number} is not JSON ({error})") from error
    for number, row in rows:
        if not isinstance(row, dict):
            raise LlasaError(f"{source}, line {number} is not a JSON object")
        yield number, row


def read_table(source: Path, **form: Any) -> Iterator[Row]:
    """The rows of a CSV file whose first line names the columns; `form` is the csv module's.

    Raises:
        LlasaError: a row has more or fewer columns than the first line.
    """
    reader = csv.DictReader(io.StringIO(read_text(source), newline=""), **form)
    try:
        for row in reader:
            if None in row or None in row.values():
                count = len(reader.fieldnames or ())
                kind = "more" if None in row else "fewer"
                raise LlasaError(
                    f"{source}, line {reader.line_num} has {kind} than the {count} columns of the first line: put a "
                    "text with commas between quotation marks"
                )
            yield reader.line_num, {str(name).strip(): value for name, value in row.items()}
    except csv.Error as error:
        raise LlasaError(f"{source}, line {reader.line_num}: {error}") from error


def _lines(path: Path) -> list[str]:
    return [line.rstrip("\r") for line in read_text(path).split("\n")]
