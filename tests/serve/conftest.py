"""A small model to serve, and clients that listen."""

import queue
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from serve.server import served
from small_models import make_lm_folder

from llasa.models.folder import load_tokenizer
from llasa.serve.app import Settings
from llasa.serve.scheduler import Scheduler
from llasa.serve.streams import Sound, Stream
from llasa.speak.request import Request
from llasa.tts import Llasa
from llasa.vocabulary import read_vocabulary

SHORT = {"max_seconds": 1.0}


@pytest.fixture(scope="session")
def endless_folder(codec_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose takes end only at their limit, since the end token is never among the likeliest."""
    folder = make_lm_folder(tmp_path_factory.mktemp("served") / "lm", codec_folder)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][read_vocabulary(load_tokenizer(folder)).end] = 0
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "generation_config.json").write_text('{"temperature": 1.0, "top_k": 5}')
    return folder


@pytest.fixture(scope="session")
def small(endless_folder: Path) -> Llasa:
    return Llasa.load(endless_folder, device="cpu", dtype="float32")


@pytest.fixture
def scheduler(small: Llasa) -> Iterator[Scheduler]:
    made = Scheduler(small.backend, small.codec, most=16)
    yield made
    made.close()


class Listener:
    """Listens to a stream to its end."""

    def __init__(self, scheduler: Scheduler, request: Request, client: str = "somebody") -> None:
        self.scheduler = scheduler
        self.sounds: queue.Queue[Sound] = queue.Queue()
        self.stream: Stream = scheduler.stream(request, client, self.sounds.put)

    def next(self) -> Sound:
        sound = self.sounds.get(timeout=60)
        if isinstance(sound, np.ndarray):
            self.scheduler.taken(self.stream, len(sound) / self.stream.rate)
        return sound

    def rest(self) -> np.ndarray:
        """All sound to the end."""
        pieces = []
        while isinstance(sound := self.next(), np.ndarray):
            pieces.append(sound)
        if sound is not None:
            raise sound
        return np.concatenate([np.empty(0, np.float32), *pieces])


@pytest.fixture(scope="session")
def tiny() -> Llasa:
    """The embedded voice."""
    return Llasa.load(device="cpu")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where uploaded voices are kept."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLASA_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def address(tiny: Llasa, home: Path) -> Iterator[str]:
    """The address of a server with the embedded voice, for all tests."""
    with served(tiny, Settings()) as found:
        yield found
