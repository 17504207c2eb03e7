from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from small_models import make_harmonic_codec, make_lm_folder
from transformers import AutoModel

from llasa.codec import Codec, load_codec
from llasa.codec import codec as codec_module
from llasa.codec.convert import convert, find
from llasa.codec.harmonic_codec import Harmonic
from llasa.data.origin import codes_of
from llasa.data.teachers.flite import Speaker, speak
from llasa.errors import LlasaError
from llasa.export import export
from llasa.measure.metrics import pitch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("codec")
    make_harmonic_codec().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def codec(folder: Path) -> Codec:
    return load_codec(folder)


def codes_for(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 64, count)


def signal_to_noise(wanted: np.ndarray, found: np.ndarray) -> float:
    assert wanted.shape == found.shape
    return float(10 * np.log10(np.square(wanted).sum() / max(np.square(wanted - found).sum(), 1e-20)))


def test_the_folder_says_what_kind_it_is(codec: Codec, folder: Path) -> None:
    assert isinstance(codec, Harmonic)
    assert (codec.rate, codec.hop, codec.codebook_size) == (16000, 320, 64)
    assert codes_of(folder)["levels"] == [4, 4, 4]


def test_every_sample_has_a_code(codec: Codec, voiced: np.ndarray) -> None:
    for extra in (0, 1, 319):
        codes = codec.encode(voiced[: 320 * 20 + extra])
        assert len(codes) == 20 + (extra > 0)
        assert codec.decode(codes).shape == (len(codes) * 320,)


def test_codes_vary_with_the_sound(codec: Codec, voiced: np.ndarray) -> None:
    assert len(set(codec.encode(voiced).tolist())) > 5


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 70), min_size=1, max_size=8))
def test_a_stream_says_what_the_whole_says(pushes: list[int]) -> None:
    codec = Harmonic(make_harmonic_codec())
    codes, stream = codes_for(sum(pushes)), codec.decode_stream()
    cuts = np.cumsum([0, *pushes])
    for _ in range(2):  # after `finish` it is as new
        parts = [stream.push(codes[a:b]) for a, b in pairwise(cuts)]
        made = np.concatenate([*parts, stream.finish()])
        whole = codec.decode_window(codes.astype(np.int64))
        if len(whole):
            assert signal_to_noise(whole, made) > 90


def test_a_stream_holds_back_no_more_than_it_must(codec: Codec) -> None:
    stream = codec.decode_stream()
    assert len(stream.push(codes_for(50))) == (50 - codec.lookahead) * codec.hop


def test_a_stream_that_goes_on_from_a_reference_hears_it(codec: Codec) -> None:
    codes = codes_for(90)
    stream = codec.decode_stream(before=codes[:60])
    made = np.concatenate([stream.push(codes[60:]), stream.finish()])
    whole = codec.decode(codes)[60 * codec.hop :]
    alone = codec.decode(codes[60:])
    # Pulses may lie elsewhere in their cycle, so magnitudes are compared.
    spectrum = lambda samples: np.abs(np.fft.rfft(samples[: 5 * 320].reshape(-1, 320)))  # noqa: E731
    assert np.abs(spectrum(made) - spectrum(whole)).sum() < np.abs(spectrum(alone) - spectrum(whole)).sum()


def test_a_bad_code_leaves_the_stream_as_it_was(codec: Codec) -> None:
    codes, stream = codes_for(40), codec.decode_stream()
    first = stream.push(codes[:30])
    with pytest.raises(LlasaError, match="outside"):
        stream.push(np.array([64]))
    made = np.concatenate([first, stream.push(codes[30:]), stream.finish()])
    assert signal_to_noise(codec.decode(codes), made) > 90


def test_windows_are_the_whole(codec: Codec, voiced: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    long = np.tile(voiced, 4)
    codes, sound = codec.encode(long), codec.decode(codec.encode(long))
    monkeypatch.setattr(codec_module, "WHOLE", 40)
    monkeypatch.setattr(codec_module, "WINDOW", 40)
    seen: list[int] = []
    np.testing.assert_array_equal(codec.encode(long, seen.append), codes)
    assert len(seen) > 3
    assert seen[-1] == len(long)
    assert signal_to_noise(sound, codec.decode(codes)) > 90


def test_a_batch_has_the_codes_of_each_alone(codec: Codec, voiced: np.ndarray) -> None:
    clips = [voiced[:4000], voiced[100:4100], voiced[:9999], voiced[:100]]
    for found, clip in zip(codec.encode_batch(clips), clips, strict=True):
        np.testing.assert_array_equal(found, codec.encode(clip))


def test_bad_sound_is_refused(codec: Codec) -> None:
    for samples in (np.zeros(0, np.float32), np.full(400, np.nan, np.float32), np.zeros(400, np.int16)):
        with pytest.raises(LlasaError):
            codec.encode(samples)
        with pytest.raises(LlasaError):
            codec.encode_batch([samples])


def test_a_damaged_folder_is_one_line(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    broken = tmp_path / "codec"
    broken.mkdir()
    (broken / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(LlasaError):
        load_codec(broken)
    save_file({k: v for k, v in tensors.items() if k != "encoder.join.weight"}, broken / "model.safetensors")
    with pytest.raises(LlasaError, match="encoder"):
        load_codec(broken)
    save_file(tensors | {"encoder.join.weight": torch.ones(3, 3)}, broken / "model.safetensors")
    with pytest.raises(LlasaError, match="encoder"):
        load_codec(broken)
    (broken / "config.json").write_text('{"model_type": "llasa_codec", "hop_length": "x"}')
    with pytest.raises(LlasaError):
        load_codec(broken)


def test_it_has_no_other_layout(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LlasaError, match="only one"):
        convert(find(folder), tmp_path / "out", "original")


def test_plain_transformers_loads_what_is_exported(folder: Path, codec: Codec, tmp_path: Path) -> None:
    export(str(make_lm_folder(tmp_path / "lm", folder)), tmp_path / "out", licence="apache-2.0")
    model = AutoModel.from_pretrained(tmp_path / "out" / "codec", trust_remote_code=True).eval()
    codes = codes_for(30)
    with torch.inference_mode():
        made = model.decode(torch.from_numpy(codes)[None])[0].numpy()
    np.testing.assert_allclose(made, codec.decode(codes), atol=1e-5)


@pytest.mark.parametrize("hertz", [50, 60])
def test_a_hum_below_the_voice_does_not_take_its_pitch(hertz: int) -> None:
    """Of the embedded codec, whose copies of recordings that hum once whispered, or droned at the hum's pitch."""
    codec = load_codec("tiny")
    for voice in ("rms", "slt"):
        samples = speak("The old man walked down to the river.", Speaker(voice, voice))[0].astype(np.float32)
        hum = np.sin(2 * np.pi * hertz * np.arange(samples.size) / 16000)
        loud = (samples + np.sqrt(2) * samples.std() * hum).astype(np.float32)  # as loud as the speech
        copy = codec.decode(codec.encode(loud))[: samples.size]
        assert pitch(copy).mean == pytest.approx(pitch(samples).mean, rel=0.05)
