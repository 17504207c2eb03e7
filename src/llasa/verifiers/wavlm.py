"""Scores speaker similarity to the reference with WavLM (arXiv 2110.13900), through transformers.

It is WavLM with an x-vector head, 100 M parameters. By its authors' threshold, two recordings are of one speaker if
their cosine is 0.86 or more.
"""

import numpy as np

from llasa.errors import LlasaError, first_line
from llasa.models.defaults import check_device
from llasa.verifiers.downloads import load_pretrained
from llasa.verifiers.likeness import Likeness
from llasa.verifiers.protocol import RATE

DEFAULT = "microsoft/wavlm-base-plus-sv"


def load(model: str | None = None, device: str = "cpu") -> Likeness:
    """Loads the verifier from a folder or hub id with a `WavLMForXVector`.

    Raises:
        LlasaError: there is no such model, the hub cannot be reached, or it is another kind of model.
    """
    import torch
    from transformers import AutoFeatureExtractor

    name = model or DEFAULT
    folder, network = load_pretrained(name, "wavlm", "WavLMForXVector")
    try:
        extractor = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise LlasaError(
            f"{name} has no readable preprocessor_config.json ({first_line(error)}): fetch or copy it again"
        ) from error
    network.to(check_device(device))

    @torch.inference_mode()
    def embed(audios: np.ndarray) -> np.ndarray:
        # All are of one length, so no attention mask is needed.
        values = extractor(list(audios), sampling_rate=RATE, return_tensors="pt").input_values
        return network(values.to(network.device)).embeddings.cpu().numpy()

    return Likeness("wavlm" if model is None else f"wavlm:{model}", embed)
