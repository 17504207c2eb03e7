"""Puts trained stages together as the folders that ship: half-precision weights, preset voices."""

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaForCausalLM, Wav2Vec2BertForCTC, Xcodec2Model

from llasa.codec import Codec
from llasa.data.shards import read_rows, row_audio, shard_files
from llasa.data.teachers.flite import TEACHERS
from llasa.errors import LlasaError
from llasa.lexicon import load_lexicon, save_lexicon
from llasa.loading import fingerprint
from llasa.train.semantic import save_recogniser
from llasa.voice import Voice


@dataclass
class Settings:
    """`recipes/*/voice.yaml`: where the stages left their models, and the sampling that suits the voice."""

    runs: str = "runs"
    corpus: str = "runs/corpus"
    sampling: dict[str, float] = field(default_factory=dict)


SHORTEST, LONGEST = 3.0, 6.0  # seconds of a preset's reference
# Presets made of shifted speakers get names of their own; which speaker each is, is in the card of what ships.
NAMES = ("alma", "bruno", "clara", "dario", "edith", "felix", "greta", "hugo")
READER = "reader"


def assemble(settings: Settings, out: Path) -> None:
    """Writes `out/recogniser`, `out/codec` and `out/lm` (with its voices), each whole before it replaces an older one.

    Raises:
        LlasaError: a stage has no model yet.
    """
    runs = Path(settings.runs)
    for stage in ("semantic", "codec", "lm"):
        if not (runs / stage / "model" / "config.json").exists():
            raise LlasaError(f"{runs / stage} has no model yet: run `llasa train {stage}` first")
    fresh = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    # The recogniser that was trained on through the codec, where there was one.
    recogniser = runs / "recogniser" / "model"
    recogniser = recogniser if (recogniser / "config.json").exists() else runs / "semantic" / "model"
    save_recogniser(Wav2Vec2BertForCTC.from_pretrained(recogniser, dtype=torch.float32), fresh / "recogniser")
    # The decoder's own run, where there was one, has the same codes and the better sound.
    codec = runs / "decoder" / "model"
    codec = codec if (codec / "config.json").exists() else runs / "codec" / "model"
    Xcodec2Model.from_pretrained(codec, dtype=torch.float32).half().save_pretrained(fresh / "codec")
    if (card := codec / "README.md").exists():  # the licence of what it was trained on from
        shutil.copyfile(card, fresh / "codec" / "README.md")
    model = LlamaForCausalLM.from_pretrained(runs / "lm" / "model", dtype=torch.float32).half()
    model.config.codec = "../codec"
    model.config.default_voice = TEACHERS[0]
    for key, value in settings.sampling.items():
        setattr(model.generation_config, key, value)
    model.generation_config.do_sample = True
    model.save_pretrained(fresh / "lm")
    AutoTokenizer.from_pretrained(runs / "lm" / "model").save_pretrained(fresh / "lm")
    if lexicon := load_lexicon(runs / "lm" / "model"):
        save_lexicon(lexicon, fresh / "lm")
    make_voices(fresh, Path(settings.corpus))
    for part in ("recogniser", "codec", "lm"):
        shutil.rmtree(out / part, ignore_errors=True)
        out.mkdir(parents=True, exist_ok=True)
        (fresh / part).rename(out / part)
    fresh.rmdir()


def make_voices(folder: Path, corpus: Path) -> None:
    """Preset voices: the teachers, some shifted speakers, and the human reader; held-out clips before trained ones."""
    codec = Codec.load(folder / "codec")
    mark = fingerprint(folder / "codec")
    rows = _candidates(corpus / "val", corpus / "train")
    shifted = sorted({row["speaker"] for row in rows} - set(TEACHERS))
    chosen = dict(zip(NAMES, shifted[:: max(1, len(shifted) // len(NAMES))], strict=False))
    presets = {teacher: teacher for teacher in TEACHERS} | chosen
    if (corpus / "val-real").exists():
        human = [row for row in _candidates(corpus / "val-real", corpus / "real") if row["text"]]
        rows += human
        presets |= {READER: human[0]["speaker"]} if human else {}
    for name, speaker in presets.items():
        own = [row for row in rows if row["speaker"] == speaker]
        if not own:
            continue
        # Of a speaker's first clips the one whose length is nearest the middle of what is asked.
        row = min(own[:8], key=lambda r: abs(r["seconds"] - (SHORTEST + LONGEST) / 2))
        samples = row_audio(row)
        Voice(name, row["text"], codec.encode(samples), mark).save(folder / "lm" / "voices" / f"{name}.safetensors")


def _candidates(*folders: Path) -> list[dict[str, Any]]:
    """Rows of each folder's first shards fit to be a reference: neither short nor long, and a plain sentence."""
    rows = [row for folder in folders for file in shard_files(folder)[:16] for row in read_rows(file)]
    return [r for r in rows if SHORTEST <= r["seconds"] <= LONGEST and not re.search(r"[^A-Za-z ,.'?!-]", r["text"])]
