"""Commands that nobody should type, and files that nobody should pass: from a seed, without end.

Three kinds alternate: an option or argument gets a hostile value; a file that a command reads is damaged; a value in a
JSON or YAML file is replaced by one of another kind or size.
"""

import copy
import gzip
import io
import json
import os
import random
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml
from small_models import make_codec_folder, make_lm_folder

from llasa.codec import save_codes
from llasa.data.shards import AUDIO_SCHEMA, CODES_SCHEMA, write_shard
from llasa.models.folder import fingerprint
from llasa.text.lexicon import save_lexicon
from llasa.voice import Voice

DEEP = 100_000  # brackets
NUMBERS = (
    "0", "-1", "1", "0.5", "-5", "1e400", "-1e400", "inf", "nan", "99999999999999999999", "1000000000", "abc", "",
    "1e-320", "0x10", "2147483648", "١٢",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2.5, 7, 65, 1e308, float("inf"), float("nan"), 10**9, 10**18, 10**30, -(10**9), "",
    "tiny", "a" * 5000, "\x00", "\ud800", "/dev/zero", "../..", [], [[9, 9]], [None], ["x"], [10**9], {}, {"a": 1},
)  # fmt: skip
WORDS = (
    "",
    " ",
    "\n" * 50,
    "Hi." * 3000,
    "\x1b[31m",
    "😀" * 200,
    "-",
    "--",
    "%s%n",
    "ﷺ" * 50,
    "\u202e",
    " " * 400 + "a",
)


@dataclass(frozen=True)
class Case:
    """A command. `prepare` makes its files in an empty folder, where the command then runs."""

    says: str
    arguments: tuple[str, ...]
    prepare: Callable[[Path], None] = lambda scratch: None
    stdin: str | None = None


class Ground:
    """Good files of every kind that commands read, in one folder, and odd ones beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.codec = make_codec_folder(folder / "codec")
        self.lm = make_lm_folder(folder / "lm", "../codec")
        save_lexicon({"the": "ðə", "cat": "KæT"}, self.lm)
        (self.lm / "generation_config.json").write_text(json.dumps({"temperature": 0.7, "top_k": 20, "max_length": 9}))
        rng = np.random.default_rng(0)
        time = np.arange(48000) / 16000
        sound = (0.1 * np.sign(np.sin(2 * np.pi * 140 * time)) * (np.sin(2 * np.pi * 2 * time) > -0.5)).astype(
            np.float32
        )
        sound += rng.normal(0, 0.002, sound.size).astype(np.float32)
        for form in ("wav", "flac", "ogg", "mp3"):
            soundfile.write(folder / f"a.{form}", sound, 16000)
        save_codes(folder / "a.npy", rng.integers(0, 64, 100))
        codec_id = fingerprint(self.codec)
        Voice("anna", "the cat", rng.integers(0, 64, 100).astype(np.uint16), codec_id, sound, 16000).save(
            folder / "anna.safetensors"
        )
        rows = [
            {
                "id": str(i), "text": "the cat the cat", "speaker": "a", "language": "en", "seconds": 1.0,
                "codes": rng.integers(0, 64, 50), "phones": [], "ends": [],
            }
            for i in range(40)
        ]  # fmt: skip
        flac = (folder / "a.flac").read_bytes()
        for part in ("train", "val"):
            (folder / part).mkdir()
            write_shard(folder / part / "0.parquet", rows, CODES_SCHEMA)
        (folder / "audio").mkdir()
        audio = [{k: v for k, v in row.items() if k != "codes"} | {"audio": flac} for row in rows[:3]]
        write_shard(folder / "audio" / "0.parquet", audio, AUDIO_SCHEMA)
        (folder / "text.txt").write_text("The cat sat on the mat.\nThe old man walked to the river.\n" * 4)
        (folder / "list.jsonl").write_text(
            "".join(json.dumps({"audio": "a.wav", "text": "the cat", "id": str(i)}) + "\n" for i in range(3))
        )
        (folder / "list.csv").write_text("audio,text\na.wav,the cat\na.flac,the cat\n")
        with tarfile.open(folder / "a.tar", "w") as archive:
            for number in range(2):
                for suffix, data in (("flac", flac), ("json", b'{"text": "the cat", "id": "x"}')):
                    member = tarfile.TarInfo(f"{number}.{suffix}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
        self.recipes: dict[str, dict[str, Any]] = {
            "lm": {
                "out": "run", "codec": str(self.codec),
                "model": {
                    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
                    "num_key_value_heads": 1, "max_position_embeddings": 512,
                },
                "data": {
                    "corpus": {str(folder / "train"): 1}, "validation": str(folder / "val"), "lexicon": str(self.lm),
                    "tokens": 256, "longest": 200, "joined": 0.5, "spell": 0.1,
                },
                "losses": {"pointing_heads": [[1, 1]], "pointing_weight": 0.2, "sampled": 0.5},
                "schedule": {"steps": 1, "warmup": 1, "ema": 0.8, "lr": 1e-3, "seed": 0, "clip": 1, "betas": [0.9, 0.9]}
            },
            "codec": {
                "out": "run", "start": str(self.codec), "learn": "decoder", "compile": False,
                "data": {
                    "corpus": [str(folder / "audio")], "validation": [str(folder / "audio")],
                    "shapes": [[20, 1]],
                },
                "losses": {"scales": [[256, 20]]},
                "schedule": {"steps": 1, "warmup": 0},
            },
            "recogniser": {
                "out": "run",
                "data": {
                    "corpus": [str(folder / "audio")], "validation": str(folder / "audio"), "batch_seconds": 5,
                    "longest": 14,
                },
                "sizes": {"hidden": 32, "layers": 1, "heads": 2, "intermediate": 64, "kernel": 7},
                "losses": {"tap": 1},
                "schedule": {"steps": 1, "warmup": 0},
            },
        }  # fmt: skip
        (folder / "link.wav").symlink_to("/dev/zero")
        (folder / "loop").symlink_to(folder / "loop")
        (folder / "gone").symlink_to("/nowhere/at/all")
        (folder / "closed").mkdir()
        (folder / "empty").touch()
        with gzip.open(folder / "zeros.tar", "wb", 1) as file:  # which unpack to 300 MB
            for _ in range(300):
                file.write(bytes(1 << 20))
        sparse = folder / "huge"
        sparse.touch()
        os.truncate(sparse, 20 << 30)

    @property
    def paths(self) -> list[str]:
        """Paths that no command wants."""
        odd = [
            "link.wav",
            "loop",
            "gone",
            "closed",
            "empty",
            "zeros.tar",
            "huge",
            "a.wav",
            "a.npy",
            "a.tar",
            "lm",
            "codec",
        ]
        return [
            *(str(self.folder / name) for name in odd), "/dev/zero", "/dev/full", "/proc/self/mem", "/proc", "/",
            "n" * 300, f"{'d/' * 3000}x", "-", "", ".", "..", "\udcff.wav", "a\nb.wav", "\x1b[31m.wav", "a.npy/x",
            "http://127.0.0.1:9/a.wav", "nobody/nothing", "~", "*",
        ]  # fmt: skip


def cases(ground: Ground, seed: int) -> Iterator[Case]:
    """Hostile commands without end."""
    rng = random.Random(seed)
    kinds = (typed, typed, damaged, damaged, changed_json, changed_template, changed_recipe)
    while True:
        yield rng.choice(kinds)(ground, rng)


def commands(ground: Ground) -> dict[str, tuple[list[str], dict[str, str], list[str]]]:
    """For every verb: arguments that work, options with a value that works, and the files and folders that it reads."""
    at, lm = ground.folder, str(ground.lm)
    say = {
        "-m": "model", "--seed": "number", "--temperature": "number", "--top-p": "number", "--top-k": "number",
        "--min-p": "number", "--repetition-penalty": "number", "--max-seconds": "number", "--speed": "number",
        "--best-of": "number",
        "--budget": "number", "--search": "word", "--verify": "word", "--device": "device", "--dtype": "word",
        "--voice": "path", "--voice-text": "word", "-o": "path", "-f": "path", "--keep-candidates": "path",
        "--speaker": "word", "--format": "word",
    }  # fmt: skip
    model = {"-m": "model", "--device": "device", "-o": "path"}
    limits = dict.fromkeys(("--shortest", "--longest", "--quietest", "--voiced", "--slowest", "--workers"), "number")
    return {
        "say": (["say", "the cat", "-m", lm, "--max-seconds", "1", "-o", "o.wav"], say, [lm]),
        "clone": (
            ["say", "the cat", "-m", lm, "--max-seconds", "1", "--voice", f"{at}/a.wav", "--voice-text", "the cat"],
            say, [f"{at}/a.wav"],
        ),
        "voice": (["say", "the cat", "-m", lm, "--max-seconds", "1", "-v", f"{at}/anna.safetensors"], say,
                  [f"{at}/anna.safetensors"]),
        "read": (["say", "-m", lm, "--max-seconds", "1", "-f", f"{at}/text.txt"], say, [f"{at}/text.txt"]),
        "voices": (["voices", "list", "-m", lm], {"-m": "model"}, [lm]),
        "add": (["voices", "add", "x", f"{at}/a.wav", "--text", "the cat", "-m", lm], {"-m": "model", "--text": "word"},
                [f"{at}/a.flac"]),
        "encode": (["encode", f"{at}/a.wav", "-m", lm, "-o", "o.npy"], model, [f"{at}/a.wav"]),
        "encode-mp3": (["encode", f"{at}/a.mp3", "-m", lm, "-o", "o.npy"], model, [f"{at}/a.mp3"]),
        "decode": (["decode", f"{at}/a.npy", "-m", lm, "-o", "o.wav"], model, [f"{at}/a.npy"]),
        "info": (["info", "-m", lm], model, [lm]),
        "codec-info": (["encode", f"{at}/a.wav", "-m", str(ground.codec), "-o", "o.npy"], model, [str(ground.codec)]),
        "convert": (["convert", str(ground.codec), "out"], {}, [str(ground.codec)]),
        "export": (["export", "-m", lm, "out"], {}, [lm]),
        "data-tar": (["data", "encode", f"{at}/a.tar", "out", "-m", lm], limits, [f"{at}/a.tar"]),
        "data-list": (["data", "encode", f"{at}/list.jsonl", "out", "-m", lm], limits, [f"{at}/list.jsonl"]),
        "data-csv": (["data", "encode", f"{at}/list.csv", "out", "-m", lm], limits, [f"{at}/list.csv"]),
        "data-parquet": (["data", "encode", f"{at}/audio", "out", "-m", lm], limits, [f"{at}/audio"]),
        "recordings": (["data", "recordings", str(at), "out"], {"--name": "word"}, []),
        "data-export": (["data", "export", f"{at}/train", "out", "--model", lm], {}, [f"{at}/train"]),
        "lexicon": (["data", "lexicon", f"{at}/text.txt", "out"], {"--words": "path"}, [f"{at}/text.txt"]),
        "synth": (["data", "synth", f"{at}/text.txt", "out", "--workers", "1", "--limit", "2"],
                  {"--hours": "number", "--held-out": "number", "--teacher": "word", "--voice": "word",
                   "--format": "word", "--mixtures": "number"}, [f"{at}/text.txt"]),
        "finetune": (["finetune", "--data", f"{at}/list.jsonl", "--out", "out", "-m", lm, "--steps", "1"],
                     {"--data": "path", "--out": "path", "-m": "model", "--name": "word", "--device": "device"},
                     [f"{at}/list.jsonl"]),
        "plan": (["train", "lm", "lm.yaml", "--plan"], {"--steps": "number", "--threads": "number"}, []),
    }  # fmt: skip


def typed(ground: Ground, rng: random.Random) -> Case:
    """A good command with one hostile value more, or in the place of a good one."""
    name, (good, options, _) = rng.choice(list(commands(ground).items()))
    arguments = list(good)
    pools = {"number": NUMBERS, "word": (*WORDS, *NUMBERS), "path": ground.paths, "model": ground.paths,
             "device": ("meta", "hpu", "cuda:99", "xla", "", "cpu:7", "vulkan", "mkldnn", "privateuseone")}  # fmt: skip
    places = [i for i, given in enumerate(good) if i > 1 and not given.startswith("-")]
    if options and rng.random() < 0.7:
        option = rng.choice(list(options))
        arguments += [option, rng.choice(pools[options[option]])]
    elif places:
        arguments[rng.choice(places)] = rng.choice([*ground.paths, *WORDS])
    recipe = yaml.safe_dump(ground.recipes["lm"])
    return Case(f"typed {name}", tuple(arguments), lambda scratch: _write(scratch / "lm.yaml", recipe))


def damaged(ground: Ground, rng: random.Random) -> Case:
    """A good command whose file, or one file of whose folder, is damaged."""
    name, (good, _, reads) = rng.choice([item for item in commands(ground).items() if item[1][2]])
    source = Path(rng.choice(reads))
    files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
    victim, how, own = rng.choice(files), rng.choice(list(DAMAGE)), rng.getrandbits(32)
    arguments = [given.replace(str(source), f"copy{source.suffix}") for given in good]

    def prepare(scratch: Path) -> None:
        copied = scratch / f"copy{source.suffix}"
        _copy(ground, source, copied)
        target = copied if source.is_file() else copied / victim.relative_to(source)
        DAMAGE[how](target, random.Random(own))

    return Case(f"{how} {victim.name} for {name}", tuple(arguments), prepare)


def changed_json(ground: Ground, rng: random.Random) -> Case:
    """A good command, with a value in one of the JSON files of its model replaced."""
    name = rng.choice(["say", "info", "voices", "encode", "export", "codec-info", "convert"])
    good = commands(ground)[name][0]
    folder = ground.codec if name in ("codec-info", "convert") else ground.lm
    path = rng.choice(sorted(folder.glob("*.json")))
    content = json.loads(path.read_text())
    if path.name == "generation_config.json":
        content |= {"default_voice": "x", "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.1}
    where, value = _replace(content, rng)
    arguments = [given.replace(str(folder), "copy") for given in good]

    def prepare(scratch: Path) -> None:
        _copy(ground, folder, scratch / "copy")
        _write(scratch / "copy" / path.name, json.dumps(content))

    return Case(f"{path.name}: {where} = {value!r:.60} for {name}", tuple(arguments), prepare)


def changed_template(ground: Ground, rng: random.Random) -> Case:
    """A good command whose model has a chat template that is a hostile program."""
    name = rng.choice(["say", "clone", "data-export", "finetune"])
    arguments = [given.replace(str(ground.lm), "copy") for given in commands(ground)[name][0]]
    template = rng.choice(TEMPLATES)

    def prepare(scratch: Path) -> None:
        _copy(ground, ground.lm, scratch / "copy")
        _write(scratch / "copy" / "chat_template.jinja", template)

    return Case(f"chat template {template:.60} for {name}", tuple(arguments), prepare)


def changed_recipe(ground: Ground, rng: random.Random) -> Case:
    """A training for one step with a value of its recipe replaced, or a file that is no recipe."""
    stage = rng.choice(list(ground.recipes))
    recipe = copy.deepcopy(ground.recipes[stage])
    if rng.random() < 0.1:
        bomb = "a: &a [x]\n" + "".join(f"{n}: &{n} [{', '.join([f'*{p}'] * 10)}]\n" for p, n in pairwise("abcdefghi"))
        written = rng.choice(
            [
                bomb + "schedule: {steps: *i}\n",
                "[" * DEEP,
                "a: " * 1000,
                "\x00",
                "? [a]",
                "out: !!python/object:os.system x",
            ]
        )
        where, value = "the file", written
    else:
        where, value = _replace(recipe, rng)
        schedule = recipe.get("schedule")
        if isinstance(schedule, dict) and schedule.get("steps") in (65, 10**9, 10**18):
            schedule["steps"] = 2.5  # a long training is no hang
        written = yaml.safe_dump(recipe, allow_unicode=False)
    plan = ("--plan",) if stage == "lm" and rng.random() < 0.3 else ()
    return Case(
        f"{stage}.yaml: {where} = {value!r:.60}",
        ("train", stage, "recipe.yaml", "--threads", "1", *plan),
        lambda scratch: _write(scratch / "recipe.yaml", written),
    )


def _replace(content: Any, rng: random.Random) -> tuple[str, Any]:
    """Replaces one value in nested lists and mappings, in place, or adds a key; returns where, and by what."""
    spots: list[tuple[Any, Any, str]] = []

    def walk(node: Any, path: str) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node[:20]) if isinstance(node, list) else ()
        for key, child in items:
            spots.append((node, key, f"{path}.{key}"))
            walk(child, f"{path}.{key}")
        if isinstance(node, dict):
            spots.append((node, "unknown_key", f"{path}.unknown_key"))

    walk(content, "")
    node, key, where = rng.choice(spots)
    value = rng.choice(VALUES)
    node[key] = copy.deepcopy(value)
    return where, value


def _copy(ground: Ground, source: Path, target: Path) -> None:
    if source.is_file():
        shutil.copy(source, target)
        return
    shutil.copytree(source, target)
    config = target / "config.json"
    if source == ground.lm:
        config.write_text(config.read_text().replace("../codec", str(ground.codec)))


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))


def _edit(change: Callable[[bytes, random.Random], bytes]) -> Callable[[Path, random.Random], None]:
    def replace(path: Path, rng: random.Random) -> None:
        path.write_bytes(change(path.read_bytes(), rng))

    return replace


def _objects(path: Path, rng: random.Random) -> None:
    path.write_text('{"a":' * (1000 if path.suffix == ".txt" else DEEP))  # to speak a long text is no hang


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    near = rng.choice([len(data), min(len(data), 400)])  # headers matter most
    for _ in range(rng.choice([1, 3, 30])):
        if near:
            changed[rng.randrange(near)] = rng.randrange(256)
    return bytes(changed)


def _instead(make: Callable[[Path], None]) -> Callable[[Path, random.Random], None]:
    def replace(path: Path, rng: random.Random) -> None:
        path.unlink()
        make(path)

    return replace


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 20 << 30)


# Programs without end, of great size, or that change what is said.
TEMPLATES = (
    '{{ "x" * 10**9 }}', "{{ 10**(10**10) }}", '{{ "%999999999d" % 1 }}', "{{ messages[0].content.ljust(10**9) }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{{ messages[0].content }}{% endfor %}",
    "{% set x = namespace(s='xxxxxxxx') %}{% for i in range(40) %}{% set x.s = x.s ~ x.s %}{% endfor %}{{ x.s }}",
    "{% macro a() %}{{ a() }}{{ a() }}{% endmacro %}{{ a() }}", "{{ lipsum(n=10**6) }}", "{{ [1] * 10**9 }}",
    "{% for m in messages %}{{ m.content | upper }}{% endfor %}", "{{ cycler.__init__.__globals__.os.system('x') }}",
    "{{" + "(" * DEEP + "}}", "\x00", "",
)  # fmt: skip
# What can happen to a file.
DAMAGE: dict[str, Callable[[Path, random.Random], None]] = {
    "flipped": _edit(_flip),
    "cut": _edit(lambda data, rng: data[: rng.randrange(len(data) + 1)]),
    "doubled": _edit(lambda data, rng: data + data),
    "shuffled": _edit(lambda data, rng: data[(n := rng.randrange(len(data) + 1)) :] + data[:n]),
    "emptied": _edit(lambda data, rng: b""),
    "zeroed": _edit(lambda data, rng: bytes(len(data))),
    "nested": _edit(lambda data, rng: b"[" * DEEP),
    "nested objects": _objects,
    "surrogates": _edit(lambda data, rng: b'{"id": "\\ud800", "text": "\\udfff", "audio": "\\udc80"}\n'),
    "huge": _instead(_huge),
    "folder": _instead(Path.mkdir),
    "gone": _instead(lambda path: None),
    "/dev/zero": _instead(lambda path: path.symlink_to("/dev/zero")),
    "gzip": _edit(lambda data, rng: gzip.compress(bytes(300 << 20), 1)),
}
