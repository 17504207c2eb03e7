"""Reads the sentences for reinforcement learning and turns them into prompts, each in a voice."""

from collections import defaultdict
from dataclasses import dataclass, field, replace

import numpy as np

from llasa.codec import Codec
from llasa.errors import LlasaError, printable
from llasa.files import read_text
from llasa.models.folder import fingerprint
from llasa.speak.plan import Piece, Planner
from llasa.train.rl.settings import Data
from llasa.train.voice.data import Base
from llasa.verifiers import RATE
from llasa.voice import Voice, Voices


@dataclass(frozen=True, eq=False)
class Prompt:
    """A sentence to be said.

    Attributes:
        number: its number in the run, from which the seeds of its samples follow.
        piece: the sentence with its prompt, as for speaking.
        voice: the name of its voice; None without one.
        reference: (R,) float32 at `RATE`, the recording that it should sound like; None without a voice.
    """

    number: int
    piece: Piece
    voice: str | None
    reference: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Texts:
    """The lines of a file that the model can speak, in random order, and why others were left out.

    Attributes:
        good: the lines.
        left_out: the reasons, each with the numbers of its lines.
    """

    good: list[str]
    left_out: dict[str, list[int]]

    def table(self) -> str:
        """What was left out, for people to read; empty if nothing was."""
        lines = []
        for why, numbers in self.left_out.items():
            shown = ", ".join(map(str, sorted(numbers)[:3])) + (", ..." if len(numbers) > 3 else "")
            lines.append(f"left out {len(numbers)} {why}: line{'s' * (len(numbers) > 1)} {shown}")
        return "\n".join(lines)


def read_texts(data: Data, planner: Planner, voice: Voice | None, count: int, seed: int) -> Texts:
    """Picks up to `count` lines of `data.texts` at random, each once.

    Args:
        voice: the voice that leaves the least room for text.

    Raises:
        LlasaError: the file cannot be read, or fewer lines are left than are held out and one more.
    """
    lines = read_text(data.texts).split("\n")
    while lines and not lines[-1]:
        lines.pop()  # the end of the last line
    good: list[str] = []
    left_out: defaultdict[str, list[int]] = defaultdict(list)
    for index in np.random.default_rng(seed).permutation(len(lines)).tolist():
        why = _fault(lines[index], data.longest, planner, voice)
        if why:
            left_out[why].append(index + 1)
        else:
            good.append(lines[index].strip())
        if len(good) == count:
            break
    found = Texts(good, dict(left_out))
    if len(good) <= data.held_out:
        told = "; ".join(found.table().splitlines())
        raise LlasaError(
            f"{data.texts} has {len(good)} sentences that can be spoken, of which {data.held_out} are held out: give "
            f"more, or lower `data.held_out`{f' ({told})' if told else ''}"
        )
    return found


def _fault(line: str, longest: int, planner: Planner, voice: Voice | None) -> str:
    """Why a line cannot be used, in words that go on from a number; empty if it can."""
    if not line.strip():
        return "that are empty"
    if len(line.strip()) > longest:
        return f"of more than {longest} characters"
    try:
        chunks, unread = planner.chunks(line, voice)
    except LlasaError:
        return "that this model cannot speak"
    if unread:
        return f"with words that this model cannot read, such as {printable(unread[0])[:40]}"
    return "of several sentences" if len(chunks) > 1 else ""


@dataclass
class Prompts:
    """The prompts of a run. `open_prompts` makes it.

    Attributes:
        texts: sentences; the first `held_out` are not trained on.
        voices: None stands for no voice.
    """

    texts: list[str]
    held_out: int
    voices: list[Voice | None]
    planner: Planner
    codec: Codec
    _references: dict[str, np.ndarray] = field(default_factory=dict)

    def of_step(self, step: int, count: int) -> list[Prompt]:
        """The prompts to train on in a step."""
        texts, found = self.texts[self.held_out :], []
        for i in range(step * count, (step + 1) * count):
            voice = self.voices[(i + i // len(texts)) % len(self.voices)]  # another one in each round through the texts
            found.append(self._prompt(self.held_out + i, texts[i % len(texts)], voice))
        return found

    def for_validation(self) -> list[Prompt]:
        """The prompts never trained on."""
        texts = self.texts[: self.held_out]
        return [self._prompt(i, text, self.voices[i % len(self.voices)]) for i, text in enumerate(texts)]

    def _prompt(self, number: int, text: str, voice: Voice | None) -> Prompt:
        chunks, _ = self.planner.chunks(text, voice)
        piece = self.planner.pieces(chunks, voice)[0]
        if voice is None:
            return Prompt(number, piece, None, None)
        if voice.name not in self._references:
            self._references[voice.name] = voice.sound(self.codec, RATE)
        return Prompt(number, piece, voice.name, self._references[voice.name])


def open_prompts(data: Data, base: Base, codec: Codec, count: int, seed: int) -> tuple[Prompts, str]:
    """The prompts of a run that trains on up to `count` texts, and what was left out, for people to read.

    Raises:
        LlasaError: there is no such voice, or as `read_texts`.
    """
    known = Voices(base.folder, codec, fingerprint(base.codec))
    names = data.voices or sorted(path.stem for path in (base.folder / "voices").glob("[!.]*.safetensors"))
    found = (known.find(name) for name in names)
    # The samples must be of the policy that learns, which reads every reference in full.
    voices: list[Voice | None] = [replace(voice, reused=False) if voice else None for voice in found] or [None]
    planner = Planner(base.vocabulary, base.lexicon, base.rate, base.context)
    longest = max(voices, key=lambda voice: 0 if voice is None else len(voice.codes) + len(voice.text))
    texts = read_texts(data, planner, longest, data.held_out + count, seed)
    return Prompts(texts.good, data.held_out, voices, planner, codec), texts.table()
