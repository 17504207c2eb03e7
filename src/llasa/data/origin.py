"""Records which codec made a corpus of codes. A codec whose decoder alone was trained further counts as the same.

A codec's fingerprint covers all of its weights, but codes depend only on those before the quantiser. A few of these
weights, stored as numbers, identify the codes; they do not change when the decoder learns, and survive half precision.
"""

from pathlib import Path
from typing import Any

import numpy as np

from llasa.codec.convert import find, read
from llasa.errors import LlasaError
from llasa.files import exists, parse_json, read_text

JOB = "job.json"
_BEFORE = ("acoustic_encoder.", "fc_encoder.", "quantizer.project_in.", "encoder.")
_COUNT = 32  # weights to compare, one from each of as many matrices


def codes_of(codec: Path) -> dict[str, Any]:
    """What identifies a codec's codes: `levels` and `weights`. `codec` is what `llasa.codec.convert.find` returned.

    Raises:
        LlasaError: the codec cannot be read.
    """
    config, tensors = read(codec)
    # Without biases and anti-aliasing filters, which are alike in all codecs.
    matrices = [name for name, t in tensors.items() if t.ndim > 1 and len(t) > 1 and t.shape[1:].numel() > 1]
    names = sorted(name for name in matrices if name.startswith(_BEFORE))
    chosen = [tensors[names[i]].flatten() for i in np.linspace(0, len(names) - 1, _COUNT, dtype=int)]
    weights = [float(f"{float(tensor[len(tensor) // 2]):.5g}") for tensor in chosen]
    return {"levels": [int(level) for level in config.quantization_levels], "weights": weights}


def require_codes_of(folders: list[Path], codec: str) -> None:
    """Refuses codes of another codec, in folders where `llasa data encode` recorded the codec.

    Raises:
        LlasaError: a folder holds codes of another codec.
    """
    found: dict[str, Any] = {}
    for folder in folders:
        path = folder / JOB
        try:
            made = parse_json(read_text(path))["codes"] if exists(path) else None
        except KeyError:  # written by an older version, which did not record it
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
