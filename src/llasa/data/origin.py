"""Which codec made a corpus of codes, told so that a codec whose decoder alone was trained on counts as the same.

A codec's fingerprint is of all its weights; codes depend on those before the quantiser only. A few of these, as
numbers, hold whatever the decoder learns, in half precision too.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from llasa.codec.convert import find, read
from llasa.errors import LlasaError

JOB = "job.json"
_BEFORE = ("acoustic_encoder.", "fc_encoder.", "quantizer.project_in.", "encoder.")
_COUNT = 32  # weights that are compared, one of each of so many matrices


def codes_of(codec: Path) -> dict[str, Any]:
    """What tells a codec's codes from another's: `levels` and `weights`; `codec` is what `find` found.

    Raises:
        LlasaError: it cannot be read.
    """
    config, tensors = read(codec)
    # Not biases, nor the filters against aliasing, which are alike in all codecs.
    matrices = [name for name, t in tensors.items() if t.ndim > 1 and len(t) > 1 and t.shape[1:].numel() > 1]
    names = sorted(name for name in matrices if name.startswith(_BEFORE))
    chosen = [tensors[names[i]].flatten() for i in np.linspace(0, len(names) - 1, _COUNT, dtype=int)]
    weights = [float(f"{float(tensor[len(tensor) // 2]):.5g}") for tensor in chosen]
    return {"levels": [int(level) for level in config.quantization_levels], "weights": weights}


def require_codes_of(folders: list[Path], codec: str) -> None:
    """Refuses codes of another codec, where `llasa data encode` wrote down whose they are.

    Raises:
        LlasaError: a folder holds such.
    """
    found: dict[str, Any] = {}
    for folder in folders:
        path = folder / JOB
        try:
            made = json.loads(path.read_text(encoding="utf-8"))["codes"] if path.exists() else None
        except KeyError:  # of an older version, which did not say
            continue
        except (ValueError, TypeError) as error:
            raise LlasaError(f"{path} is damaged: encode the corpus again, or delete this file") from error
        if made is None:
            continue
        found = found or codes_of(find(codec))
        if made["levels"] != found["levels"] or not np.allclose(made["weights"], found["weights"], 0.01, 1e-4):
            raise LlasaError(
                f"{folder} holds codes of another codec than {codec}: name the one that it was encoded with as `codec`,"
                " or encode it again"
            )
