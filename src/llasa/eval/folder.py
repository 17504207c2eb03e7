"""A study's folder: what it was begun with, so that another study does not go on in it, and what it has stored.

Knows JSON files; knows nothing of what is studied.
"""

import json
import os
from pathlib import Path
from typing import Any

from llasa.errors import LlasaError, reason
from llasa.eval.report import write_text

SETTINGS = "study.json"


def open_folder(folder: Path, settings: dict[str, Any], results: str) -> None:
    """Makes the folder, or goes on with it: nothing has been studied where no file matches `results`, a pattern.

    Raises:
        LlasaError: it is another study's or holds something else, or it cannot be written.
    """
    path = folder / SETTINGS
    wanted = json.loads(json.dumps(settings))
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise LlasaError(f"{path} cannot be read: name another folder for the study") from error
        # Settings whose model or voice turned out not to exist may change.
        if found != wanted and any(folder.glob(results)):
            other = next((key for key in wanted if found.get(key) != wanted[key]), SETTINGS)
            raise LlasaError(f"{folder} holds a study with another {other}: name another folder, or remove it")
    elif folder.exists() and (not folder.is_dir() or os.listdir(folder)):
        raise LlasaError(f"{folder} holds something else than a study: name a new or empty folder")
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
