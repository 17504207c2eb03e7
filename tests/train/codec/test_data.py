"""Batches of crops: the same ones whatever came before, shared out among processes, and damaged corpora."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from data.corpora import tone
from train.codec_recipes import make_corpus, recording

from llasa.codec.features import HOP, mel_features
from llasa.data.shards import AUDIO_SCHEMA, CODES_SCHEMA, write_shard
from llasa.errors import LlasaError
from llasa.train.codec.data import Batch, Crops

SHAPES = [[20, 4], [20, 4], [40, 2]]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_corpus(tmp_path_factory.mktemp("corpus")) / "train")


def same(a: Batch, b: Batch) -> bool:
    return torch.equal(a.wave, b.wave) and torch.equal(a.features, b.features) and a.places == b.places


def test_shapes_take_turns(corpus: str) -> None:
    batches = list(islice(Crops([corpus], SHAPES, 0).batches(0), 6))
    assert [batch.wave.shape for batch in batches] == [(c, 1, f * HOP) for f, c in SHAPES * 2]
    assert [batch.features.shape for batch in batches] == [(c, f, 160) for f, c in SHAPES * 2]


@pytest.mark.parametrize("readers", [0, 3])
def test_after_any_step_the_batches_go_on_as_they_would_have(corpus: str, readers: int) -> None:
    """Through several blocks: the corpus has 13 recordings, 4 of them long enough for the longer crops."""
    batches = list(islice(Crops([corpus], SHAPES, 0).batches(0), 15))
    assert batches[-1].places["20x4"][0] >= 3
    assert batches[-1].places["40x2"][0] >= 1
    for step in range(1, 14):
        again = Crops([corpus], SHAPES, 0, readers).batches(step, batches[step - 1].places)
        assert all(same(a, b) for a, b in zip(islice(again, 2), batches[step : step + 2], strict=False))


def test_processes_share_a_batch(corpus: str) -> None:
    together = list(islice(Crops([corpus], SHAPES, 0).batches(0), 4))
    parts = [list(islice(Crops([corpus], SHAPES, 0).batches(0, None, p, 2), 4)) for p in (0, 1)]
    for batch, *halves in zip(together, *parts, strict=True):
        for p, half in enumerate(halves):
            assert torch.equal(half.wave, batch.wave[p::2])
            assert half.places == batch.places


def test_a_round_takes_every_recording_once_and_another_seed_another_order(corpus: str) -> None:
    first, second, other = (
        torch.cat([batch.wave for batch in islice(Crops([corpus], [[20, 13]], seed).batches(0), 2)])
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert len({tuple(wave[0, :50].tolist()) for wave in first[:13]}) == 13
    assert not torch.equal(first[:13], first[13:])


def test_a_crop_is_of_its_recording_with_the_features_of_the_whole(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.parquet", [recording(1, 1.0)], AUDIO_SCHEMA)
    sound = (np.round(tone(1.0, 1) * 32768) / 32768).astype(np.float32)  # as FLAC keeps it
    features, _ = mel_features(torch.from_numpy(sound))
    for batch in islice(Crops([str(tmp_path)], [[30, 1]], 0).batches(0), 5):
        starts = [s for s in range(21) if np.allclose(batch.wave[0, 0], sound[s * HOP : (s + 30) * HOP], atol=1e-4)]
        assert len(starts) == 1
        assert torch.allclose(batch.features[0], features[0, starts[0] : starts[0] + 30], atol=0.05)


def test_fewer_recordings_than_crops_are_taken_several_times(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.parquet", [recording(i, 0.6) for i in range(2)], AUDIO_SCHEMA)
    assert next(Crops([str(tmp_path)], [[20, 5]], 0).batches(0)).wave.shape == (5, 1, 20 * HOP)


def test_damaged_or_silent_corpora_say_so(tmp_path: Path) -> None:
    row = recording(1, 1.0)
    cases = {
        "broken": [row | {"audio": row["audio"][:20]}],
        "short": [recording(1, 0.2)],
    }
    for name, rows in cases.items():
        (tmp_path / name).mkdir()
        write_shard(tmp_path / name / "0.parquet", rows, AUDIO_SCHEMA)
    (tmp_path / "codes").mkdir()
    coded = {key: value for key, value in row.items() if key != "audio"} | {"codes": np.zeros(9, dtype=np.uint16)}
    write_shard(tmp_path / "codes/0.parquet", [coded], CODES_SCHEMA)
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut/0.parquet").write_bytes((tmp_path / "codes/0.parquet").read_bytes()[:-40])
    said = {
        "broken": "the audio of 1 in the corpus is damaged",
        "short": "no recording in the corpus lasts the 0.40 s",
        "codes": "has codes instead of audio",
        "cut": "is not a whole Parquet shard",
    }
    for name, words in said.items():
        for readers in (0, 2):
            with pytest.raises(LlasaError, match=words):
                next(Crops([str(tmp_path / name)], [[20, 2]], 0, readers).batches(0))
    assert issubclass(soundfile.LibsndfileError, soundfile.SoundFileError)
