"""The recipe of the language model's tests, over the same small corpus."""

from train.conftest import recipe  # noqa: F401
