"""`Llasa`: loading every kind of broken folder, speaking, streaming, cloning."""

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from small_models import make_codec_folder, make_lm_folder
from transformers import LlamaForCausalLM

from llasa import audio
from llasa.data.teachers.flite import Speaker, speak
from llasa.engine import Sampling
from llasa.errors import LlasaError, WrongTranscript
from llasa.models.defaults import sampling_of
from llasa.models.folder import read_json
from llasa.speak import takes as speaking
from llasa.speak.speech import LEVEL, Interrupted, is_faint
from llasa.text.lexicon import save_lexicon
from llasa.text.wording import letter_errors
from llasa.tts import Llasa, LlasaWarning
from llasa.verifiers.content import CtcContent
from llasa.voice import Voice

TEXT = "Hello there, this is one sentence. And this is another one, which is longer. Here is the end of it."


@pytest.fixture(scope="module")
def llasa(lm_folder: Path) -> Llasa:
    return Llasa.load(lm_folder, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def embedded() -> Llasa:
    return Llasa.load("tiny")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLASA_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "voices"


@pytest.fixture
def copy(tmp_path: Path, lm_folder: Path) -> Path:
    """A copy of the model folder, to be broken; its codec lies beside it."""
    shutil.copytree(lm_folder.parent / "codec", tmp_path / "codec")
    return Path(shutil.copytree(lm_folder, tmp_path / "lm"))


def change(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# --- Loading ---


def test_a_model_that_does_not_exist():
    with pytest.raises(LlasaError, match="no model called tyni: did you mean tiny"):
        Llasa.load("tyni")
    with pytest.raises(LlasaError, match="no model called /no/such/folder"):
        Llasa.load("/no/such/folder")
    with pytest.raises(LlasaError, match="is a file: pass the model's folder"):
        Llasa.load(__file__)


def test_a_hub_id_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for _ in range(2):
        with pytest.raises(LlasaError, match=r"HKUSTAudio/Llasa-0B is not on this machine yet") as caught:
            Llasa.load("HKUSTAudio/Llasa-0B")
        assert "\n" not in str(caught.value)
    assert capfd.readouterr().err.count("CC BY-NC 4.0") == 1  # said once


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_that_lacks_a_file(copy: Path, name: str):
    (copy / name).unlink()
    with pytest.raises(LlasaError, match=f"has no {name}"):
        Llasa.load(copy)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "generation_config.json"])
@pytest.mark.parametrize("kept", [0, 0.5])
def test_a_folder_with_a_truncated_file(copy: Path, name: str, kept: float):
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(LlasaError, match="copy") as caught:
        Llasa.load(copy)
    assert "\n" not in str(caught.value)
    assert str(copy) in str(caught.value)


def test_weights_that_are_not_all_there(copy: Path):
    change(copy / "config.json", num_hidden_layers=3)
    with pytest.raises(LlasaError, match=r"lack model.layers.2"):
        Llasa.load(copy)
    change(copy / "config.json", num_hidden_layers=2, hidden_size=32)
    with pytest.raises(LlasaError, match="cannot be loaded"):
        Llasa.load(copy)


def test_another_architecture(copy: Path, codec_folder: Path):
    with pytest.raises(LlasaError, match="type 'xcodec2', not 'llama'"):
        Llasa.load(codec_folder)
    change(copy / "config.json", model_type="gpt2")
    with pytest.raises(LlasaError, match="type 'gpt2', not 'llama'"):
        Llasa.load(copy)


def test_a_tokenizer_without_speech_tokens(copy: Path):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocab={"a": 0}, merges=[])))
    for path in copy.glob("tokenizer*"):
        path.unlink()
    plain.save_pretrained(copy)
    with pytest.raises(LlasaError, match="no speech tokens"):
        Llasa.load(copy)


def test_a_codec_that_is_missing_or_another_models(copy: Path, tmp_path: Path):
    change(copy / "config.json", codec="../gone")
    with pytest.raises(LlasaError, match=r"the codec of .* is missing"):
        Llasa.load(copy)
    (tmp_path / "codec" / "model.safetensors").unlink()
    change(copy / "config.json", codec="../codec")
    with pytest.raises(LlasaError, match=r"codec has no model.safetensors"):
        Llasa.load(copy)
    change(copy / "config.json", codec=".")
    with pytest.raises(LlasaError, match="not 'xcodec2'"):
        Llasa.load(copy)


def test_a_codec_of_another_size(tmp_path: Path, codec_folder: Path):
    other = make_lm_folder(tmp_path / "lm", codec_folder, codebook_size=27)
    with pytest.raises(LlasaError, match=r"27 speech tokens and its codec .* 64 codes"):
        Llasa.load(other)


def test_no_such_device_or_dtype(lm_folder: Path):
    with pytest.raises(LlasaError, match="cannot use the device abacus"):
        Llasa.load(lm_folder, device="abacus")
    with pytest.raises(LlasaError, match="unknown dtype float12"):
        Llasa.load(lm_folder, dtype="float12")


def test_devices_and_precisions(lm_folder: Path):
    greedy = [
        Llasa.load(lm_folder, device="cpu", **options).say("Hello.", temperature=0, max_seconds=0.5).codes.tolist()
        for options in ({"dtype": "float32"}, {"dtype": "float32", "device_map": "auto"})
    ]
    assert greedy[0] == greedy[1]
    for dtype in ("bfloat16", "float16"):
        loaded = Llasa.load(lm_folder, device="cpu", dtype=dtype)
        assert str(loaded.backend.dtype) == f"torch.{dtype}"
        assert len(loaded.say("Hello.", seed=1, max_seconds=0.5).codes)
    with pytest.raises(LlasaError, match="unknown device map all"):
        Llasa.load(lm_folder, device_map="all")
    if not torch.backends.mps.is_available():
        with pytest.raises(LlasaError, match="cannot use the device mps"):
            Llasa.load(lm_folder, device="mps")


def test_a_folder_that_is_not_this_packages_is_sampled_from_as_upstreams_snippet_does(copy: Path):
    """Against what transformers' `generate` makes of the snippet's arguments and the folder's file."""
    change(copy / "generation_config.json", temperature=0.6, top_p=0.9, do_sample=True)
    assert Llasa.load(copy).defaults.temperature == 0.6  # this package's: its file is meant
    llama = LlamaForCausalLM.from_pretrained(copy)
    wanted, _ = llama._prepare_generation_config(None, do_sample=True, top_p=1, temperature=0.8)
    foreign = {name: value for name, value in read_json(copy / "config.json").items() if name != "codec"}
    sampling = Sampling(**sampling_of(copy, foreign)[0])
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (wanted.temperature, wanted.top_p, wanted.top_k)
    assert sampling.repetition_penalty == wanted.repetition_penalty
    change(copy / "generation_config.json", temperature=0.7)  # somebody's choice
    assert sampling_of(copy, foreign)[0]["temperature"] == 0.7


def test_defaults_come_from_the_folder(copy: Path):
    change(copy / "generation_config.json", temperature=0.3, top_p=0.9, top_k=None)
    loaded = Llasa.load(copy)
    assert (loaded.defaults.temperature, loaded.defaults.top_p, loaded.defaults.top_k) == (0.3, 0.9, 0)
    change(copy / "generation_config.json", temperature=-1)
    with pytest.raises(LlasaError, match=r"generation_config.json: temperature"):
        Llasa.load(copy)


# --- Speaking ---


def test_the_seed_decides_the_audio(llasa: Llasa):
    first, again, other = (llasa.say("Hello there.", seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.samples, again.samples)
    assert first.codes.tolist() != other.codes.tolist()
    drawn = llasa.say("Hello there.")
    np.testing.assert_array_equal(llasa.say("Hello there.", seed=drawn.seed).samples, drawn.samples)


def test_a_speech_is_its_chunks_and_pauses(llasa: Llasa):
    seen: list[tuple[float, float]] = []
    speech = llasa.say(TEXT + "\n\nA new paragraph.", seed=1, on_progress=lambda *both: seen.append(both))
    words = " ".join(u.text for u in speech.utterances)
    assert words == TEXT + " A new paragraph."
    assert len(speech.utterances) > 2
    assert [u.pause for u in speech.utterances][-2:] == [0.6, 0.0]
    assert len(speech.codes) == sum(len(u.codes) for u in speech.utterances)
    pauses = sum(round(u.pause * speech.rate) for u in speech.utterances)
    assert len(speech.samples) == len(speech.codes) * llasa.codec.hop + pauses
    assert speech.samples.dtype == np.float32
    assert speech.seconds == len(speech.samples) / 16000
    assert len(speech.finished) == len(speech.utterances)
    assert speech.text.startswith(TEXT)
    assert 0 < speech.timings["generate"] + speech.timings["decode"] <= speech.timings["total"]
    assert speech.rtf == pytest.approx(speech.timings["total"] / speech.seconds)
    assert seen[-1][0] == pytest.approx(len(speech.codes) / 50)
    assert all(spoken <= expected + 1e-9 for spoken, expected in seen)


def test_without_a_voice_the_first_chunk_is_the_voice_of_the_others(llasa: Llasa):
    assert llasa.voice() is None
    speech = llasa.say(TEXT, seed=1)
    first = speech.utterances[0]
    voice = Voice("first", first.text, first.codes, llasa.codec_id)
    prompts = prompts_of(llasa, lambda: llasa.say(TEXT, seed=1))
    beginning = llasa.vocabulary.prompt(first.text)
    others = [p for p in prompts if p != beginning]
    assert len(others) >= len(speech.utterances) - 1
    assert all(p[-len(voice.codes) :] == llasa.vocabulary.tokens(voice.codes) for p in others)


def prompts_of(llasa: Llasa, speak: Callable[[], object]) -> list[list[int]]:
    """The prompts that reach the engine while speaking."""
    prompts: list[list[int]] = []
    start = llasa.backend.start
    llasa.backend.start = lambda given, *rest: prompts.extend(given) or start(given, *rest)  # type: ignore[method-assign]
    try:
        speak()
    finally:
        del llasa.backend.start
    return prompts


def test_a_speakers_name_goes_into_every_prompt(llasa: Llasa, voiced: np.ndarray):
    """And no chunk is then the voice of the others."""
    said = {"seed": 1, "max_seconds": 0.5, "speaker": "kore"}
    texts = [u.text for u in llasa.say(TEXT, **said).utterances]
    assert len(texts) > 1
    wanted = [llasa.vocabulary.prompt(text, speaker="kore") for text in texts]
    assert {tuple(p) for p in prompts_of(llasa, lambda: llasa.say(TEXT, **said))} == set(map(tuple, wanted))
    assert prompts_of(llasa, lambda: list(llasa.stream(TEXT, **said))) == wanted
    voice = llasa.clone(voiced, "Words.")
    both = prompts_of(llasa, lambda: llasa.say("Hello.", voice, **said))
    assert both[0] == llasa.vocabulary.prompt("Hello.", "Words.", voice.codes, "kore")


def test_a_speaker_stands_in_for_the_default_voice(copy: Path, voiced: np.ndarray):
    loaded = Llasa.load(copy)
    loaded.clone(voiced, "Words.", "a").save(copy / "voices" / "a.safetensors")
    prompts = prompts_of(loaded, lambda: loaded.say("Hello.", seed=1, max_seconds=0.2, speaker="puck"))
    assert prompts[0] == loaded.vocabulary.prompt("Hello.", speaker="puck")


def test_chunks_are_brought_to_one_level(llasa: Llasa, voiced: np.ndarray):
    from llasa.speak.speech import STEADY, Utterance, join

    quiet, right, tiny = (audio.set_loudness(voiced, 16000, level) for level in (LEVEL - 4, LEVEL, LEVEL - 20))
    spoken = [Utterance("", np.zeros(0, np.uint16), samples, 0.5, True) for samples in (quiet, right, tiny)]
    joined = join(spoken, 16000)
    parts = [joined[i * (48000 + 8000) : i * (48000 + 8000) + 48000] for i in range(3)]
    levels = [audio.loudness(part, 16000) for part in parts]
    assert levels == pytest.approx([LEVEL, LEVEL, LEVEL - 20 + STEADY], abs=0.2)
    assert not joined[48000:56000].any()
    assert len(join([], 16000)) == 0


def test_what_comes_out_nearly_silent_is_spoken_again():
    """With a transcript of three words for all of its codes, the voice takes most of the text for said."""
    tiny = Llasa.load("tiny", dtype="float32")
    alma = tiny.voice("alma")
    assert alma is not None
    unfit = replace(alma, text=" ".join(alma.text.split()[:3]))
    text = "The lamp had burned low."
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        spoken = [tiny.say(text, unfit, seed=seed).utterances[0].samples for seed in (2, 3)]  # the first stays faint
    faint = [is_faint(samples, tiny.rate) for samples in spoken]
    assert not all(faint)
    assert sum("is nearly silent" in str(note.message) for note in notes) == sum(faint)
    assert not is_faint(tiny.say(text, alma, seed=1).samples, tiny.rate)


@pytest.mark.parametrize("text", ["I am very very very very very tired.", "No no no no!", "Why?"])
def test_words_are_said_as_often_as_the_text_has_them(embedded: Llasa, text: str):
    listener = embedded._load_verifier("content")
    assert isinstance(listener, CtcContent)
    for voice in ("alma", "edith"):
        for utterance in embedded.say(text, voice, seed=1).utterances:
            assert listener.doubt(utterance.text, utterance.samples) < 0


def test_a_stream_of_a_short_text_is_listened_to_before_it_sounds(embedded: Llasa):
    listener = embedded._load_verifier("content")
    assert isinstance(listener, CtcContent)
    for voice in ("clara", "hugo"):  # who say this twice in nearly every take
        streamed = np.concatenate(list(embedded.stream("Thanks.", voice, seed=1)))
        assert listener.doubt("Thanks.", streamed) < 0
        assert len(streamed) == len(embedded.say("Thanks.", voice, seed=1).samples)


def test_an_interruption_keeps_what_is_finished(llasa: Llasa, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(speaking, "ROWS", 1)

    def stop(spoken: float, expected: float) -> None:
        if spoken > 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        llasa.say(TEXT * 3, seed=1, max_seconds=0.5, on_progress=stop)
    speech = caught.value.speech
    whole = llasa.say(TEXT * 3, seed=1, max_seconds=0.5)
    assert 3 <= len(speech.utterances) < len(whole.utterances)
    np.testing.assert_array_equal(speech.codes, whole.codes[: len(speech.codes)])
    assert len(speech.samples)


def test_a_sampling_setting_out_of_range(llasa: Llasa):
    for setting in ({"temperature": -1}, {"top_p": 0}, {"min_p": 2}, {"max_seconds": 0}, {"seed": -1}):
        with pytest.raises(LlasaError, match=next(iter(setting))):
            llasa.say("Hello.", **setting)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "...", "\x00", "😀", "你好", "مرحبا"])
def test_nothing_to_say(llasa: Llasa, text: str):
    for method in (llasa.say, llasa.stream):
        with pytest.raises(LlasaError, match=r"nothing to say|this model cannot read any of the text"):
            method(text)


def test_what_cannot_be_read_is_left_out_with_a_warning(llasa: Llasa):
    with pytest.warns(LlasaWarning, match=r"left out what it cannot of 你好世界，你好世界，你好世界。$"):
        speech = llasa.say("你好世界，你好世界，你好世界。\n\nHello there.", max_seconds=0.5)
    assert [u.text for u in speech.utterances] == ["Hello there."]


def test_fifty_thousand_characters(tmp_path: Path, codec_folder: Path):
    """A context of 2,048 tokens, so that there are few chunks, and a word's worth of codes from each."""
    loaded = Llasa.load(make_lm_folder(tmp_path / "lm", codec_folder, max_position_embeddings=2048))
    sentence = "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of "
    text = f"{sentence}foolishness, it was the epoch of belief. " * 370
    assert len(text) > 50_000
    speech = loaded.say(text, seed=1, temperature=0, max_seconds=0.02)
    assert " ".join(u.text for u in speech.utterances) == text.strip()
    assert all(len(u.codes) <= 1 for u in speech.utterances)


def test_text_and_voices_go_through_the_lexicon(copy: Path):
    save_lexicon({"hello": "xyz"}, copy)
    loaded = Llasa.load(copy)
    voice = Voice("v", "Hello!", np.arange(9), loaded.codec_id)
    prompts = prompts_of(loaded, lambda: loaded.say("Hello 2.", voice, max_seconds=0.1))
    assert prompts[0] == loaded.vocabulary.prompt("xyz two.", "xyz.", range(9))


# --- Streaming ---


def test_a_stream_is_the_speech_in_pieces(llasa: Llasa, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(speaking, "ATTEMPTS", 1)
    speech = llasa.say(TEXT, seed=5)
    seen: list[tuple[float, float]] = []
    pieces = list(llasa.stream(TEXT, seed=5, on_progress=lambda *both: seen.append(both)))
    assert sum(map(len, pieces)) == len(speech.samples)
    assert all(len(piece) and piece.dtype == np.float32 for piece in pieces)
    assert len(pieces[0]) <= 16000 // 2
    assert seen[-1] == pytest.approx((len(speech.codes) / 50, len(speech.codes) / 50))
    # The same codes through the streaming decoder: close to decoding each chunk whole, up to the chunk's gain.
    streamed = np.concatenate(pieces)
    first = speech.utterances[0]
    whole = llasa.codec.decode(first.codes)
    assert np.corrcoef(streamed[: len(whole)], whole)[0, 1] > 0.9


def test_another_speed_changes_the_sound_alone(llasa: Llasa):
    plain = llasa.say(TEXT, seed=5)
    streamed = sum(map(len, llasa.stream(TEXT, seed=5)))
    seen: list[tuple[float, float]] = []
    for speed in (0.5, 2):
        speech = llasa.say(TEXT, seed=5, speed=speed, on_progress=lambda *both: seen.append(both))
        assert np.array_equal(speech.codes, plain.codes)
        assert len(speech.samples) == round(len(plain.samples) / speed)
        assert seen[-1] == pytest.approx((len(plain.codes) / 50 / speed,) * 2)
        pieces = list(llasa.stream(TEXT, seed=5, speed=speed))
        assert sum(map(len, pieces)) == round(streamed / speed)
        assert all(map(len, pieces))
        assert len(pieces[0]) <= 16000 // 2 / speed
    for method in (llasa.say, llasa.stream):
        with pytest.raises(LlasaError, match=r"the speed is 9: it must be from 0\.25 to 4"):
            method("Hello.", speed=9)


def test_a_streams_errors_come_at_the_call(llasa: Llasa):
    with pytest.raises(LlasaError, match="no voice called nobody"):
        llasa.stream("Hello.", "nobody")


# --- Voices ---


def test_a_clone_speaks_and_is_kept(llasa: Llasa, voiced: np.ndarray, tmp_path: Path, home: Path):
    soundfile.write(tmp_path / "ref.wav", np.stack([voiced, voiced], 1), 16000)
    voice = llasa.clone(tmp_path / "ref.wav", "  What is\nsaid here. ", name="anna")
    assert voice.text == "What is said here."
    assert voice.samples is not None
    assert audio.loudness(voice.samples, 16000) == pytest.approx(LEVEL, abs=0.1)
    assert abs(len(voice.codes) - len(voice.samples) / 320) <= 1
    voice.save(home / "anna.safetensors")
    assert list(llasa.voices()) == ["anna"]
    spoken = [llasa.say("Hello.", v, seed=1) for v in (voice, "anna", home / "anna.safetensors")]
    np.testing.assert_array_equal(spoken[0].samples, spoken[1].samples)
    np.testing.assert_array_equal(spoken[0].samples, spoken[2].samples)
    assert spoken[0].codes.tolist() != llasa.say("Hello.", seed=1).codes.tolist()


def test_a_clone_from_an_array_of_another_rate(llasa: Llasa, voiced: np.ndarray):
    doubled = audio.resample(voiced, 16000, 48000)
    voice = llasa.clone(doubled, "Words.", rate=48000)
    assert abs(len(voice.codes) - len(llasa.clone(voiced, "Words.").codes)) <= 1
    with pytest.raises(LlasaError, match="one row of samples"):
        llasa.clone(np.zeros((2, 16000), np.float32), "Words.")


@pytest.mark.parametrize(("seconds", "message"), [(0.1, "too short"), (600, "too long")])
def test_references_of_a_wrong_length(llasa: Llasa, tmp_path: Path, seconds: float, message: str):
    noise = 0.1 * np.random.default_rng(0).standard_normal(round(seconds * 16000))
    soundfile.write(tmp_path / "ref.wav", noise, 16000)
    for source in (tmp_path / "ref.wav", noise.astype(np.float32)):
        with pytest.raises(LlasaError, match=message):
            llasa.clone(source, "Words.")


# flite's reading is no part of what the thresholds were chosen on.
SAID = "The lamp had burned low by then, and nobody in the room had spoken for some time."
TOO_MANY = "She walked along the river."


@pytest.mark.parametrize("reader", ["awb", "rms", "slt"])
def test_a_transcript_that_does_not_fit_is_refused_with_what_is_heard(embedded: Llasa, reader: str):
    sound, _, _ = speak(SAID, Speaker(reader, reader))
    spoken = SAID.split()
    for right in (SAID, SAID.upper().replace(".", "").replace(",", "")):
        assert embedded.clone(sound, right).text == right
    for wrong in (
        spoken[:7], spoken[-7:], spoken[::2], [*spoken, TOO_MANY], [TOO_MANY, *spoken], [TOO_MANY], ["Words."],
    ):  # fmt: skip
        with pytest.raises(WrongTranscript, match=r"which sounds like '[a-z ']{60,}'") as told:
            embedded.clone(sound, " ".join(wrong))
        assert "\n" not in str(told.value)
    errors, letters = letter_errors(SAID, embedded.clone(sound, None).text)
    assert errors < 0.3 * letters
    assert embedded.clone(sound, "那盏灯已经很暗了").text == "那盏灯已经很暗了"  # the recogniser knows no such letters


def test_without_a_recogniser_nothing_is_transcribed(llasa: Llasa, voiced: np.ndarray):
    with pytest.raises(LlasaError, match="no recogniser to transcribe with"):
        llasa.clone(voiced, None)


def test_a_voice_is_encoded_again_for_another_codec(llasa: Llasa, voiced: np.ndarray, tmp_path: Path):
    voice = llasa.clone(voiced, "Words.")
    make_codec_folder(tmp_path / "codec", seed=1)
    other = Llasa.load(make_lm_folder(tmp_path / "lm", "../codec"))
    assert other.codec_id != llasa.codec_id
    adapted = other.voice(voice)
    assert adapted is not None
    assert adapted.codes.tolist() == other.codec.encode(voice.samples).tolist() != voice.codes.tolist()
    bare = Voice("bare", "Words.", voice.codes, voice.codec)
    assert llasa.voice(bare) is bare
    with pytest.raises(LlasaError, match="made for another codec and holds no audio"):
        other.voice(bare)


def test_the_default_voice_is_the_configured_or_the_first_preset(copy: Path, voiced: np.ndarray, home: Path):
    loaded = Llasa.load(copy)
    for name in ("b", "a"):
        loaded.clone(voiced, "Words.", name).save(copy / "voices" / f"{name}.safetensors")
    loaded.clone(voiced, "Words.", "0").save(home / "0.safetensors")  # the user's own are never the default
    voice = loaded.voice()
    assert voice is not None
    assert voice.name == "a"
    change(copy / "generation_config.json", default_voice="b")
    voice = Llasa.load(copy).voice()
    assert voice is not None
    assert voice.name == "b"
    with pytest.raises(LlasaError, match="no voice called bb: did you mean b"):
        loaded.voice("bb")
