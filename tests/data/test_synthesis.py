from pathlib import Path

import numpy as np
import pytest

from llasa.data.shards import AUDIO_SCHEMA, read_rows, row_audio, shard_files, write_shard
from llasa.data.synthesis import RATE, RMS_LEVEL, TEACHERS, Speaker, assign, flac, speak, speakers, synthesise
from llasa.errors import LlasaError
from llasa.lexicon import ARPABET

TEXT = "The quick brown fox jumps over the lazy dog."


def pitch(samples: np.ndarray) -> float:
    """Median F0 in Hz by autocorrelation of the loud frames."""
    found = []
    for start in range(0, len(samples) - 1024, 320):
        frame = samples[start : start + 1024]
        if np.abs(frame).mean() < 0.02:
            continue
        correlation = np.correlate(frame, frame, "full")[1023:]
        lag = int(np.argmax(correlation[40:300])) + 40
        if correlation[lag] > 0.5 * correlation[0]:
            found.append(RATE / lag)
    return float(np.median(found))


def centroid(samples: np.ndarray) -> float:
    """Spectral centre of gravity below 5 kHz, Hz: it moves with the formants."""
    power = np.abs(np.fft.rfft(samples)) ** 2
    frequencies = np.fft.rfftfreq(len(samples), 1 / RATE)
    low = frequencies < 5000
    return float((power * frequencies)[low].sum() / power[low].sum())


def test_speech_comes_with_the_end_of_every_phone() -> None:
    samples, phones, ends = speak(TEXT, Speaker("slt", "slt"))
    assert phones[0] == phones[-1] == "pau"
    assert {p for p in phones if p != "pau"} <= set(ARPABET)
    assert ends == sorted(ends)
    assert len(samples) / RATE == pytest.approx(ends[-1], abs=0.05)
    # The pause before the first phone is the lead alone, and quiet beside what follows.
    assert np.abs(samples[: int(ends[0] * RATE * 0.5)]).max() < 0.2 * np.abs(samples).max()


def test_loudness_is_the_same_for_every_voice() -> None:
    for name in TEACHERS:
        samples, _, _ = speak(TEXT, Speaker(name, name))
        assert np.sqrt(np.mean(samples**2)) == pytest.approx(RMS_LEVEL, rel=0.05)


def test_pitch_formants_and_tempo_move_one_at_a_time() -> None:
    plain, _, _ = speak(TEXT, Speaker("a", "slt", pitch=180))
    high, _, _ = speak(TEXT, Speaker("b", "slt", pitch=240))
    small, _, _ = speak(TEXT, Speaker("c", "slt", formants=1.2, pitch=180))
    slow, _, _ = speak(TEXT, Speaker("d", "slt", pitch=180, tempo=1.2))
    assert pitch(high) / pitch(plain) == pytest.approx(240 / 180, rel=0.1)
    assert pitch(small) / pitch(plain) == pytest.approx(1, abs=0.1)
    assert centroid(small) > 1.05 * centroid(plain)
    assert len(small) / len(plain) == pytest.approx(1, abs=0.03)
    assert len(slow) / len(plain) == pytest.approx(1.2, abs=0.06)


def test_speakers_are_distinct_and_the_same_every_time() -> None:
    made = speakers(240)
    assert len({s.name for s in made}) == len(made) == 244
    assert len({(s.voice, s.formants, s.pitch) for s in made}) == 244
    assert made == speakers(240)


def test_teachers_get_their_share_and_every_text_a_speaker() -> None:
    texts = [f"sentence {i}" for i in range(4000)]
    given = list(assign(texts, speakers(20), {"rms": 0.5, "slt": 0.1}, seed=0))
    assert [text for _, text, _ in given] == texts
    assert len({identity for identity, _, _ in given}) == len(texts)
    names = [speaker.name for _, _, speaker in given]
    assert names.count("rms") / 4000 == pytest.approx(0.5, abs=0.03)
    assert names.count("awb") == 0
    assert len(set(names)) == 22


def test_without_shifted_speakers_the_plain_voices_share_all_texts() -> None:
    given = list(assign(["a text"] * 4000, speakers(0), {"rms": 0.3, "slt": 0.1}, seed=0))
    names = [speaker.name for _, _, speaker in given]
    assert set(names) == {"rms", "slt"}
    assert names.count("rms") / 4000 == pytest.approx(0.75, abs=0.03)


def test_a_killed_synthesis_goes_on(tmp_path: Path) -> None:
    texts = [TEXT, "Another one.", "And one more."]
    assert len(list(synthesise(texts, tmp_path, 2, shard_size=1, workers=1))) == 3
    first, second, _ = shard_files(tmp_path)
    stamp = first.stat().st_mtime_ns
    second.unlink()
    assert len(list(synthesise(texts, tmp_path, 2, shard_size=1, workers=1))) == 1
    assert first.stat().st_mtime_ns == stamp
    assert [row["text"] for file in shard_files(tmp_path) for row in read_rows(file)] == texts


def test_audio_in_a_shard_is_what_went_in(tmp_path: Path, voiced: np.ndarray) -> None:
    row = {
        "id": "a", "text": "t", "audio": flac(voiced), "speaker": "s", "language": "en", "seconds": 3.0,
        "phones": [], "ends": [],
    }  # fmt: skip
    write_shard(tmp_path / "a.parquet", [row], AUDIO_SCHEMA)
    (back,) = read_rows(tmp_path / "a.parquet")
    assert np.abs(row_audio(back) - voiced).max() < 1e-4


def test_a_shard_truncated_by_a_crash_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_shard(path, [], AUDIO_SCHEMA)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(LlasaError, match=r"a\.parquet is not a whole Parquet shard"):
        list(read_rows(path))
    with pytest.raises(LlasaError, match=r"no \.parquet shards"):
        shard_files(tmp_path / "nothing")
