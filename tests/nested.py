"""Recipes in one flat dict, as tests like to change them: a key goes where its settings class has it."""

import dataclasses
from typing import Any, get_type_hints

from llasa.train.codec.settings import CodecSettings
from llasa.train.lm.settings import LMSettings
from llasa.train.recogniser.settings import RecogniserSettings
from llasa.train.rl.settings import RLSettings
from llasa.train.settings import changed, merged

STAGES = {"lm": LMSettings, "codec": CodecSettings, "recogniser": RecogniserSettings, "rl": RLSettings}


def dotted(kind: Any, name: str) -> str:
    """A key's whole path: a name with a point is one already, and others are of one part alone."""
    own = {field.name: field for field in dataclasses.fields(kind)}
    if "." in name or name in own:
        return name
    hints = get_type_hints(kind)
    parts = [part for part in own if dataclasses.is_dataclass(hints[part])]
    found = [part for part in parts if name in {field.name for field in dataclasses.fields(hints[part])}]
    return f"{found[0]}.{name}" if len(found) == 1 else name


def nest(kind: Any, flat: dict[str, Any]) -> dict[str, Any]:
    """The values as a recipe has them."""
    values: dict[str, Any] = {}
    for name, value in flat.items():
        for part in reversed(dotted(kind, name).split(".")):
            value = {part: value}
        name, value = next(iter(value.items()))
        whole = isinstance(value, dict) and isinstance(values.get(name), dict)
        values[name] = merged(values[name], value) if whole else value
    return values


def make(kind: Any, flat: dict[str, Any]) -> Any:
    """Settings with those values, unchecked."""
    return changed(kind(), {dotted(kind, name): value for name, value in flat.items()})


def lm_settings(**flat: Any) -> LMSettings:
    return make(LMSettings, flat)


def codec_settings(**flat: Any) -> CodecSettings:
    return make(CodecSettings, flat)


def recogniser_settings(**flat: Any) -> RecogniserSettings:
    return make(RecogniserSettings, flat)


def rl_settings(**flat: Any) -> RLSettings:
    return make(RLSettings, flat)
