"""Shared fixtures: small random model folders and speech-like audio, made once a run.

Models are imported by the fixtures, since the process that hands out the tests reads this file too and needs none.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from warm import warm

# Else Ray's processes wait for all others, such as the tests beside them.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
# Else it starts a worker for each processor at once, of which the tests need two.
os.environ["RAY_prestart_worker_first_driver"] = "false"  # noqa: SIM112

# The files that take longest. A process runs whole files, so these start first and the short ones fill up the end.
LONGEST = (
    "test_docs.py", "train/test_pipeline.py", "studies/test_training.py", "benchmarks/test_bars.py",
    "search/test_search.py", "train/codec/test_run.py", "train/lm/test_shards.py", "recipes/test_gpu_recogniser.py",
    "commands/test_say_search.py", "recipes/test_gpu_codec.py", "train/lm/test_processes.py", "data/test_cluster.py",
    "serve/test_page.py", "serve/test_openai_routes.py", "commands/test_serve_verb.py", "serve/test_scheduler.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    ranks = {here / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(scope="session")
def codec_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from small_models import make_codec_folder

    return make_codec_folder(tmp_path_factory.mktemp("models") / "codec")


@pytest.fixture(scope="session")
def lm_folder(codec_folder: Path) -> Path:
    """A model folder whose config names its codec by a relative path."""
    from small_models import make_lm_folder

    return make_lm_folder(codec_folder.parent / "lm", "../codec")


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The beginning of a command that runs Python code without waiting for imports; see `warm`."""
    with warm(tmp_path_factory.mktemp("bin"), dict(os.environ)) as command:
        yield command


@pytest.fixture(scope="session")
def listening_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that recognises three phrases; see `listening.PHRASES`."""
    from listening import make_listening_folder

    return make_listening_folder(tmp_path_factory.mktemp("listening") / "lm")


@pytest.fixture
def voiced() -> np.ndarray:
    """Three seconds at 16 kHz of a gliding harmonic tone with pauses: enough like speech for codecs and measures."""
    rng = np.random.default_rng(0)
    time = np.arange(48000) / 16000
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 1.5 * time)) / 16000
    tone = sum(np.sin(k * phase) / k for k in range(1, 20))
    gate = (np.sin(2 * np.pi * 2 * time) > -0.5).astype(float)
    return (0.1 * gate * tone + 0.002 * rng.normal(size=time.size)).astype(np.float32)
