"""Generates token sequences with a Llama, by four verbs: `start`, `extend`, `select`, `merge` (backend.py).

Text, codecs and audio are handled elsewhere; here tokens are plain numbers.
"""

from llasa.engine.backend import BACKENDS, Backend, State, backend_of, check_backend, fastest_backend, open_backend
from llasa.engine.sampling import Sampling

__all__ = [
    "BACKENDS", "Backend", "Sampling", "State", "backend_of", "check_backend", "fastest_backend", "open_backend"
]  # fmt: skip
