"""`HarmonicCodec` as a transformers model, for `AutoModel` and the hub. An exported codec's folder holds this file."""

from dataclasses import asdict
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from .harmonic import Decoder, Encoder, HarmonicCodec, HarmonicCodecConfig, HarmonicParts, Quantiser


class HarmonicConfig(PreTrainedConfig):
    """The sizes of `HarmonicCodecConfig`."""

    model_type = HarmonicCodec.MODEL_TYPE

    def __init__(self, **values: Any) -> None:
        for name, default in asdict(HarmonicCodecConfig()).items():
            setattr(self, name, values.pop(name, default))
        super().__init__(**values)


class HarmonicModel(HarmonicParts, PreTrainedModel):
    """The codec, with the same weights under the same names."""

    config_class = HarmonicConfig
    main_input_name = "samples"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quantizer = Quantiser(config.quantization_levels)
        self.post_init()
