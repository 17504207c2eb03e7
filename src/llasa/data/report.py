"""Counts what was kept of a corpus, and what was dropped for which reason.

Each shard has its own account in its Parquet footer; the report of a job is their sum.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llasa.errors import LlasaError, reason
from llasa.files import exists, parse_json, read_text, whole

EXAMPLES = 5  # names listed for each reason
_KEY = b"llasa"


@dataclass
class Count:
    """A number of utterances, their seconds of audio as far as known, and some of their names."""

    utterances: int = 0
    seconds: float = 0.0
    examples: list[str] = field(default_factory=list)

    def add(self, other: "Count") -> None:
        self.utterances += other.utterances
        self.seconds += other.seconds
        self.examples = (self.examples + other.examples)[:EXAMPLES]


class Tally:
    """Counts what was kept and dropped. Reasons are in the order in which they occurred."""

    def __init__(self) -> None:
        self.kept = Count()
        self.dropped: dict[str, Count] = {}

    def add(self, reason: str, seconds: float, where: str, detail: str) -> None:
        """Counts one utterance, as kept if `reason` is empty."""
        if not reason:
            self.kept.add(Count(1, seconds))
            return
        self.dropped.setdefault(reason, Count()).add(Count(1, seconds, [f"{where} ({detail})" if detail else where]))

    def metadata(self) -> dict[bytes, bytes]:
        """The account as the metadata of a Parquet schema."""
        counts = {"kept": vars(self.kept), "dropped": {name: vars(count) for name, count in self.dropped.items()}}
        return {_KEY: json.dumps(counts, ensure_ascii=False).encode()}


class Report(Tally):
    """The account of a whole corpus."""

    def as_dict(self) -> dict[str, Any]:
        """The content of `report.json`."""

        def row(count: Count) -> dict[str, Any]:
            return {"utterances": count.utterances, "hours": round(count.seconds / 3600, 4)}

        dropped = {name: row(count) | {"examples": count.examples} for name, count in sorted(self.dropped.items())}
        return {"kept": row(self.kept), "dropped": dropped}

    def table(self) -> str:
        """The account as a table for people: a line for what was kept, and one for each reason."""
        lines = [f"{'':<18} {'utterances':>10} {'hours':>9}   such as"]
        rows = [("kept", self.kept), *sorted(self.dropped.items(), key=lambda row: -row[1].utterances)]
        for name, count in rows:
            example = count.examples[0] if count.examples else ""
            lines.append(f"{name:<18} {count.utterances:>10} {count.seconds / 3600:>9.3f}   {example}".rstrip())
        return "\n".join(lines)


def read_report(shards: list[Path]) -> Report:
    """The sum of the accounts of shards.

    Raises:
        LlasaError: a shard is missing or damaged, or has no account.
    """
    report = Report()
    for shard in shards:
        try:
            account = read_account(shard)
        except ValueError as error:
            raise LlasaError(
                f"{shard} is not a whole shard of `llasa data encode`: run the same command again"
            ) from error
        report.kept.add(Count(**account["kept"]))
        for name, count in account["dropped"].items():
            report.dropped.setdefault(name, Count()).add(Count(**count))
    return report


def read_account(shard: Path) -> dict[str, Any]:
    """The account of one shard.

    Raises:
        ValueError: the shard is damaged, or has no account.
        LlasaError: the system cannot read it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with shard.open("rb") as file:
            return json.loads((pq.read_schema(file).metadata or {})[_KEY])
    except OSError as error:
        if error.errno:  # without one it is pyarrow's error about the content
            raise LlasaError(f"cannot read {shard}: {reason(error)}: run the same command again") from error
        raise ValueError(str(error)) from error
    except (pa.ArrowException, KeyError) as error:
        raise ValueError(str(error)) from error


def require_begun_with(path: Path, wanted: dict[str, Any]) -> bool:
    """Compares settings with those in a folder's JSON file. Returns whether there is such a file.

    Raises:
        LlasaError: the settings differ, or the file is damaged.
    """
    if not exists(path):
        return False
    try:
        begun = parse_json(read_text(path))
        differs = [name for name in wanted if begun.get(name) != wanted[name]]
    except (ValueError, AttributeError) as error:
        raise LlasaError(f"{path} is damaged: choose another folder, or delete this file") from error
    if differs:
        raise LlasaError(
            f"{path.parent} was begun with another {' and '.join(differs)}: choose another folder, or delete this one"
        )
    return True


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file whole or not at all.

    Raises:
        LlasaError: it cannot be written.
    """
    with whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
