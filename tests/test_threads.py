"""The number of threads that a small model takes, and a process that forks after it has spoken."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from llasa.engine.llama import forward
from llasa.threads import at_most
from llasa.tts import Llasa

# Two threads multiply, so that OpenMP has a team; the fork, where it is missing, speaks and searches.
FORK = """
import os, torch
from llasa import Llasa
torch.set_num_threads(2)
torch.randn(1000, 1000) @ torch.randn(1000, 1000)
model = Llasa.load("tiny", device="cpu")
text = "It was late, and nobody spoke."
said = model.say(text, seed=1)
child = os.fork()
if not child:
    again = model.say(text, seed=1)
    voice = model.clone(said.samples, text, rate=16000)
    model.say("Yes.", voice, best_of=2)
    os._exit(0 if (again.codes == said.codes).all() else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


# Two threads that load a verifier at once, which is when most of transformers is imported.
LOAD = """
import threading
from concurrent.futures import ThreadPoolExecutor
from llasa.verifiers import load_verifier
both = threading.Barrier(2)
def load(_):
    both.wait()
    return load_verifier("content")
with ThreadPoolExecutor(2) as pool:
    list(pool.map(load, range(2)))
"""


@pytest.fixture
def three() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("count", "inside"), [(1, 1), (2, 2), (5, 3), (None, 3)])
def test_a_limit_holds_inside_only_and_never_adds_threads(three: None, count: int | None, inside: int) -> None:
    with at_most(count):
        assert torch.get_num_threads() == inside
    assert torch.get_num_threads() == 3


def test_the_embedded_model_speaks_on_one_thread(three: None, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []

    def watched(*given: Any) -> torch.Tensor:
        used.append(torch.get_num_threads())
        return forward(*given)

    monkeypatch.setattr("llasa.engine.torch_engine.forward", watched)
    Llasa.load("tiny", device="cpu").say("Yes.", seed=1)
    assert set(used) == {1}


def test_a_forked_process_speaks() -> None:
    subprocess.run([sys.executable, "-c", FORK], check=True, timeout=200)


def test_two_threads_load_a_verifier_at_once() -> None:
    subprocess.run([sys.executable, "-c", LOAD], check=True, timeout=200)
