"""Loads frozen pretrained speech models for training a codec: the semantic encoder, and one for the perceptual loss."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoModel, PreTrainedModel

from llasa.errors import LlasaError, first_line
from llasa.files import is_folder
from llasa.models.defaults import half_precision
from llasa.models.folder import hush_transformers, read_json
from llasa.models.hub import HUB_ID, fetch


def load_encoder(name: str, layers: int, kind: str | None = None, more: int = 0) -> PreTrainedModel:
    """Loads the first layers of a speech model in float32, frozen and in evaluation mode.

    Args:
        name: a folder, or a hub id, which is downloaded on first use.
        layers: how many layers it must have.
        kind: its `model_type` in transformers; by default any.
        more: how many further layers to load, if there are any.

    Raises:
        LlasaError: there is no such model, it is of another kind, has fewer layers, or cannot be loaded.
    """
    folder = Path(name)
    if not is_folder(folder):
        if not HUB_ID.fullmatch(name):
            raise LlasaError(f"there is no folder {name}: pass a speech model's folder or hub id")
        folder = fetch(name, ["config.json", "*.safetensors", "*.safetensors.index.json"])
        if not any(folder.glob("*.safetensors")):
            folder = fetch(name, ["config.json", "pytorch_model*.bin*"])
    found = read_json(folder / "config.json")
    if kind not in (None, found.get("model_type")):
        raise LlasaError(f"{name} holds a model of type {found.get('model_type')!r}, not {kind!r}: pass another model")
    most = int(found.get("num_hidden_layers", 0))
    if layers > most:
        raise LlasaError(f"{name} has {most} layers and the recipe asks for {layers}: lower it, or name another model")
    hush_transformers()
    load: Any = AutoModel.from_pretrained
    try:
        model, report = load(
            folder, num_hidden_layers=min(layers + more, most), dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # a missing or damaged file may make torch, safetensors or transformers raise anything
        raise LlasaError(f"the speech model {name} cannot be loaded ({first_line(error)}): copy it again") from error
    # This tensor masks the input in pretraining and is not used here.
    if missing := sorted(set(report["missing_keys"]) - {"masked_spec_embed"}):
        raise LlasaError(f"the speech model {name} lacks {missing[0]} ({len(missing)} tensors): copy it again")
    return model.eval().requires_grad_(False)


class Listener:
    """The perceptual loss: compares a frozen speech model's features of the generated audio with the recording's.

    As in X-codec2's training code, after Parker et al. 2024: the mean squared difference of the outputs of some layers,
    averaged over the layers. The waveform goes in as it is.
    """

    def __init__(self, name: str, first: int, last: int, device: torch.device) -> None:
        """
        Args:
            first, last: the range of layers, counted from 1, both included.

        Raises:
            LlasaError: as `load_encoder`.
        """
        # One layer more, because some models normalise the output of the last one.
        model: Any = load_encoder(name, last, more=1)
        self.model = model.to(device)
        self.first, self.last = first, last

    def __call__(self, made: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """The loss of waveforms (B, T) at 16 kHz; its gradient goes to `made`."""
        with torch.no_grad():
            wanted = self._layers(real)
        distances = [F.mse_loss(ours, theirs) for ours, theirs in zip(self._layers(made), wanted, strict=True)]
        return torch.stack(distances).mean()

    def _layers(self, wave: torch.Tensor) -> list[torch.Tensor]:
        with half_precision(wave.device.type):
            states = self.model(wave, output_hidden_states=True).hidden_states
        return [state.float() for state in states[self.first : self.last + 1]]
