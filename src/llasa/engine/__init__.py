"""Token sequences in, token sequences out: `start`, `extend`, `select`.

Knows a Llama's weights, its KV cache and sampling; knows nothing of text, codecs or audio.
"""

from llasa.engine.engine import Engine
from llasa.engine.llama import Checkpoint
from llasa.engine.sampling import Sampling
from llasa.engine.state import Row, State

__all__ = ["Checkpoint", "Engine", "Row", "Sampling", "State"]
