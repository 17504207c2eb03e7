"""The command line, with the arguments, pipes and mistakes of its users: what comes out, where, with which status."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile

from llasa import audio
from llasa.cli import main
from llasa.tts import Llasa
from llasa.voice import Voice

LONG = "This is a sentence of the long text that is spoken here. " * 30


class Result(NamedTuple):
    code: int
    out: bytes
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs the command line in this process; standard output is no terminal."""
    monkeypatch.setenv("LLASA_HOME", str(tmp_path / "home"))

    def call(*arguments: object, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        out, err = capsysbinary.readouterr()
        return Result(int(stop.value.code or 0), out, err.decode())

    return call


@pytest.fixture(scope="module")
def model(lm_folder: Path) -> Llasa:
    return Llasa.load(lm_folder)


@pytest.fixture
def say(run: Run, lm_folder: Path, model: Llasa, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`llasa say` with a model that is loaded once for all tests; no chunk lasts more than a second."""
    monkeypatch.setattr(Llasa, "load", lambda name, device: model)

    def call(*arguments: object, stdin: bytes = b"") -> Result:
        return run("say", *arguments, "--model", lm_folder, "--max-seconds", 1, stdin=stdin)

    return call


def fails(result: Result, message: str, code: int = 1) -> None:
    """One line on standard error that says `message`, and nothing on standard output."""
    assert result.code == code
    assert result.out == b""
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert message in result.err


def read_wav(data: bytes) -> np.ndarray:
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    assert rate == 16000
    assert samples.ndim == 1
    return samples


@pytest.fixture
def reference(tmp_path: Path, voiced: np.ndarray) -> Path:
    path = tmp_path / "ref.wav"
    soundfile.write(path, voiced, 16000)
    return path


# --- Help ---


def test_help_is_quick_because_nothing_heavy_is_imported():
    code = (
        "import sys\nfrom llasa.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('torch', 'transformers', 'numpy', 'soundfile') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    for verb in ("say", "voices", "encode", "decode", "info"):
        assert verb in done.stdout


@pytest.mark.parametrize("verb", [["say"], ["voices"], ["voices", "add"], ["encode"], ["decode"]])
def test_every_verb_teaches_by_example(run: Run, verb: list[str]):
    result = run(*verb, "--help")
    assert result.code == 0
    assert f"llasa {' '.join(verb)}".encode() in result.out
    assert b"Example" in result.out


def test_version_and_usage(run: Run):
    assert run("--version").out.decode().strip()
    assert run("say", "--no-such-option").code == 2
    assert b"Usage" in run().out


# --- say ---


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


@pytest.mark.parametrize("text", ["", "  ", "...?!", "😀🎉", "\x00\x00"])
def test_nothing_to_say(say: Run, text: str):
    fails(say(text), "there is nothing to say")
    fails(say(stdin=text.encode()), "there is nothing to say")


@pytest.mark.parametrize("text", ["你好，世界。", "Здравствуй, мир", "שלום עולם"])
def test_another_script(say: Run, text: str):
    fails(say(text), "nothing in the text that this model can read")


def test_partly_another_script_is_a_note(say: Run):
    result = say("你好世界，你好世界，你好世界。\n\nHello there.")
    assert result.code == 0
    assert "note: left out 1 of 2 chunks" in result.err
    assert read_wav(result.out).size


def test_nul_bytes_among_words_do_not_matter(say: Run):
    assert say("--seed", 1, stdin=b"Hello \x00there.").out == say("Hello there.", "--seed", 1).out


def test_text_that_is_none(say: Run, tmp_path: Path, reference: Path):
    fails(say("-f", reference), "not text in UTF-8")
    fails(say(stdin=b"\xff\xfe\x00h"), "standard input is not text")
    fails(say("-f", tmp_path / "gone.txt"), "gone.txt: no such file")
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
        assert result.err.startswith(f"error: the model in {copy} cannot" if verb != ["info"] else "error: ")
        assert result.err.count("\n") == 1
    (copy / "tokenizer.json").unlink()
    fails(run("say", "Hello.", "--model", copy), "has no tokenizer.json")


# --- Ctrl-C and pipes ---


def start(arguments: list[object], **files: object) -> subprocess.Popen:
    def restore() -> None:  # a shell without job control starts its background jobs with Ctrl-C ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    command = [sys.executable, "-m", "llasa.cli", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, preexec_fn=restore, **files)  # type: ignore[call-overload]


def test_ctrl_c_during_a_stream_leaves_a_whole_file(lm_folder: Path, tmp_path: Path):
    (tmp_path / "text.txt").write_text(LONG * 20)
    path = tmp_path / "out.wav"
    with path.open("wb") as file:
        process = start(["say", "-f", tmp_path / "text.txt", "--stream", "--model", lm_folder], stdout=file)
        deadline = time.monotonic() + 100
        while path.stat().st_size < 100_000 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130
    assert "interrupted: kept what was spoken" in err
    assert "Traceback" not in err
    header = path.read_bytes()[:44]
    assert int.from_bytes(header[40:44], "little") == path.stat().st_size - 44
    assert len(read_wav(path.read_bytes())) > 40_000


def test_ctrl_c_saves_the_chunks_that_are_finished(
    say: Run, model: Llasa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from contextlib import contextmanager

    from llasa.commands import say as verb

    @contextmanager
    def impatient(label: str):
        def advance(done: float, total: float, seconds: float) -> None:
            if done > limit:
                raise KeyboardInterrupt

        yield advance

    monkeypatch.setattr(verb, "bar", impatient)
    monkeypatch.setattr(model, "_rows", 1)
    limit = 4.0
    result = say(LONG, "-o", tmp_path / "out.wav", "--seed", 1)
    assert result.code == 130
    assert "interrupted: kept the" in result.err
    assert len(audio.load(tmp_path / "out.wav")) / 16000 > 1
    limit = 0.0
    result = say(LONG, "-o", tmp_path / "none.wav", "--seed", 1)
    assert result.code == 130
    assert result.err == "interrupted: nothing was finished\n"
    assert os.listdir(tmp_path) == ["out.wav"]


def test_a_reader_that_goes_away_is_no_error(lm_folder: Path):
    process = start(["say", LONG * 3, "--stream", "--model", lm_folder], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert len(process.stdout.read(1000)) == 1000
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read().decode()
    assert process.wait(timeout=60) == 1
    assert err == ""


# --- voices ---


def test_voices_are_added_listed_used_and_removed(run: Run, say: Run, reference: Path, lm_folder: Path):
    listed = run("voices", "list", "--model", lm_folder)
    assert (listed.code, listed.out) == (0, b"")
    assert "add one with `llasa voices add`" in listed.err
    added = run("voices", "add", "anna", reference, "--text", "What Anna says.", "--model", lm_folder)
    assert added.code == 0
    fails(run("voices", "add", "anna", reference, "--text", "Again.", "--model", lm_folder), "pass --force")
    assert run("voices", "add", "anna", reference, "--text", "Again.", "--model", lm_folder, "--force").code == 0
    assert run("voices", "list", "--model", lm_folder).out.decode().split() == ["anna", "yours", "Again."]
    by_name = say("Hello.", "--voice", "anna", "--seed", 1)
    assert by_name.out == say("Hello.", "--voice", reference, "--voice-text", "Again.", "--seed", 1).out
    fails(say("Hello.", "--voice", "ana"), "no voice called ana: did you mean anna?")
    fails(say("Hello.", "--voice", "anna", "--voice-text", "Words."), "--voice-text is the transcript of a recording")
    fails(run("voices", "remove", "hanna"), "no voice of yours called hanna: did you mean anna?")
    assert run("voices", "remove", "anna").code == 0
    assert run("voices", "--help").code == 0
    fails(say("Hello.", "--voice", "anna"), "no voice called anna, nor any other")


def test_a_broken_voice_is_told_in_its_line(run: Run, tmp_path: Path, lm_folder: Path, say: Run):
    folder = tmp_path / "home" / "voices"
    Voice("good", "Words.", np.arange(9, dtype=np.uint16)).save(folder / "good.safetensors")
    (folder / "bad.safetensors").write_bytes(b"nonsense")
    lines = run("voices", "list", "--model", lm_folder).out.decode().splitlines()
    assert lines[0].startswith("bad   yours   error: ")
    assert lines[1] == "good  yours   Words."
    fails(say("Hello.", "--voice", "bad"), "damaged or not a voice file")
    fails(say("Hello.", "--voice", "good"), "made for another codec and holds no audio")
    fails(say("Hello.", "--voice", tmp_path / "gone.safetensors"), "there is no voice file")


@pytest.mark.parametrize("name", ["../up", "a/b", ".x"])
def test_a_name_that_is_no_name(run: Run, reference: Path, name: str):
    fails(run("voices", "add", name, reference, "--text", "Words."), "cannot name a voice")
    fails(run("voices", "remove", name), "cannot name a voice")


# --- encode and decode ---


def test_files_become_codes_and_audio_again(run: Run, reference: Path, tmp_path: Path, lm_folder: Path):
    codec = lm_folder.parent / "codec"
    assert run("encode", reference, "--model", lm_folder).code == 0
    codes = np.load(tmp_path / "ref.npy")
    assert codes.dtype == np.uint16
    assert len(codes) == 48000 // 320 + 1
    assert run("encode", reference, "-o", tmp_path / "x.npy", "--model", codec).code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), codes)
    assert run("decode", tmp_path / "x.npy", "-o", tmp_path / "x.flac", "--model", codec).code == 0
    assert len(audio.load(tmp_path / "x.flac")) == len(codes) * 320


def test_folders_keep_their_layout_and_go_on_where_they_stopped(
    run: Run, tmp_path: Path, voiced: np.ndarray, lm_folder: Path
):
    for name in ("a.wav", "deep/er/b.flac"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "in" / name, voiced, 16000)
    (tmp_path / "in" / "notes.txt").touch()
    model = ("--model", lm_folder)
    first = run("encode", tmp_path / "in", "-o", tmp_path / "out", *model)
    assert "2 files made (6.0 s of audio)" in first.err
    made = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert made == ["a.npy", "deep/er/b.npy"]
    (tmp_path / "out" / "a.npy").unlink()
    np.save(tmp_path / "out" / "deep" / "er" / "b.npy", np.arange(5))
    again = run("encode", tmp_path / "in", "-o", tmp_path / "out", *model)
    assert "1 files made" in again.err
    assert "1 existed already" in again.err
    assert len(np.load(tmp_path / "out" / "deep" / "er" / "b.npy")) == 5
    assert "2 files made" in run("encode", tmp_path / "in", "-o", tmp_path / "out", "--force", *model).err
    assert len(np.load(tmp_path / "out" / "deep" / "er" / "b.npy")) == 151
    assert run("decode", tmp_path / "out", *model).code == 0
    assert (tmp_path / "out" / "deep" / "er" / "b.wav").exists()


def test_one_bad_file_does_not_stop_the_others(run: Run, tmp_path: Path, voiced: np.ndarray, lm_folder: Path):
    soundfile.write(tmp_path / "b.wav", voiced, 16000)
    (tmp_path / "a.wav").write_text("no audio")
    result = run("encode", tmp_path, "--model", lm_folder)
    assert result.code == 1
    lines = result.err.splitlines()
    assert "a.wav cannot be read as audio" in lines[0]
    assert lines[-1] == "error: 1 of 2 files failed, as told above"
    assert (tmp_path / "b.npy").exists()


def test_codes_that_cannot_be_decoded(run: Run, tmp_path: Path, lm_folder: Path):
    model = ("--model", lm_folder)
    for codes, message in (
        (np.array([1, 64, 3]), "code 64 is outside this codec's codebook of 64"),
        (np.array([-1]), "code -1 is outside"),
        (np.array([0.5]), "whole numbers"),
        (np.zeros((2, 2), int), "one row"),
        (np.array([], int), "no codes"),
    ):
        np.save(tmp_path / "x.npy", codes)
        fails(run("decode", tmp_path / "x.npy", *model), message)
    (tmp_path / "x.npy").write_bytes(b"nonsense")
    fails(run("decode", tmp_path / "x.npy", *model), "damaged")
    assert os.listdir(tmp_path) == ["x.npy"]


def test_inputs_and_outputs_that_make_no_sense(run: Run, tmp_path: Path, reference: Path, lm_folder: Path):
    model = ("--model", lm_folder)
    fails(run("encode", tmp_path / "gone.wav", *model), "there is no file")
    (tmp_path / "empty").mkdir()
    fails(run("encode", tmp_path / "empty", *model), "there are no .wav")
    fails(run("encode", reference, "-o", tmp_path / "x.txt", *model), "end its name in .npy")
    shutil.copy(reference, tmp_path / "ref.flac")
    fails(run("encode", reference, tmp_path / "ref.flac", *model), "would both become")
    fails(run("encode", reference, "-o", "/proc/x.npy", *model), "cannot write /proc/x.npy")
    fails(run("encode", reference, "-o", f"{reference}/x.npy", *model), "cannot make the folder")


# --- info ---


def test_info_tells_versions_and_sizes(run: Run, lm_folder: Path, codec_folder: Path):
    result = run("info", "--model", lm_folder)
    assert result.code == 0
    text = result.out.decode()
    total = sum(t.numel() for t in _weights(lm_folder))
    assert f"{total / 1e6:,.1f} million parameters, 2 layers of 64, context 512 tokens" in text
    assert "64 codes, 50 a second" in text
    assert "0 presets, 0 of your own" in text
    assert str(codec_folder) in text


def _weights(folder: Path) -> list:
    from safetensors.torch import load_file

    return list(load_file(folder / "model.safetensors").values())


def test_info_measures_this_machine(run: Run, lm_folder: Path, tmp_path: Path):
    copy = shutil.copytree(lm_folder, tmp_path / "lm")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"codec": str(lm_folder.parent / "codec")}))
    text = run("info", "--model", copy, "--benchmark").out.decode()
    for measured in ("codes a second", "real-time factor", "first audio of a stream"):
        assert measured in text
