"""The recipe of the shipped voice, end to end at toy size, through the command line, with a stop in the middle."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from stopping import interrupted
from transformers import AutoModelForCausalLM, AutoTokenizer, Wav2Vec2BertForCTC

import llasa
from llasa.codec import load_codec
from llasa.data.shards import read_rows, shard_files
from llasa.train.settings import merged
from llasa.tts import Llasa
from llasa.vocabulary import read_vocabulary
from llasa.voice import Voice

RECIPES = Path(__file__).parents[2] / "recipes" / "tiny"
WORDS = "the a cat dog sat ran on under mat tree big red old new fast slowly quietly again today never".split()  # noqa: SIM905
SMALL = {
    "lm": {
        "data": {"tokens": 700, "longest": 500}, "schedule": {"steps": 6, "warmup": 2},
        "model": {
            "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 2, "max_position_embeddings": 512, "tie_word_embeddings": True,
        },
        "losses": {"pointing_heads": [[1, 0]]},
    },
    "recogniser": {
        "sizes": {"hidden": 32, "layers": 3, "heads": 2, "intermediate": 64, "kernel": 5}, "losses": {"tap": 2},
        "schedule": {"steps": 3}, "data": {"batch_seconds": 4.0},
    },
    "voice": {"presets": {"rms": "rms", "reader": "r7"}},
}  # fmt: skip
SIZES = {
    "quantization_levels": [4] * 4, "encoder_hidden": 16, "encoder_layers": 1, "decoder_hidden": 16,
    "decoder_layers": 1, "fine_hidden": 16, "fine_layers": 1,
}  # fmt: skip


Start = Callable[..., subprocess.CompletedProcess[str]]
Run = Callable[..., str]


@pytest.fixture(scope="module")
def path(python: list[str]) -> str:
    """A PATH whose `llasa` and `python` start at once."""
    return os.pathsep.join([str(Path(python[-1]).parent), str(Path(sys.executable).parent), os.environ["PATH"]])


@pytest.fixture(scope="module")
def start(path: str) -> Start:
    """Runs a command as a user types it."""

    def start(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [Path(path.split(os.pathsep)[0]) / "llasa", *map(str, arguments)]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True)

    return start


@pytest.fixture(scope="module")
def run(start: Start) -> Run:
    """The same; fails the test with the command's output if it fails."""

    def run(folder: Path, *arguments: object) -> str:
        done = start(folder, *arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, voices_of_two: Path, path: str) -> Path:
    """All stages, run once."""
    folder = tmp_path_factory.mktemp("recipe")
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(WORDS, rng.integers(9, 13))) + "." for _ in range(40)]
    (folder / "text.txt").write_text("\n".join(lines))
    (folder / "recipes/tiny").mkdir(parents=True)
    for stage, changes in SMALL.items():
        settings = yaml.safe_load((RECIPES / f"{stage}.yaml").read_text())
        settings.pop("presets", None)  # of people who are not in this corpus
        (folder / f"recipes/tiny/{stage}.yaml").write_text(yaml.safe_dump(merged(settings, changes), sort_keys=False))
    sizes = json.dumps(SIZES, separators=(",", ":"))
    environment = {
        "PATH": path, "TEACHER": "flite",
        "CODEC": f"--minutes 0.03 --finish 0.03 --seconds 4 --workers 1 --config {sizes}",
    }  # fmt: skip
    done = subprocess.run(
        [RECIPES / "run", "voice", "text.txt", voices_of_two],
        cwd=folder, capture_output=True, text=True, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return folder


@pytest.fixture(scope="module")
def voices_of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An LJSpeech-layout folder of recordings, at another rate and in stereo."""
    from llasa.data.teachers.flite import Speaker, speak

    folder = tmp_path_factory.mktemp("recordings")
    lines = []
    for i in range(13):
        samples, _, _ = speak(
            f"This is sentence number {WORDS[i]}, read out loud, one word at a time.", Speaker("slt", "slt")
        )
        soundfile.write(folder / f"r{i}.wav", np.stack([samples, samples], 1), 16000)
        lines.append(f"r{i}|This is sentence number {WORDS[i]}, read out loud, one word at a time.")
    (folder / "metadata.csv").write_text("\n".join(lines))
    return folder


def test_corpus_holds_every_sentence_with_its_alignment(built: Path) -> None:
    rows = [row for part in ("train", "val") for f in shard_files(built / "runs/corpus" / part) for row in read_rows(f)]
    assert len(rows) == 40
    assert len({row["speaker"] for row in rows}) > 4
    for row in rows:
        assert len(row["phones"]) == len(row["ends"]) > 10
        assert row["ends"] == sorted(row["ends"])
        assert row["ends"][-1] <= row["seconds"] + 0.01


def test_recordings_are_split_and_keep_their_texts(built: Path) -> None:
    kept = [row for f in shard_files(built / "runs/corpus/real") for row in read_rows(f)]
    held = [row for f in shard_files(built / "runs/corpus/val-real") for row in read_rows(f)]
    assert (len(kept), len(held)) == (11, 2)
    assert all("read out loud" in row["text"] for row in kept + held)


def test_codes_are_one_for_every_hop(built: Path) -> None:
    rows = [row for file in shard_files(built / "runs/codec/codes") for row in read_rows(file)]
    held = [row for file in shard_files(built / "runs/codes/val") for row in read_rows(file)]
    assert len({row["id"] for row in rows}) == len(rows) == 4 * (39 + 11)  # and one is held out
    assert len(held) == 1
    for row in rows + held:
        assert abs(len(row["codes"]) - row["seconds"] * 50) <= 1
        assert max(row["codes"]) < 4**4


def test_every_stage_logs_its_losses(built: Path) -> None:
    for stage, steps in (("lm", 6), ("recogniser", 3)):
        rows = [json.loads(line) for line in (built / "runs" / stage / "log.jsonl").read_text().splitlines()]
        assert rows[-1]["step"] == steps
        assert list((built / "runs" / stage / "tensorboard").iterdir())
    assert list((built / "runs/lm/validation").glob("*.png"))
    stages = [json.loads(line)["stage"] for line in (built / "runs/codec/log.jsonl").read_text().splitlines()]
    assert set(stages) == {"together", "finish"}


def test_codes_without_a_codec_are_no_corpus_of_sound(built: Path, start: Start) -> None:
    settings = yaml.safe_load((built / "recipes/tiny/recogniser.yaml").read_text())
    settings = merged(settings, {"data": {"corpus": ["runs/codec/codes"], "codec": ""}, "out": "runs/deaf"})
    (built / "deaf.yaml").write_text(yaml.safe_dump(settings))
    done = start(built, "train", "recogniser", "deaf.yaml")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: there are shards of codes in the corpus")


def test_the_assembled_folders_load_in_plain_transformers(built: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(built / "voice/lm")
    vocabulary = read_vocabulary(AutoTokenizer.from_pretrained(built / "voice/lm"))
    assert model.config.vocab_size == len(vocabulary.tokenizer)
    assert vocabulary.size == 4**4
    assert Voice.load(built / "voice/lm/voices/reader.safetensors").reused
    assert load_codec(built / "voice/codec").model.config.quantization_levels == [4] * 4
    assert Wav2Vec2BertForCTC.from_pretrained(built / "voice/recogniser").config.num_hidden_layers == 3


def test_the_licence_of_a_codec_s_weights_goes_into_the_voice(built: Path, run: Run, tmp_path: Path) -> None:
    shutil.copytree(built / "runs", tmp_path / "runs")
    card = "---\nlicense: cc-by-nc-4.0\n---\nTrained on from official weights.\n"
    (tmp_path / "runs/codec/model/README.md").write_text(card)
    shutil.copy(built / "recipes/tiny/voice.yaml", tmp_path)
    run(tmp_path, "train", "assemble", "voice.yaml", "voice")
    assert (tmp_path / "voice/codec/README.md").read_text() == card
    assert "no commercial use" in run(tmp_path, "info", "--model", "voice/lm")
    assert not (built / "voice/codec/README.md").exists()


def test_presets_are_of_whom_the_recipe_says(built: Path, start: Start, tmp_path: Path) -> None:
    assert sorted(path.stem for path in (built / "voice/lm/voices").iterdir()) == ["reader", "rms"]
    assert (voice := Llasa.load(built / "voice/lm").voice()) is not None
    assert voice.name == "rms"
    settings = yaml.safe_load((built / "recipes/tiny/voice.yaml").read_text()) | {"presets": {"x": "nobody"}}
    (tmp_path / "voice.yaml").write_text(yaml.safe_dump(settings))
    done = start(built, "train", "assemble", tmp_path / "voice.yaml", tmp_path / "voice")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        "has no clip of nobody that can be the reference of the preset x: choose another speaker or utterance"
    )
    assert not (tmp_path / "voice").exists()


def test_the_assembled_voice_speaks(built: Path, run: Run) -> None:
    run(built, "say", "The old cat sat.", "--model", "voice/lm", "-o", "out.wav", "--seed", 1)
    samples, rate = soundfile.read(built / "out.wav")
    assert rate == 16000
    assert len(samples) >= 320
    assert np.isfinite(samples).all()
    assert llasa.__version__ in run(built, "--version")


@pytest.mark.parametrize("stage", ["recogniser", "lm"])
def test_a_finished_stage_started_again_does_nothing(built: Path, run: Run, stage: str) -> None:
    weights = built / "runs" / stage / "model" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    run(built, "train", stage, f"recipes/tiny/{stage}.yaml", "--threads", 1)
    assert weights.stat().st_mtime_ns == before


def test_a_stage_asked_to_stop_goes_on_where_it_was(built: Path, run: Run, python: list[str], tmp_path: Path) -> None:
    settings = yaml.safe_load((built / "recipes/tiny/lm.yaml").read_text())
    settings = merged(settings, {"schedule": {"steps": 100000}, "out": str(tmp_path / "lm")})
    (tmp_path / "lm.yaml").write_text(yaml.safe_dump(settings))
    command = [*python, "-m", "llasa", "train", "lm", str(tmp_path / "lm.yaml"), "--threads", "1"]
    with subprocess.Popen(command, cwd=built, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("lm 20/"):
                process.send_signal(signal.SIGTERM)
                break
        process.stdout.read()
        assert process.wait(60) == 0
    first = json.loads((tmp_path / "lm/log.jsonl").read_text().splitlines()[-1])["step"]
    assert first >= 20
    run(built, "train", "lm", tmp_path / "lm.yaml", "--steps", first + 20, "--threads", 1)
    rows = [json.loads(line) for line in (tmp_path / "lm/log.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == first + 20


@pytest.mark.parametrize("module", ["typer", "torch", "llasa.train.lm.run", "llasa.train.loop"])
def test_a_stage_terminated_before_it_listens_leaves_nothing_half_written(
    built: Path, tmp_path: Path, module: str
) -> None:
    settings = yaml.safe_load((built / "recipes/tiny/lm.yaml").read_text())
    settings = merged(settings, {"schedule": {"steps": 100000}, "out": str(tmp_path / "lm")})
    (tmp_path / "lm.yaml").write_text(yaml.safe_dump(settings))
    arguments = ["train", "lm", tmp_path / "lm.yaml", "--threads", 1]
    status, told = interrupted(arguments, signal.SIGTERM, module, cwd=built)
    assert status in (0, 143, -signal.SIGTERM)  # the last before Python can say anything
    assert "Traceback" not in told
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith((".tmp", ".mode"))]


def test_a_model_where_a_codec_is_asked_for_is_one_line(built: Path, start: Start) -> None:
    settings = yaml.safe_load((built / "recipes/tiny/lm.yaml").read_text())
    (built / "bad.yaml").write_text(yaml.safe_dump(settings | {"codec": "tiny", "out": "runs/bad"}))
    done = start(built, "train", "lm", "bad.yaml")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "codec" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (built / "runs/bad").exists()


def test_bad_recipes_are_one_line(built: Path, start: Start) -> None:
    (built / "bad.yaml").write_text("corpus: {}\nnonsense: 1\n")
    for name in ("bad.yaml", "missing.yaml"):
        done = start(built, "train", "lm", name)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
