"""Text-to-speech with a plain Llama and a single-codebook codec (Llasa, arXiv 2502.04128)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llasa.tts import Llasa
    from llasa.voice import Voice

__version__ = "0.1.0"
__all__ = ["Llasa", "Voice", "__version__"]


def __getattr__(name: str) -> Any:
    """`Llasa` and `Voice` on first use: importing torch takes seconds that `llasa --help` has no use for."""
    if name == "Llasa":
        from llasa.tts import Llasa

        return Llasa
    if name == "Voice":
        from llasa.voice import Voice

        return Voice
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
