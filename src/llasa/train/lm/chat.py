"""Reads conversations in plain text. Mixed into the training, they let a model keep the abilities of its base.

A row of a source has `messages`, each with a `role` and a `content`. The tokenizer's chat template turns them into
tokens.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from llasa.errors import LlasaError
from llasa.files import is_file
from llasa.layout import read_layout

# Llama 3's template writes today's date into every conversation; a run resumed tomorrow must read the same tokens.
DATE = "26 Jul 2024"


def open_chat(source: str) -> Any:
    """Opens the conversations of a JSONL file or of a data set on the hub, as a `datasets.Dataset` mapped from disk.

    All conversations are checked at once, because the training may reach a wrong one only after days.

    Args:
        source: a file with one `{"messages": [...]}` a line, or a name that `datasets.load_dataset` takes; `:SPLIT`
            after it names a split other than `train`.

    Raises:
        LlasaError: the source cannot be read or is empty, or a conversation has no assistant's turn to learn from.
    """
    import datasets

    name, _, split = source.partition(":")
    datasets.disable_progress_bars()
    try:
        if is_file(source):
            found = datasets.load_dataset("json", data_files=source, split="train")
        else:
            found = datasets.load_dataset(name, split=split or "train")
    except Exception as error:  # datasets, pyarrow and the hub raise errors of many classes
        reason = str(error.__cause__ or error).splitlines() or [type(error).__name__]
        raise LlasaError(
            f"cannot read the conversations of {source} ({reason[0]}): "
            'pass a JSONL file of {"messages": [...]} or the id of a data set'
        ) from error
    if "messages" not in found.column_names or not len(found):
        raise LlasaError(f"{source} has no conversations: each row needs `messages` with `role` and `content`")
    row = 0
    for batch in found.select_columns("messages").iter(batch_size=1000):
        for messages in batch["messages"]:
            row += 1
            if problem := _problem(messages):
                raise LlasaError(f"{source}, row {row}: {problem}: remove it")
    return found


def _problem(messages: Any) -> str:
    """Why a model cannot learn from a conversation; empty if it can."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return "its `messages` are not a list of `role` and `content`"
    if not all(isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in messages):
        return "a message without `role` and `content`"
    return "" if any(m["role"] == "assistant" for m in messages) else "a conversation without an assistant's turn"


def conversation(messages: Sequence[dict[str, Any]], tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of a conversation of `open_chat`, in the tokenizer's chat template, up to the last assistant's turn.

    Returns:
        ids: (T,) int64.
        targets: (T,) bool: the assistant's words and the token that ends each of its turns.

    Raises:
        LlasaError: the template cannot be used, or changes earlier turns when later ones follow.
    """
    read_layout(tokenizer)  # which refuses a program without end, before it runs here

    def ids(part: Sequence[dict[str, Any]], opened: bool) -> list[int]:
        turns = [{"role": message["role"], "content": message["content"]} for message in part]
        return tokenizer.apply_chat_template(
            turns, tokenize=True, return_dict=False, add_generation_prompt=opened, date_string=DATE
        )

    whole: list[int] = []
    spans = []
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            before, after = ids(messages[:i], True), ids(messages[: i + 1], False)
            if after[: len(before)] != before or before[: len(whole)] != whole:
                raise LlasaError("this model's chat template rewrites earlier turns: leave `data.chat` out")
            whole = after
            spans.append((len(before), len(after)))
    targets = np.zeros(len(whole), dtype=bool)
    for start, end in spans:
        targets[start:end] = True
    return np.array(whole), targets
