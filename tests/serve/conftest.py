"""Models to serve, and a server for all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from served import served
from small_models import make_lm_folder

from llasa.models.folder import load_tokenizer
from llasa.serve.app import Settings
from llasa.serve.scheduler import Scheduler
from llasa.tts import Llasa
from llasa.vocabulary import read_vocabulary


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
