"""Reads and checks recipes: YAML files whose keys are fields of nested dataclasses.

Each field's metadata holds a comment and the allowed values. They serve to check values, and to make `--help` and the
tables in the documentation.
"""

import contextlib
import copy
import dataclasses
import difflib
import functools
import itertools
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from llasa.errors import LlasaError, first_line, shown
from llasa.files import MB, read_text

T = TypeVar("T")
MOST = 100_000  # values in a recipe
LARGEST = {int: 2**63 - 1, float: 1e300}  # of numbers, so that every library can hold them
_NAMES = {
    int: ("a whole number", "whole numbers"), float: ("a number", "numbers"), str: ("a text", "texts"),
    bool: ("true or false", "true or false"),
}  # fmt: skip


def key(
    default: Any,
    says: str,
    *,
    required: bool = False,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    among: tuple[str, ...] = (),
    keys: Callable[[], Collection[str]] | None = None,
) -> Any:
    """A field of a settings dataclass.

    Args:
        says: the comment that help and documentation show.
        required: whether a recipe must have it.
        least, most, above: the range of a number, and of each number in a list or a mapping.
        among: the allowed texts.
        keys: the keys that a mapping may have.
    """
    metadata = {
        "says": says, "required": required, "least": least, "most": most, "above": above, "among": among, "keys": keys,
    }  # fmt: skip
    return dataclasses.field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)


def part(kind: Callable[..., Any], says: str, **defaults: Any) -> Any:
    """A field that is itself a settings dataclass, with defaults of its own."""
    return dataclasses.field(default_factory=lambda: kind(**defaults), metadata={"says": says})


@dataclass
class Schedule:
    """How long and how fast a stage learns, and when it saves. Every stage has a schedule."""

    steps: int = key(4000, "steps in all", least=1)
    lr: float = key(2e-3, "the learning rate's peak", least=0)
    muon_lr: float = key(0.0, "the peak of Muon for the matrices in the layers; 0: AdamW for everything", least=0)
    warmup: int = key(100, "steps up to the peak", least=0)
    lr_floor: float = key(0.05, "the learning rate at the end, as a share of the peak", least=0, most=1)
    lr_fall: int | None = key(
        None, "steps of a linear fall from the peak to the floor; without it, a cosine to the last step", least=1
    )
    betas: list[float] = key([0.9, 0.95], "AdamW's two decay rates", least=0, most=1)
    decay: float = key(0.01, "weight decay", least=0)
    clip: float = key(1.0, "the norm that a gradient is clipped to", above=0)
    ema: float = key(
        0.999, "decay of the running average of the weights, which is saved as the model; 0: no average",
        least=0, most=1,
    )  # fmt: skip
    checkpoint_minutes: float = key(4.0, "minutes between checkpoints", least=0)
    seed: int = key(0, "the seed of all random numbers", least=0)


def read_settings(kind: type[T], path: Path, changes: dict[str, Any] | None = None) -> T:
    """Reads a settings dataclass from a YAML file.

    Args:
        changes: values by dotted key, such as `schedule.steps`, that override the file's; None overrides nothing.

    Raises:
        LlasaError: the file is missing, is not YAML, or has a key or a value that the stage does not allow.
    """
    import yaml

    try:
        values = yaml.safe_load(read_text(path, MB)) or {}
        _count(values)
    except LlasaError as error:
        raise LlasaError(f"cannot read the settings {shown(path)}: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that does not exist
        told = "it is nested too deeply" if isinstance(error, RecursionError) else first_line(error)
        raise LlasaError(f"cannot read the settings {shown(path)}: {told}") from error
    if not isinstance(values, dict):
        raise LlasaError(f"{path} is not a recipe: write lines like `out: runs/lm`")
    for name, value in (changes or {}).items():
        if value is not None:
            values = _replaced(values, name.split("."), value)
    return make_settings(kind, values, str(path))


def _count(value: Any, so_far: int = 0) -> int:
    """How many values there are, in a YAML file whose aliases are written out.

    Raises:
        ValueError: more than `MOST`, as a few lines of aliases of aliases can be.
    """
    so_far += 1
    if so_far > MOST:
        raise ValueError(f"its aliases unfold to more than {MOST:,} values")
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        so_far = _count(child, so_far)
    return so_far


def merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Nested values, overridden by those in `changes`."""
    both = {
        k: merged(values[k], v) for k, v in changes.items() if isinstance(v, dict) and isinstance(values.get(k), dict)
    }
    return values | changes | both


def _replaced(values: Any, path: list[str], value: Any) -> dict[str, Any]:
    """Nested values with `value` at a path."""
    values = values if isinstance(values, dict) else {}
    return values | {path[0]: _replaced(values.get(path[0]), path[1:], value) if path[1:] else value}


def changed(settings: T, changes: dict[str, Any]) -> T:
    """A copy of settings with some values changed, by dotted key."""
    made = copy.deepcopy(settings)
    for path, value in changes.items():
        *parts, name = path.split(".")
        setattr(functools.reduce(getattr, parts, made), name, value)
    return made


def make_settings(kind: type[T], values: dict[str, Any], where: str) -> T:
    """Makes a settings dataclass from the nested values of a recipe.

    Raises:
        LlasaError: a key is unknown or missing, or a value is not allowed; the message begins with `where`.
    """
    try:
        made: Any = _fill(kind, kind() if not _without_default(kind) else None, values, "", _paths(kind))
        if hasattr(made, "check"):
            made.check()
    except LlasaError as error:
        raise LlasaError(f"{where}: {error}") from error
    return made


def _without_default(kind: Any) -> list[str]:
    missing = dataclasses.MISSING
    return [f.name for f in dataclasses.fields(kind) if f.default is missing and f.default_factory is missing]


def _fill(kind: Any, default: Any, values: Any, prefix: str, known: list[str]) -> Any:
    """A settings dataclass from `values`; missing ones are taken from `default`."""
    if not isinstance(values, dict):
        names = ", ".join(f"`{each.name}`" for each in dataclasses.fields(kind))
        raise LlasaError(f"`{prefix[:-1]}` is {_brief(values)}: it must be a mapping of {names}")
    fields, hints, found = {each.name: each for each in dataclasses.fields(kind)}, get_type_hints(kind), {}
    for name, value in values.items():
        if name not in fields:
            raise LlasaError(f"unknown key `{prefix}{name}`{_suggestion(str(name), known)}")
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            found[name] = _fill(hint, getattr(default, name), value, f"{prefix}{name}.", known)
        else:
            found[name] = _fit(value, hint, fields[name].metadata, prefix + name)
    needed = _without_default(kind) + [name for name, each in fields.items() if each.metadata.get("required")]
    for name in needed:
        if name not in values or values[name] in ("", [], {}):
            raise LlasaError(f"`{prefix}{name}` is missing: {fields[name].metadata.get('says', 'it has no default')}")
    for name, hint in hints.items():  # a section that is left out may still have required keys
        if dataclasses.is_dataclass(hint) and name not in values:
            found[name] = _fill(hint, getattr(default, name), {}, f"{prefix}{name}.", known)
    return kind(**found) if default is None else dataclasses.replace(default, **found)


def _brief(value: Any) -> str:
    written = repr(value)
    return written if len(written) < 100 else f"{written[:80]}..."


def _suggestion(name: str, known: list[str]) -> str:
    names = {path.rpartition(".")[2]: path for path in reversed(known)}
    close = difflib.get_close_matches(name, names, 1)
    return f": did you mean `{names[close[0]]}`?" if close else ""


def _paths(kind: Any, prefix: str = "") -> list[str]:
    return [f"{prefix}{path}" for path, *_ in _keys(kind, None)]


def _fit(value: Any, hint: Any, rules: Any, name: str) -> Any:
    """A value converted to its key's type and checked against its bounds.

    A number may be text: PyYAML reads `5e-5` as text, because it has no point.

    Raises:
        LlasaError: the value is not allowed; the message says what is.
    """
    try:
        fitted = _convert(value, hint, rules)
    except ValueError as error:
        huge = ", and not huge" if isinstance(value, int | float) and abs(value) > LARGEST[int] else ""
        raise LlasaError(f"`{name}` is {_brief(value)}: it must be {_allowed(hint, rules)}{huge}") from error
    if rules.get("keys") and (wrong := [each for each in fitted if each not in rules["keys"]()]):
        raise LlasaError(
            f"unknown key `{name}.{wrong[0]}`{_suggestion(wrong[0], [f'{name}.{k}' for k in rules['keys']()])}"
        )
    return fitted


def _convert(value: Any, hint: Any, rules: Any) -> Any:
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if hint is Any:
        return value
    if kind is UnionType:  # the only unions used are `X | None`
        return None if value is None else _convert(value, inner[0], rules)
    if kind in (int, float) and isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if kind in (int, float) and isinstance(value, int | float) and not abs(value) <= LARGEST[kind]:  # nor NaN
        raise ValueError
    fits = isinstance(value, (int, float) if kind is float else kind)
    if not fits or (kind in (int, float) and isinstance(value, bool)):
        raise ValueError
    if kind is list:
        return [_convert(each, inner[0], rules) for each in value]
    if kind is dict:
        return {str(name): _convert(each, inner[1], rules) for name, each in value.items()}
    if kind in (int, float):
        least, most, above = (rules.get(name) for name in ("least", "most", "above"))
        inside = (least is None or value >= least) and (most is None or value <= most)
        if not inside or (above is not None and not value > above):  # this refuses NaN, too
            raise ValueError
    if rules.get("among") and value not in rules["among"]:
        raise ValueError
    return value


def _allowed(hint: Any, rules: Any, many: bool = False) -> str:
    """The values that a key allows, in words."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind is UnionType:
        return f"{_allowed(inner[0], rules)}, or null"
    if rules.get("among"):
        return " or ".join(f"`{each}`" for each in rules["among"])
    if kind is list:
        return ("lists of " if many else "a list of ") + _allowed(inner[0], rules, many=True)
    if kind is dict:
        return (
            "a mapping `name: value`" if inner[1] is Any else f"a mapping of names to {_allowed(inner[1], rules, True)}"
        )
    bounds = {"least": "of at least", "above": "above", "most": "of at most"}
    ranges = [f"{words} {rules[name]:g}" for name, words in bounds.items() if rules.get(name) is not None]
    return " ".join([_NAMES[kind][many], " and ".join(ranges)]).strip()


def _keys(kind: Any, instance: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every key: its dotted path, its default in `instance`, and its field."""
    hints = get_type_hints(kind)
    for each in dataclasses.fields(kind):
        default = getattr(instance, each.name, None)
        if dataclasses.is_dataclass(hints[each.name]):
            yield from _keys(hints[each.name], default, f"{prefix}{each.name}.")
        else:
            yield f"{prefix}{each.name}", default, each


def _shown(default: Any, field: Any) -> str:
    if field.metadata.get("required"):
        return ""
    if default is None or default in ("", [], {}):
        return "none"
    return (
        str(default).lower()
        if isinstance(default, bool)
        else f"{default:g}"
        if isinstance(default, float)
        else str(default)
    )


def table(kind: Callable[[], Any]) -> str:
    """All keys of a recipe as a Markdown table."""
    rows = [(f"`{name}`", _shown(default, each), each.metadata["says"]) for name, default, each in _keys(kind, kind())]
    return "\n".join(f"| {' | '.join(row)} |" for row in [("key", "by default", "what it says"), ("---",) * 3, *rows])


def explain(kind: Callable[[], Any]) -> str:
    """All keys of a recipe for `--help`, a paragraph for each section. Typer does not rewrap lines after a \\b."""
    says = {each.name: each.metadata["says"] for each in dataclasses.fields(kind)}  # type: ignore[arg-type]
    lines = []
    for name, group in itertools.groupby(_keys(kind, kind()), lambda item: item[0].rpartition(".")[0]):
        lines.append(f"\b\n{name}: {says[name]}:" if name else "\b")
        for path, default, each in group:
            shown = _shown(default, each)
            lines.append(f"  {path}{f' ({shown})' if shown else ''}: {each.metadata['says']}".replace("[", "\\["))
        lines.append("")
    return "\n".join(lines)
