"""How a tokenizer's chat template lays out a user's and an assistant's message.

A template is a program from the model's folder, which may loop, or make a text that fills the memory. So it runs once,
on two sample messages, in a process of its own that has little memory and little time (`llasa.rendering`). Prompts are
then put together from what surrounds the messages.
"""

import json
import subprocess
import sys
from datetime import date
from functools import lru_cache
from typing import Any, NamedTuple

from llasa.errors import LlasaError, first_line
from llasa.rendering import PATIENCE

# The embedded model's template and that of all models made by this package: the messages, one after the other.
PLAIN = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
# Both occur nowhere else, and no template has a reason to change them.
_USER, _ASSISTANT = "What-the-user-says-0123456789", "What-the-assistant-says-0123456789"


class Layout(NamedTuple):
    """The text before the user's message, between both, and after the assistant's."""

    before: str
    between: str
    after: str


def read_layout(tokenizer: Any) -> Layout:
    """The layout of a transformers tokenizer's template, today's date in it, if it has one.

    Raises:
        LlasaError: the tokenizer has no template, or one that cannot be used: it is invalid, takes too much time or
            memory, or does not give each message back once, as it is.
    """
    try:
        template, marks = tokenizer.get_chat_template(), tokenizer.special_tokens_map
        if template == PLAIN:
            return Layout(str(marks["bos_token"]), "", "")
        return _laid_out(template, json.dumps(marks, default=str), date.today())
    except (ValueError, TypeError, KeyError) as error:
        raise LlasaError(
            f"the chat template in {tokenizer.name_or_path} cannot be used ({first_line(error)}): copy "
            "chat_template.jinja or tokenizer_config.json of the model again"
        ) from error


@lru_cache(maxsize=16)
def _laid_out(template: str, marks: str, today: date) -> Layout:
    """The layout of a template, given the special tokens by name in JSON. It is kept for the day.

    Raises:
        ValueError: the template cannot be used.
    """
    messages = [{"role": "user", "content": _USER}, {"role": "assistant", "content": _ASSISTANT}]
    others = {"tools": None, "documents": None, "add_generation_prompt": False}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "llasa.rendering"],
            input=json.dumps([template, {**json.loads(marks), **others, "messages": messages}]).encode(),
            capture_output=True,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError("it takes too long") from error
    told = done.stdout.decode(errors="replace")
    if done.returncode or not told:
        raise ValueError("it takes too much time or memory")
    if told[0] == "-":
        raise ValueError(told[1:])
    before, user, rest = told[1:].partition(_USER)
    between, assistant, after = rest.partition(_ASSISTANT)
    if not user or not assistant or _USER in rest or _ASSISTANT in after or _ASSISTANT in before:
        raise ValueError("it does not give each message back once, as it is")
    return Layout(before, between, after)
