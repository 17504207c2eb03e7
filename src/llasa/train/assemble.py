"""Puts trained stages together as the folders that ship: half-precision weights, preset voices."""

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaForCausalLM, Wav2Vec2BertForCTC

from llasa import audio
from llasa.codec import Codec
from llasa.data.shards import read_rows, row_audio, shard_files
from llasa.errors import LlasaError
from llasa.lexicon import load_lexicon, save_lexicon
from llasa.loading import fingerprint
from llasa.speech import LEVEL
from llasa.train.semantic import save_recogniser
from llasa.voice import Voice


@dataclass
class Settings:
    """`recipes/*/voice.yaml`: where the stages left their models, and the sampling that suits the voice.

    `presets` maps a preset's name to a speaker of the corpus, or to the id of the utterance that is to be its
    reference; the first is the default.
    """

    runs: str = "runs"
    corpus: str = "runs/corpus"
    sampling: dict[str, float] = field(default_factory=dict)
    presets: dict[str, str] = field(default_factory=dict)


SHORTEST, LONGEST = 3.0, 6.0  # seconds of a preset's reference


def assemble(settings: Settings, out: Path) -> None:
    """Writes `out/recogniser`, `out/codec` and `out/lm` (with its voices), each whole before it replaces an older one.

    Raises:
        LlasaError: a stage has no model yet.
    """
    runs = Path(settings.runs)
    # The recogniser that was trained on through the codec, where there was one; the decoder's own run, where there was
    # one, has the same codes and the better sound.
    recogniser = _newest(runs, "recogniser", "semantic")
    codec = _newest(runs, "decoder", "codec")
    lm = _newest(runs, "lm")
    fresh = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    save_recogniser(Wav2Vec2BertForCTC.from_pretrained(recogniser, dtype=torch.float32), fresh / "recogniser")
    Codec.load(codec).model.half().save_pretrained(fresh / "codec")
    if (card := codec / "README.md").exists():  # the licence of what it was trained on from
        shutil.copyfile(card, fresh / "codec" / "README.md")
    model = LlamaForCausalLM.from_pretrained(lm, dtype=torch.float32).half()
    model.config.codec = "../codec"
    model.config.default_voice = next(iter(settings.presets), None)
    for key, value in settings.sampling.items():
        setattr(model.generation_config, key, value)
    model.generation_config.do_sample = True
    model.save_pretrained(fresh / "lm")
    AutoTokenizer.from_pretrained(lm).save_pretrained(fresh / "lm")
    if lexicon := load_lexicon(lm):
        save_lexicon(lexicon, fresh / "lm")
    make_voices(fresh, Path(settings.corpus), settings.presets)
    for part in ("recogniser", "codec", "lm"):
        shutil.rmtree(out / part, ignore_errors=True)
        out.mkdir(parents=True, exist_ok=True)
        (fresh / part).rename(out / part)
    fresh.rmdir()


def _newest(runs: Path, *stages: str) -> Path:
    """The model of the last of the stages that has one, named from the last to the first."""
    for stage in stages:
        if (runs / stage / "model" / "config.json").exists():
            return runs / stage / "model"
    raise LlasaError(f"{runs / stages[-1]} has no model yet: train {stages[-1]} first, as recipes/tiny/run does")


def make_voices(folder: Path, corpus: Path, presets: dict[str, str]) -> None:
    """Preset voices, of held-out clips before trained ones.

    Raises:
        LlasaError: the corpus has no speaker or utterance that a preset names.
    """
    codec = Codec.load(folder / "codec")
    mark = fingerprint(folder / "codec")
    rows = _candidates(corpus / "val", corpus / "train", corpus / "val-real", corpus / "real")
    for name, wanted in presets.items():
        own = [row for row in rows if wanted in (row["speaker"], row["id"])]
        if not own:
            raise LlasaError(f"the preset {name} is of {wanted}, of whom {corpus} has no clip that can be a reference")
        # Of a speaker's first clips the one whose length is nearest the middle of what is asked.
        row = min(own[:8], key=lambda r: abs(r["seconds"] - (SHORTEST + LONGEST) / 2))
        samples = row_audio(row)
        samples = audio.set_loudness(samples, codec.rate, LEVEL)
        Voice(name, row["text"], codec.encode(samples), mark).save(folder / "lm" / "voices" / f"{name}.safetensors")


def _candidates(*folders: Path) -> list[dict[str, Any]]:
    """Rows of each folder's first shards fit to be a reference: neither short nor long, and a plain sentence."""
    found = (folder for folder in folders if folder.exists())
    rows = [row for folder in found for file in shard_files(folder)[:16] for row in read_rows(file)]
    return [r for r in rows if SHORTEST <= r["seconds"] <= LONGEST and not re.search(r"[^A-Za-z ,.'?!-]", r["text"])]
