"""Who speaks: WavLM's speaker verification (arXiv 2110.13900) through transformers, against the reference.

The x-vector head over WavLM, 100 M parameters, whose cosine is 0.86 and more for one speaker by its authors' threshold.
"""

import numpy as np

from llasa.errors import LlasaError
from llasa.loading import check_device, first_line
from llasa.verifiers.likeness import Likeness
from llasa.verifiers.protocol import RATE
from llasa.verifiers.weights import load_pretrained

DEFAULT = "microsoft/wavlm-base-plus-sv"


def load(model: str | None = None, device: str = "cpu") -> Likeness:
    """The verifier, from a folder or hub id with a `WavLMForXVector`.

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
        raise LlasaError(f"{name} has no preprocessor_config.json that can be read ({first_line(error)})") from error
    network.to(check_device(device))

    @torch.inference_mode()
    def embed(audios: np.ndarray) -> np.ndarray:
        # All are of one length, so that no attention mask is needed.
        heard = extractor(list(audios), sampling_rate=RATE, return_tensors="pt").input_values
        return network(heard.to(network.device)).embeddings.cpu().numpy()

    return Likeness("wavlm" if model is None else f"wavlm:{model}", embed)
