"""Waveform to codes and back, around transformers' `Xcodec2Model`.

Knows sound and codes; knows nothing of text, of language models, or of how a codec is trained. `Codec` loads, encodes
and decodes; its `decode_stream()` gives a `StreamDecoder`, fed codes as they come; `save_codes` and `load_codes` are
the file format of codes.
"""

from llasa.codec.codec import Codec
from llasa.codec.files import load_codes, save_codes
from llasa.codec.stream import StreamDecoder

__all__ = ["Codec", "StreamDecoder", "load_codes", "save_codes"]
