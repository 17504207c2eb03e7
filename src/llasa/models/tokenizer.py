"""Reads a model's tokenizer for speaking. Where nothing but `tokenizer.json` matters, transformers is not imported.

Importing transformers takes as long as importing torch.
"""

from pathlib import Path
from typing import Any

from llasa.errors import LlasaError, first_line
from llasa.files import exists, read_text
from llasa.models.folder import check_tokenizer, load_tokenizer, read_json

# Classes of transformers that add nothing to what tokenizer.json says.
PLAIN = ("TokenizersBackend", "PreTrainedTokenizerFast")
MARKS = ("bos_token", "eos_token", "unk_token", "pad_token")


class Tokenizer:
    """What speaking needs of a transformers tokenizer, under the same names."""

    def __init__(self, folder: Path, template: str, marks: dict[str, str]) -> None:
        import tokenizers

        self.name_or_path, self._template, self.special_tokens_map = str(folder), template, marks
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    @property
    def unk_token_id(self) -> int | None:
        """The id of the token for what is unknown, if there is one."""
        unknown = self.special_tokens_map.get("unk_token")
        return None if unknown is None else self._tokenizer.token_to_id(unknown)

    @property
    def backend_tokenizer(self) -> Any:
        """The tokenizer of the `tokenizers` library."""
        return self._tokenizer

    def get_chat_template(self) -> str:
        """The template of a conversation."""
        return self._template

    def get_vocab(self) -> dict[str, int]:
        """The id of each token."""
        return self._tokenizer.get_vocab()

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        """The ids of a text's tokens, as `input_ids`."""
        return {"input_ids": self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder: a `Tokenizer`, or that of transformers if it has more to say.

    Raises:
        LlasaError: it is missing or damaged.
    """
    check_tokenizer(folder)
    if not exists(folder / "tokenizer_config.json"):
        return load_tokenizer(folder)
    config = read_json(folder / "tokenizer_config.json")
    file = folder / "chat_template.jinja"
    template = read_text(file) if exists(file) else config.get("chat_template")
    marks = {name: config[name] for name in MARKS if config.get(name) is not None}
    plain = config.get("tokenizer_class") in PLAIN and isinstance(template, str) and "bos_token" in marks
    if not plain or not all(isinstance(mark, str) for mark in marks.values()):
        return load_tokenizer(folder)
    try:
        return Tokenizer(folder, str(template), marks)
    except Exception as error:  # tokenizers raises bare Exception on a damaged file
        raise LlasaError(f"the tokenizer in {folder} cannot be loaded ({first_line(error)}): copy it again") from error
