"""A study's folder: its settings, so that another study does not continue in it, and its stored results, as JSON."""

import json
import os
from pathlib import Path
from typing import Any

from llasa.errors import LlasaError, reason
from llasa.files import exists, is_folder
from llasa.measure.tables import write_text

SETTINGS = "study.json"


def open_folder(folder: Path, settings: dict[str, Any], results: str) -> None:
    """Makes the folder, or continues in it.

    Args:
        results: a pattern; a study has results if files match it.

    Raises:
        LlasaError: the folder belongs to another study or holds something else, or it cannot be written.
    """
    path = folder / SETTINGS
    wanted = json.loads(json.dumps(settings))
    if exists(path):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise LlasaError(f"{path} cannot be read: name another folder for the study") from error
        # Without results the settings may change: perhaps their model or voice did not exist.
        if found != wanted and any(folder.glob(results)):
            other = next((key for key in wanted if found.get(key) != wanted[key]), SETTINGS)
            raise LlasaError(f"{folder} holds a study with another {other}: name another folder, or remove this one")
    elif exists(folder) and (not is_folder(folder) or os.listdir(folder)):
        raise LlasaError(f"{folder} holds something other than a study: name a new or empty folder")
    try:
        (folder / results).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LlasaError(f"cannot write {folder}: {reason(error)}") from error
    write_text(path, json.dumps(wanted, indent=1) + "\n")


def read(path: Path) -> dict[str, Any]:
    """A stored result.

    Raises:
        LlasaError: the file is damaged.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError) as error:
        raise LlasaError(f"{path} is damaged: remove it and run the study again") from error
