"""`llasa say`, with the arguments and mistakes of its users: what comes out, where, with which status."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from commands.runner import Run, fails, read_wav

from llasa import audio
from llasa.tts import Llasa

LONG = "This is a sentence of the long text that is spoken here. " * 30


def test_say_writes_a_file_and_says_what_it_did(say: Run, tmp_path: Path):
    for suffix in ("wav", "flac", "ogg"):
        result = say("Hello there.", "-o", tmp_path / f"out.{suffix}", "--seed", 1)
        assert (result.code, result.out) == (0, b"")
        assert f"out.{suffix}: " in result.err
        assert "real-time factor" in result.err
        assert "seed 1" in result.err
        assert len(audio.load(tmp_path / f"out.{suffix}")) > 1000
    assert sorted(os.listdir(tmp_path)) == ["out.flac", "out.ogg", "out.wav"]


def test_text_comes_from_the_argument_a_file_or_standard_input(say: Run, tmp_path: Path):
    (tmp_path / "text.txt").write_bytes("\ufeffHello there.\r\n".encode())
    ways = [
        say("Hello there.", "--seed", 1),
        say("-f", tmp_path / "text.txt", "--seed", 1),
        say("--seed", 1, stdin=b"Hello there.\n"),
        say("-", "--seed", 1, stdin=b"Hello there."),
        say("-f", "-", "--seed", 1, stdin=b"Hello there."),
        say("Hello there.", "--seed", 1, "-o", "-"),
    ]
    assert all(way.code == 0 for way in ways)
    assert len({way.out for way in ways}) == 1
    assert len(read_wav(ways[0].out)) > 1000


def test_a_text_may_begin_with_a_dash(say: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for text in ("-5 degrees outside.", "-.5 volts.", "- Milk and bread.", "--5 or more.", "-$5 is a debt."):
        result = say(text, "--seed", 1, "-o", tmp_path / "out.wav")
        assert (result.code, result.out) == (0, b""), result.err
        assert len(audio.load(tmp_path / "out.wav")) > 1000
    assert say("-o", "-5.wav", "-5 degrees outside.", "--seed", 1).code == 0
    assert os.path.isfile("-5.wav")
    for option in ("--loud", "-z"):
        result = say("Hello.", option)
        assert (result.code, result.out) == (2, b"")
        assert "No such option" in result.err
    assert say("Hello.", "--seed", -1).code == 2


def test_bare_samples_on_standard_output(say: Run):
    wav, pcm = say("Hello there.", "--seed", 1), say("Hello there.", "--seed", 1, "--format", "pcm")
    assert pcm.out == wav.out[44:]


def test_a_stream_on_standard_output(say: Run):
    result = say("--stream", "--seed", 1, stdin=LONG[:500].encode())
    assert result.code == 0
    assert len(read_wav(result.out)) > 16000
    pcm = say("--stream", "--seed", 1, "--format", "pcm", stdin=LONG[:500].encode())
    assert pcm.out == result.out[44:]


def test_a_stream_to_a_file(say: Run, tmp_path: Path):
    result = say("Hello there.", "--stream", "-o", tmp_path / "out.wav", "--seed", 1)
    assert (result.code, result.out) == (0, b"")
    assert len(audio.load(tmp_path / "out.wav")) > 1000


def test_times_of_words(run: Run, tmp_path: Path):
    text, end = "It costs $5.", ("-o", tmp_path / "out.wav", "--seed", 1)
    for name, options in (("a.json", ()), ("b.srt", ("--stream",)), ("c.vtt", ("--best-of", 2))):
        result = run("say", text, *options, "--timestamps", tmp_path / name, *end)
        assert result.code == 0, result.err
        assert f"{name}: the times of 3 words\n" in result.err
    assert [one["word"] for one in json.loads((tmp_path / "a.json").read_text())["words"]] == text.split()
    assert (tmp_path / "b.srt").read_text().split("\n")[10] == "$5."
    assert (tmp_path / "c.vtt").read_text().startswith("WEBVTT\n")


def test_times_of_words_that_cannot_be(say: Run, tmp_path: Path):
    fails(say("Hello.", "--timestamps", tmp_path / "words.txt"), "end its name in .json, .srt, .vtt")
    fails(say("Hello.", "--timestamps", tmp_path / "no/words.srt"), "no such file or directory")
    keep = ("--best-of", 2, "--keep-candidates", tmp_path / "all")
    fails(say("Hello.", "--timestamps", tmp_path / "all/words.srt", *keep), "which is only for candidates")
    fails(say("Hello.", "--timestamps", tmp_path / "words.srt"), "nothing tells when this model says a word")
    assert not list(tmp_path.iterdir())


def test_another_speed(say: Run):
    plain = len(read_wav(say("Hello there.", "--seed", 1).out))
    for speed in (0.25, 1.5, 4):
        assert len(read_wav(say("Hello there.", "--seed", 1, "--speed", speed).out)) == round(plain / speed)
    streamed = say("Hello there.", "--seed", 1, "--speed", 0.5, "--stream")
    assert len(read_wav(streamed.out)) == 2 * len(read_wav(say("Hello there.", "--seed", 1, "--stream").out))
    for wrong in ("0", "-1", "5", "nan", "inf"):
        fails(say("Hello.", "--speed", wrong), "the speed is ")


def test_a_recording_and_its_transcript_are_a_voice(say: Run, reference: Path):
    spoken = say("Hello.", "--voice", reference, "--voice-text", "What is said.", "--seed", 1)
    assert spoken.code == 0
    assert read_wav(spoken.out).size
    assert spoken.out != say("Hello.", "--seed", 1).out


def test_settings_reach_the_engine(say: Run):
    greedy = [say("Hello.", "--temperature", 0, "--seed", seed).out for seed in (1, 2)]
    assert greedy[0] == greedy[1]
    assert say("Hello.", "--temperature", 0, "--repetition-penalty", 9).out != greedy[0]
    for option, value in (("temperature", -1), ("top-p", 0), ("top-k", -1), ("min-p", 2), ("repetition-penalty", 0)):
        fails(say("Hello.", f"--{option}", value), f"{option.replace('-', '_')} is {value}")
    assert say("Hello.", "--seed", -1).code == 2


def test_a_speakers_name(say: Run):
    plain, kore, puck = (
        say("Hello.", "--seed", 1, *more) for more in ((), ("--speaker", "kore"), ("--speaker", "puck"))
    )
    assert len({plain.out, kore.out, puck.out}) == 3


def test_where_and_in_what_to_compute(run: Run, lm_folder: Path):
    options = ("--model", lm_folder, "--seed", 1, "--temperature", 0, "--max-seconds", 1, "--dtype", "float32")
    spread = run("say", "Hello.", *options, "--device-map", "auto")
    assert spread.out == run("say", "Hello.", *options, "--device", "cpu").out
    fails(run("say", "Hello.", "--model", lm_folder, "--dtype", "int3"), "use float32, bfloat16, float16, int8")
    fails(run("say", "Hello.", "--model", lm_folder, "--device-map", "even"), "unknown device map even: use auto")
    fails(run("say", "Hello.", "--model", lm_folder, "--device", "abacus"), "cannot use the device abacus")


def test_another_backend(run: Run, lm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: run make test-llamacpp")
    monkeypatch.setenv("LLASA_HOME", str(tmp_path / "home"))
    options = ("say", "Hello.", "--model", lm_folder, "--seed", 1, "--max-seconds", 1, "--device", "cpu")
    theirs, ours = (run(*options, "--dtype", "float32", "--backend", name) for name in ("torch", "llamacpp"))
    assert ours.code == 0
    assert np.array_equal(read_wav(ours.out), read_wav(theirs.out))
    for dtype in ("int8", "int4"):
        assert len(read_wav(run(*options, "--dtype", dtype, "--backend", "llamacpp").out)) > 1000


def test_the_fastest_backend_is_the_default(run: Run, lm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: run make test-llamacpp")
    monkeypatch.setenv("LLASA_HOME", str(tmp_path / "home"))
    chosen: list[str] = []
    load = Llasa.load
    monkeypatch.setattr(Llasa, "load", lambda *args, **given: chosen.append(given["backend"]) or load(*args, **given))
    options = ("--model", lm_folder, "--seed", 1, "--max-seconds", 1, "--device", "cpu")
    for more in ((), ("--stream",), ("--best-of", 2, "--verify", "naturalness"), ("--backend", "torch")):
        assert run("say", "Hello.", *options, *more).code == 0
    assert run("say", "It was late. " * 100, *options).code == 0
    assert chosen == ["llamacpp", "llamacpp", "torch", "torch", "torch"]


def test_backends_that_do_not_go_together_with_other_options(run: Run, lm_folder: Path):
    options = ("say", "Hello.", "--model", lm_folder)
    fails(run(*options, "--backend", "abacus"), "unknown backend abacus: use torch, llamacpp or vllm")
    fails(run(*options, "--backend", "llamacpp", "--device", "cuda"), "leave --device cuda out, or use --backend torch")
    fails(run(*options, "--backend", "llamacpp", "--device-map", "auto"), "leave --device-map auto out, or use")


@pytest.mark.parametrize("text", ["", "  ", "...?!", "😀🎉", "\x00\x00"])
def test_nothing_to_say(say: Run, text: str):
    fails(say(text), "there is nothing to say")
    fails(say(stdin=text.encode()), "there is nothing to say")


@pytest.mark.parametrize("text", ["你好，世界。", "Здравствуй, мир", "שלום עולם"])
def test_another_script(say: Run, text: str):
    fails(say(text), "this model cannot read any of the text")


def test_partly_another_script_is_a_note(say: Run):
    result = say("你好世界，你好世界，你好世界。\n\nHello there.")
    assert result.code == 0
    assert "left out what it cannot of" in result.err
    assert read_wav(result.out).size


def test_nul_bytes_among_words_do_not_matter(say: Run):
    assert say("--seed", 1, stdin=b"Hello \x00there.").out == say("Hello there.", "--seed", 1).out


def test_text_that_is_none(say: Run, tmp_path: Path, reference: Path):
    fails(say("-f", reference), "is not UTF-8 text")
    fails(say(stdin=b"\xff\xfe\x00h"), "standard input is not UTF-8 text")
    fails(say("-f", tmp_path / "gone.txt"), "there is no file")
    fails(say("-f", tmp_path), "is a directory")
    fails(say("Hello.", "-f", reference), "pass the text or --file")


def test_an_unwritable_output_is_found_before_anything_is_loaded(run: Run, tmp_path: Path):
    (tmp_path / "file").touch()
    for path, message in (
        (tmp_path / "no" / "out.wav", "no such file or directory"),
        (tmp_path / "file" / "out.wav", "not a directory"),
        ("/proc/out.wav", "cannot write /proc/out.wav"),
        (tmp_path / "out.mp5", "end its name in .wav, .flac, .ogg"),
        (tmp_path / "out", "end its name in"),
    ):
        fails(run("say", "Hello.", "-o", path, "--model", "/no/such/model"), message)
    (tmp_path / "folder.wav").mkdir()
    fails(run("say", "Hello.", "-o", tmp_path / "folder.wav", "--model", "/no/such/model"), "it is a folder")
    fails(run("say", "Hello.", "-o", tmp_path / "a.wav", "--format", "pcm"), "--format pcm is for standard output")


def write_reference(path: Path, kind: str, voiced: np.ndarray) -> Path:
    noise = 0.1 * np.random.default_rng(0).standard_normal(600 * 16000)
    if kind == "silent":
        soundfile.write(path, np.zeros(48000), 16000)
    elif kind == "a tenth of a second":
        soundfile.write(path, noise[:1600], 16000)
    elif kind == "ten minutes":
        soundfile.write(path, noise, 16000)
    elif kind == "truncated":
        soundfile.write(path, voiced, 16000)
        path.write_bytes(path.read_bytes()[:40000])
    elif kind == "not audio":
        path.write_text("This is a text file, whatever its name.")
    elif kind == "empty":
        path.touch()
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("silent", "the reference is silent: 3 to 10 seconds"),
        ("a tenth of a second", "0.10 s, too short"),
        ("ten minutes", "too long: 10.0 minutes"),
        ("truncated", "truncated"),
        ("not audio", "not an audio file"),
        ("empty", "is empty"),
        ("missing", "there is no file"),
    ],
)
def test_references_that_are_no_good(say: Run, run: Run, tmp_path: Path, voiced: np.ndarray, kind: str, message: str):
    path = write_reference(tmp_path / "bad.wav", kind, voiced)
    fails(say("Hello.", "--voice", path, "--voice-text", "Words."), message)
    fails(run("voices", "add", "bad", path, "--text", "Words."), message)


def test_references_of_any_layout_are_fine(say: Run, tmp_path: Path, voiced: np.ndarray):
    loud = audio.resample(voiced, 16000, 48000)
    soundfile.write(tmp_path / "stereo.wav", np.stack([loud, 0.5 * loud], 1), 48000)
    soundfile.write(tmp_path / "eight.wav", voiced, 16000, subtype="PCM_U8")
    soundfile.write(tmp_path / "low.flac", audio.resample(voiced, 16000, 8000), 8000)
    for name in ("stereo.wav", "eight.wav", "low.flac"):
        result = say("Hello.", "--voice", tmp_path / name, "--voice-text", "Words.")
        assert result.code == 0, result.err


def test_a_reference_needs_its_transcript_and_the_other_way_round(say: Run, run: Run, reference: Path):
    fails(say("Hello.", "--voice", reference), "--voice-text")
    fails(say("Hello.", "--voice", reference, "--voice-text", " "), "--voice-text")
    fails(say("Hello.", "--voice-text", "Words."), "pass the recording with --voice FILE")
    fails(run("voices", "add", "anna", reference), "--voice-text")


def test_a_model_that_is_not_there_or_broken(run: Run, tmp_path: Path, lm_folder: Path):
    fails(run("say", "Hello.", "--model", "tynny"), "did you mean tiny?")
    fails(run("voices", "list", "--model", "/no/folder"), "no model called /no/folder")
    shutil.copytree(lm_folder.parent / "codec", tmp_path / "codec")
    copy = shutil.copytree(lm_folder, tmp_path / "lm")
    (copy / "config.json").write_text("{")
    fails(run("say", "Hello.", "--model", copy), "config.json cannot be read")
    shutil.copy(lm_folder / "config.json", copy)
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[:-100])
    for verb in (["say", "Hello."], ["info"]):
        result = run(*verb, "--model", copy)
        assert result.code == 1
        assert result.err.startswith(f"error: {copy / 'model.safetensors'} ")
        assert result.err.count("\n") == 1
    (copy / "tokenizer.json").unlink()
    fails(run("say", "Hello.", "--model", copy), "has no tokenizer.json")
