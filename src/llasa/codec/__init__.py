"""Waveform to codes and back: transformers' `Xcodec2Model`, and `HarmonicCodec`, whose decoder shapes pulses and noise.

Knows sound and codes; knows nothing of text, of language models, or of how a codec is trained. `Codec.load` gives what
encodes and decodes; its `decode_stream()` is fed codes as they come; `save_codes` and `load_codes` are the file format
of codes.
"""

from llasa.codec.codec import Codec
from llasa.codec.files import load_codes, save_codes

__all__ = ["Codec", "load_codes", "save_codes"]
