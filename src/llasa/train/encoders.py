"""Pretrained speech models that a codec's training listens with, frozen: the semantic encoder, the perceptual loss."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoModel, PreTrainedModel

from llasa.errors import LlasaError
from llasa.loading import HUB_ID, fetch, first_line, hush_transformers, read_json


def load_encoder(name: str, layers: int, kind: str | None = None, more: int = 0) -> PreTrainedModel:
    """The first layers of a speech model, in float32, for evaluation; its weights don't learn.

    Args:
        name: a folder, or a hub id, which is downloaded on first use.
        kind: its `model_type` in transformers; any by default.
        more: so many further layers where there are any.

    Raises:
        LlasaError: there is none of that name, it is of another kind, has fewer layers, or cannot be loaded.
    """
    folder = Path(name)
    if not folder.is_dir():
        if not HUB_ID.fullmatch(name):
            raise LlasaError(f"there is no folder {name}: pass a speech model's folder or hub id")
        folder = fetch(name, ["config.json", "*.safetensors", "*.safetensors.index.json"])
        if not any(folder.glob("*.safetensors")):
            folder = fetch(name, ["config.json", "pytorch_model*.bin*"])
    found = read_json(folder / "config.json")
    if kind not in (None, found.get("model_type")):
        raise LlasaError(f"{name} is a model of type {found.get('model_type')!r}, not {kind!r}")
    most = int(found.get("num_hidden_layers", 0))
    if layers > most:
        raise LlasaError(f"{name} has {most} layers, and the recipe asks for {layers}")
    hush_transformers()
    load: Any = AutoModel.from_pretrained
    try:
        model, report = load(
            folder, num_hidden_layers=min(layers + more, most), dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # whatever a missing or damaged file makes torch, safetensors or transformers raise
        raise LlasaError(f"the speech model {name} cannot be loaded ({first_line(error)}): copy it again") from error
    # What masks its input in its own training isn't used here.
    if missing := sorted(set(report["missing_keys"]) - {"masked_spec_embed"}):
        raise LlasaError(f"the speech model {name} lacks {missing[0]} ({len(missing)} tensors): copy it again")
    return model.eval().requires_grad_(False)


class Listener:
    """The perceptual loss: what a frozen speech model makes of a copy, against what it makes of the recording.

    As in X-codec2's training code, after Parker et al. 2024: the mean over some layers of the mean squared difference
    of their outputs, the waveform going in as it is.
    """

    def __init__(self, name: str, first: int, last: int, device: torch.device) -> None:
        """
        Args:
            first, last: the layers, counted from 1, both included.

        Raises:
            LlasaError: as `load_encoder`.
        """
        # One layer more: some models normalise what the last one puts out.
        model: Any = load_encoder(name, last, more=1)
        self.model = model.to(device)
        self.first, self.last = first, last

    def __call__(self, made: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """(B, T) each, 16 kHz, to the loss; its gradient goes to `made`."""
        with torch.no_grad():
            wanted = self._layers(real)
        distances = [F.mse_loss(ours, theirs) for ours, theirs in zip(self._layers(made), wanted, strict=True)]
        return torch.stack(distances).mean()

    def _layers(self, wave: torch.Tensor) -> list[torch.Tensor]:
        with torch.autocast(wave.device.type, torch.bfloat16):
            states = self.model(wave, output_hidden_states=True).hidden_states
        return [state.float() for state in states[self.first : self.last + 1]]
