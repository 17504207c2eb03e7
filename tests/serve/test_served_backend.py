"""llama.cpp behind the scheduler: streams come and go, and a search runs beside them."""

from pathlib import Path

import numpy as np
import pytest
from served import SHORT, Listener

from llasa.serve.beside import Beside
from llasa.serve.scheduler import Scheduler
from llasa.tts import Llasa

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: run make test-llamacpp")

TEXT = "Hello there. It is late now, and nobody in the house has said a word."


def test_llamacpp_speaks_to_many(endless_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLASA_HOME", str(tmp_path))
    model = Llasa.load(endless_folder, backend="llamacpp", dtype="float32")
    scheduler = Scheduler(model.backend, model.codec, most=16)
    try:
        listeners = [Listener(scheduler, model.request(TEXT, None, seed, SHORT), f"{seed}") for seed in range(5)]
        listeners[0].next()
        scheduler.cancel(listeners[0].stream)
        beside = Llasa(model.folder, model.vocabulary, model.codec, Beside(model.backend, scheduler.call))
        found = beside.say(TEXT, seed=3, best_of=2, verify=lambda batch: [len(a) for a in batch.audios], **SHORT)
        assert found.seconds > 1
        for listener in listeners[1:]:
            assert np.abs(listener.rest()).max() > 0
            assert listener.stream.made > 1
    finally:
        scheduler.close()
