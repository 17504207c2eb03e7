"""Text-to-speech with a plain Llama and a single-codebook codec (Llasa, arXiv 2502.04128)."""

__version__ = "0.1.0"
