"""Transcribes Chinese with Paraformer (arXiv 2206.08317) through funasr, as Seed-TTS-Eval does.

A model's folder has funasr's layout: `config.yaml`, `configuration.json`, `model.pt`, `tokens.json`.
"""

import io
from contextlib import redirect_stdout

import numpy as np

from llasa.errors import LlasaError, first_line, need_extra
from llasa.files import is_folder
from llasa.verifiers.protocol import RATE

DEFAULT = "paraformer-zh"  # funasr's own name, which it fetches from ModelScope
SHORTEST = 0.1  # seconds


class Paraformer:
    """A recogniser of Chinese.

    Args:
        model: a folder, or a name that funasr knows.

    Raises:
        LlasaError: funasr is missing, or the model cannot be loaded.
    """

    def __init__(self, model: str | None = None) -> None:
        need_extra("emotion", "funasr")
        import torch

        name = model or DEFAULT
        try:
            # funasr prints notices and seeds every random generator, which must have no effects here.
            with redirect_stdout(io.StringIO()), torch.random.fork_rng():
                from funasr import AutoModel

                self._model = AutoModel(
                    model=name, ncpu=torch.get_num_threads(), disable_update=True, disable_pbar=True, log_level="ERROR",
                    **({} if torch.cuda.is_available() else {"device": "cpu"}),
                )  # fmt: skip
        except Exception as error:  # its libraries raise anything
            advice = "copy it again" if is_folder(name) else "pass a folder with the model"
            raise LlasaError(f"the model {name} cannot be loaded ({first_line(error)}): {advice}") from error

    def transcribe(self, samples: np.ndarray) -> str:
        """The transcript of a sound (N,) at 16 kHz, in simplified or traditional characters; empty for silence."""
        if len(samples) < SHORTEST * RATE or not samples.any():
            return ""
        with redirect_stdout(io.StringIO()):
            found = self._model.generate(input=samples.astype(np.float32), batch_size_s=300)
        return str(found[0]["text"]) if found else ""
