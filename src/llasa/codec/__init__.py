"""Sound to codes and back, with transformers' `Xcodec2Model` or with `HarmonicCodec`, whose decoder shapes pulses and
noise.

`load_codec` returns a `Codec`, which encodes and decodes; its `decode_stream()` takes codes as they come. `save_codes`
and `load_codes` write and read files of codes. Training is in `llasa.train.codec`.
"""

from llasa.codec.code_files import load_codes, load_length, save_codes
from llasa.codec.codec import Codec
from llasa.codec.load import load_codec

__all__ = ["Codec", "load_codec", "load_codes", "load_length", "save_codes"]
