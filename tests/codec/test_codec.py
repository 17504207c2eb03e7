"""Encoding and decoding: equal to transformers' own pass, alone, in batches and in windows; clear about bad input."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import make_codec, make_lm_folder

from llasa.codec import Codec, load_codec, xcodec2
from llasa.codec import codec as codec_module
from llasa.codec.features import acoustic_input, mel_features
from llasa.data.teachers.flite import Speaker, speak
from llasa.errors import LlasaError
from llasa.measure.metrics import log_mel


@pytest.fixture(scope="module")
def codec(codec_folder: Path) -> Codec:
    return load_codec(codec_folder)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of 0.8 s with half a second of context, so that seconds of audio stand for hours."""
    monkeypatch.setattr(codec_module, "WHOLE", 40)
    monkeypatch.setattr(codec_module, "WINDOW", 40)
    monkeypatch.setattr(codec_module, "CONTEXT", 25)


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.mean(one == other))


def test_sizes_are_read_from_the_folder(codec: Codec) -> None:
    assert (codec.rate, codec.hop, codec.codebook_size, codec.levels) == (16000, 320, 64, [4, 4, 4])


def test_loading_gives_the_saved_model(codec: Codec) -> None:
    codes = np.arange(50) % 64
    np.testing.assert_array_equal(codec.decode(codes), xcodec2.Xcodec2(make_codec()).decode(codes))


def test_a_language_models_folder_names_its_codec(lm_folder: Path) -> None:
    assert load_codec(lm_folder).codebook_size == 64


def test_encode_equals_transformers(codec: Codec, voiced: np.ndarray) -> None:
    samples = torch.from_numpy(voiced)
    features, mask = mel_features(samples)
    with torch.no_grad():
        output = codec.model.encode(acoustic_input(samples), features, input_features_mask=mask)
    codes = codec.encode(voiced)
    assert codes.dtype == np.uint16
    assert agreement(codes, output.audio_codes[0, 0].numpy()) > 0.99
    assert len(np.unique(codes)) > 10


def test_decode_equals_transformers(codec: Codec) -> None:
    codes = np.random.default_rng(0).integers(0, 64, 90)
    with torch.no_grad():
        expected = codec.model.decode(torch.from_numpy(codes)[None, None]).audio_values[0, 0].numpy()
    samples = codec.decode(codes.astype(np.uint16))
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, expected, atol=1e-6)


def test_a_batch_gives_the_codes_of_each_alone(codec: Codec, voiced: np.ndarray) -> None:
    clips = [voiced[:20000], voiced[5000:], voiced[:1600], voiced[1000:21000], voiced[7:39000]]
    batch = codec.encode_batch(clips)
    assert [len(codes) for codes in batch] == [len(clip) // 320 + 1 for clip in clips]
    assert agreement(np.concatenate(batch), np.concatenate([codec.encode(clip) for clip in clips])) > 0.99


def test_a_batch_takes_clips_longer_than_a_window(codec: Codec, voiced: np.ndarray, small_windows: None) -> None:
    batch = codec.encode_batch([voiced[:6000], voiced, voiced[:1000]])
    assert agreement(batch[1], codec.encode(voiced)) == 1
    assert agreement(batch[2], codec.encode(voiced[:1000])) > 0.7
    assert codec.encode_batch([]) == []


def test_windows_give_the_codes_of_the_whole(codec: Codec, voiced: np.ndarray, small_windows: None) -> None:
    seconds: list[int] = []
    windowed = codec.encode(voiced, progress=seconds.append)
    assert len(seconds) == 4
    assert seconds == sorted(seconds)
    assert seconds[-1] == len(voiced)
    features, _ = mel_features(torch.from_numpy(voiced))
    assert isinstance(codec, xcodec2.Xcodec2)
    whole = codec._quantise(acoustic_input(torch.from_numpy(voiced)), features, None)[0]
    # What is left is the reach of the semantic encoder's attention, which in a random model is everything.
    assert agreement(windowed, whole) > 0.8


def test_windows_agree_exactly_but_for_attention_and_levels(
    voiced: np.ndarray, small_windows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without what looks at a whole window, windows cannot be told from one pass: waves and features fit together."""
    model = make_codec()
    for layer in model.semantic_encoder.encoder.layers:
        torch.nn.init.zeros_(layer.self_attn.linear_out.weight)
    monkeypatch.setattr(xcodec2, "normalise", lambda mels, mean, variance: mels / 10)
    codec = xcodec2.Xcodec2(model)
    windowed = codec.encode(voiced)
    monkeypatch.setattr(codec_module, "WHOLE", 1000)
    assert agreement(windowed, codec.encode(voiced)) > 0.99


def test_a_window_adapts_to_its_own_recording(codec: Codec, voiced: np.ndarray, small_windows: None) -> None:
    """What another microphone recorded a window away changes nothing."""
    loud = np.concatenate([voiced, voiced])
    quiet = np.concatenate([voiced, voiced / 30])
    assert agreement(codec.encode(loud)[:100], codec.encode(quiet)[:100]) == 1


def test_joins_are_no_worse_than_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded codec's copy of speech in windows of 0.8 s against its copy in one pass, in nepers."""
    codec = load_codec("tiny")
    sound, _, _ = speak(
        "The lamp by the window had burned low before anybody spoke, and it was late.", Speaker("rms", "rms")
    )
    whole = log_mel(codec.decode(codec.encode(sound)))

    def distances(context: int) -> tuple[float, float]:
        """Around the joins, 0.1 s on either side, and everywhere."""
        with monkeypatch.context() as patch:
            patch.setattr(codec_module, "WHOLE", 40)
            patch.setattr(codec_module, "WINDOW", 40)
            patch.setattr(codec_module, "CONTEXT", context)
            codes = codec.encode(sound)
            joins = [stop for _, stop in codec_module.windows(len(codes))[:-1]]
            distance = np.abs(log_mel(codec.decode(codes)) - whole).mean(0)
        assert len(joins) >= 5
        return np.mean([distance[2 * join - 10 : 2 * join + 10].mean() for join in joins]), distance.mean()

    smooth, everywhere = distances(50)
    abrupt, _ = distances(0)
    assert smooth < 1.2 * everywhere + 1e-6
    assert smooth < 0.6 * abrupt


def test_a_memory_map_is_encoded(codec: Codec, voiced: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", voiced)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    np.testing.assert_array_equal(codec.encode(mapped), codec.encode(voiced))


@pytest.mark.parametrize("length", [1, 160, 319, 320, 1600])
def test_very_short_audio(codec: Codec, voiced: np.ndarray, length: int) -> None:
    codes = codec.encode(voiced[:length])
    assert len(codes) == length // 320 + 1
    samples = codec.decode(codes)
    assert samples.shape == (len(codes) * 320,)
    assert np.isfinite(samples).all()


def test_silence_is_sound_too(codec: Codec) -> None:
    samples = codec.decode(codec.encode(np.zeros(8000, dtype=np.float32)))
    assert np.isfinite(samples).all()


def test_no_codes_are_no_samples(codec: Codec) -> None:
    assert codec.decode(np.empty(0, dtype=np.uint16)).shape == (0,)


def test_decoding_in_windows_is_whole_and_close(codec: Codec, small_windows: None) -> None:
    codes = np.random.default_rng(1).integers(0, 64, 130)
    done: list[int] = []
    windowed = codec.decode(codes, progress=done.append)
    assert done == [32, 65, 97, 130]
    whole = codec.decode_window(codes)
    assert windowed.shape == whole.shape == (130 * 320,)
    error = np.sqrt(np.mean((windowed - whole) ** 2) / np.mean(whole**2))
    assert 0 < error < 0.5
    np.testing.assert_array_equal(np.concatenate(list(codec.decode_pieces(codes))), windowed)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.array([0.1, np.nan, 0.2], dtype=np.float32), "are NaN"),
        (np.array([0.1, np.inf, 0.2], dtype=np.float32), "far beyond"),
        (np.array([12000.0, -3000.0], dtype=np.float32), "beyond -1 to 1"),
        (np.zeros((2, 1000), dtype=np.float32), "mix it down"),
        (np.zeros(1000, dtype=np.int16), "int16"),
        (np.zeros(0, dtype=np.float32), "empty"),
    ],
)
def test_bad_samples_are_refused(codec: Codec, samples: np.ndarray, message: str) -> None:
    with pytest.raises(LlasaError, match=message):
        codec.encode(samples)
    with pytest.raises(LlasaError, match=message):
        codec.encode_batch([np.zeros(400, dtype=np.float32), samples])


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.array([3, 64]), "code 64 is outside"),
        (np.array([3, -1]), "code -1 is outside"),
        (np.array([0.5, 1.0]), "whole numbers"),
        (np.zeros((1, 5), dtype=int), "one row"),
        (np.array(7), "one row"),
    ],
)
def test_bad_codes_are_refused(codec: Codec, codes: np.ndarray, message: str) -> None:
    with pytest.raises(LlasaError, match=message):
        codec.decode(codes)
    with pytest.raises(LlasaError, match=message):
        codec.decode_stream().push(codes)


@pytest.fixture
def broken(codec_folder: Path, tmp_path: Path) -> Path:
    """A copy of the codec's folder, to be damaged."""
    return Path(shutil.copytree(codec_folder, tmp_path / "codec"))


def refuse(folder: Path | str, message: str, **settings: str) -> None:
    with pytest.raises(LlasaError, match=message) as caught:
        load_codec(folder, **settings)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_missing_files_are_named(broken: Path) -> None:
    (broken / "model.safetensors").unlink()
    refuse(broken, "no model.safetensors")
    (broken / "config.json").unlink()
    refuse(broken, "no config.json")
    refuse(broken / "nothing", "there is no")


def test_damaged_files_are_refused(broken: Path) -> None:
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    refuse(broken, "cannot be loaded")
    (broken / "model.safetensors").write_bytes(b"")
    refuse(broken, "cannot be loaded")
    (broken / "config.json").write_text("{")
    refuse(broken, "cannot be read")


def test_another_architecture_is_refused(broken: Path) -> None:
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"model_type": "encodec"}))
    refuse(broken, "'encodec', not 'xcodec2'")


def test_missing_weights_are_refused(broken: Path) -> None:
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    refuse(broken, "lacks acoustic_decoder")


def test_other_shapes_are_refused(broken: Path) -> None:
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"quantization_levels": [4, 4, 4, 4]}))
    refuse(broken, "cannot be loaded|lacks")


def test_another_hop_is_refused(broken: Path) -> None:
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"sampling_rate": 24000}))
    refuse(broken, "24000 Hz")


def test_a_device_that_is_not_there_is_refused(codec_folder: Path) -> None:
    refuse(codec_folder, "cannot use the device", device="cuda:99")


def test_a_language_model_without_its_codec_is_refused(tmp_path: Path) -> None:
    refuse(make_lm_folder(tmp_path / "lm", "../nowhere"), "nowhere")


def test_half_precision_decodes(codec_folder: Path) -> None:
    codec = load_codec(codec_folder, dtype=torch.bfloat16)
    samples = codec.decode(codec.encode(np.sin(np.arange(16000) / 20).astype(np.float32)))
    assert samples.dtype == np.float32
    assert np.isfinite(samples).all()


def test_matrices_rounded_beforehand_sound_as_autocast_makes_them(codec: Codec) -> None:
    codes = np.arange(40) * 7 % codec.codebook_size
    with torch.autocast("cpu", torch.bfloat16):
        wanted, found = codec.decode(codes), codec.for_autocast.decode(codes)
    np.testing.assert_array_equal(found, wanted)
    assert codec.for_autocast is codec.for_autocast
    assert codec.for_autocast.model.semantic_encoder is codec.model.semantic_encoder
    assert np.abs(codec.decode(codes) - wanted).max() > 0  # it is itself as precise as it was


def test_a_hub_codec_out_of_reach_is_one_line_and_its_licence_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for _ in range(2):
        refuse("HKUSTAudio/no-such-codec", "the hub cannot be reached")
    assert capsys.readouterr().err.count("CC BY-NC 4.0") == 1
