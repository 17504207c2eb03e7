"""Whether the words are there: how likely the package's own recogniser finds the text, by CTC.

Wav2Vec2-BERT with CTC over letters, without a language model: it spells what it hears, so it hears wrong sounds where a
recogniser with a dictionary guesses the word. No word error rate is counted: the probability that it gives to the text
itself (the forward algorithm of Graves et al. 2006) tells two candidates apart that are both spelt rightly, and exists
for the beginning of an utterance too. It is no independent judge of the embedded voice: it was trained on from the
codec's semantic encoder, on the same teachers and on the codec's copies of them.

Knows its folder (transformers' layout with `vocab.json`), texts and 16 kHz waveforms.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from llasa.codec.features import mel_features
from llasa.errors import LlasaError
from llasa.loading import check_weights, first_line, hush_transformers
from llasa.planning import PACE, is_latin
from llasa.verifiers.protocol import RATE
from llasa.verifiers.wording import words

EMBEDDED = Path(__file__).parents[1] / "assets" / "tiny" / "recogniser"
BLANK, SPACE = 0, "|"
BATCH = 16  # rows at once, of about the same length
LEAD = 0.5  # seconds that a fragment may be silent before its first word


def load(device: str = "cpu", folder: Path | None = None) -> "CtcContent":
    """The recogniser in a folder, by default the embedded voice's, as a verifier.

    Raises:
        LlasaError: the folder is missing, damaged, or without its letters.
    """
    from transformers import Wav2Vec2BertForCTC

    folder = folder or EMBEDDED
    if not (folder / "vocab.json").is_file():
        raise LlasaError(f"{folder} is no recogniser: it has no vocab.json")
    check_weights(folder)
    hush_transformers()
    try:
        vocabulary: dict[str, int] = json.loads((folder / "vocab.json").read_text())
        model = Wav2Vec2BertForCTC.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    except Exception as error:  # transformers raises what its libraries raise
        raise LlasaError(f"the recogniser in {folder} cannot be loaded: {first_line(error)}") from error
    return CtcContent(model.eval().to(device), vocabulary)


class CtcContent:
    """The probability of the text given the sound, a letter's on geometric average: 1 is a perfect reading.

    A fragment is judged as a reading of the text's beginning, of whichever beginning fits best. A beginning that is
    too short fits silence and babble well, so that letters which even slow speech would have reached by then, and
    this beginning has not, count as letters that were guessed (one in the size of the alphabet).
    """

    name = "content"
    process = True
    needs_text = True
    needs_reference = False

    def __init__(self, model: Any, vocabulary: dict[str, int]) -> None:
        self.model, self.vocabulary = model, vocabulary
        self._symbols = {index: symbol.replace(SPACE, " ") for symbol, index in vocabulary.items() if index != BLANK}

    def score(
        self,
        texts: Sequence[str],
        audios: Sequence[np.ndarray],
        references: Sequence[np.ndarray | None],
        ended: bool = True,
    ) -> np.ndarray:
        """As the protocol says.

        Raises:
            LlasaError: a text is in letters that it does not know.
        """
        scores = np.zeros(len(texts))
        labels = [self.spell(text) for text in texts]
        judged = [i for i in range(len(texts)) if labels[i] and audios[i].any()]
        judged.sort(key=lambda i: len(audios[i]))
        for start in range(0, len(judged), BATCH):
            rows = judged[start : start + BATCH]
            chosen = [labels[i] for i in rows]
            logs, frames = self.listen([audios[i] for i in rows])
            likelihoods = prefix_likelihoods(logs, frames, chosen)
            if ended:
                sizes = torch.tensor([len(row) for row in chosen])
                scores[rows] = (likelihoods.gather(1, sizes[:, None])[:, 0] / sizes).exp()
            else:
                seconds = torch.tensor([len(audios[i]) / RATE for i in rows])
                scores[rows] = self._of_beginnings(likelihoods, seconds, chosen)
        return scores

    def spell(self, text: str) -> list[int]:
        """A text as the recogniser's symbols: letters and the spaces between words.

        Raises:
            LlasaError: most of its letters are not Latin.
        """
        if not is_latin(text):
            raise LlasaError("it does not know the letters of some of the text: verify with whisper")
        spelt = SPACE.join(words(text))
        return [self.vocabulary[letter] for letter in spelt if letter in self.vocabulary]

    @torch.no_grad()
    def listen(self, audios: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities (B, T, symbols) float64, 50 a second and on the CPU, and each row's number of frames."""
        lengths = [len(audio) for audio in audios]
        batch = torch.zeros(len(audios), max(lengths))
        for row, audio in zip(batch, audios, strict=True):
            row[: len(audio)] = torch.from_numpy(audio)
        features, mask = mel_features(batch.to(self.model.device), lengths)
        logits = self.model(features, attention_mask=mask).logits
        return logits.float().cpu().double().log_softmax(-1), mask.sum(1).cpu()

    def transcribe(self, samples: np.ndarray) -> str:
        """The letters on the best path for a waveform (T,); an empty string for silence."""
        if not samples.any():
            return ""
        best = self.listen([samples])[0][0].argmax(-1).unique_consecutive()
        return " ".join("".join(self._symbols[i] for i in best.tolist() if i != BLANK).split())

    def _of_beginnings(
        self, likelihoods: torch.Tensor, seconds: torch.Tensor, labels: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        """The score of each row's best beginning, given (B, L + 1) log-likelihoods of all beginnings."""
        sizes = torch.tensor([len(row) for row in labels])
        # Slow speech takes twice as long as is expected.
        due = torch.minimum(((seconds - LEAD) / (2 * PACE)).clamp_min(1), sizes)[:, None]
        reached = torch.arange(likelihoods.shape[1])
        guessed = math.log(len(self.vocabulary)) * (due - reached).clamp_min(0)
        return ((likelihoods - guessed) / torch.maximum(due, reached)).amax(1).exp()


def prefix_likelihoods(logs: torch.Tensor, frames: torch.Tensor, labels: Sequence[Sequence[int]]) -> torch.Tensor:
    """How likely the frames are to spell the first k symbols of the labels and nothing else, for every k, by CTC.

    The forward algorithm's sum over all paths. Its last line is read at every symbol and not at the last one alone.

    Args:
        logs: (B, T, symbols) log-probabilities; symbol 0 is the blank.
        frames: (B,) valid frames of each row.
        labels: each row's symbols.

    Returns:
        (B, L + 1), L the longest label's length; minus infinity where there are not so many symbols, or no room.
    """
    sizes = torch.tensor([len(row) for row in labels])
    longest = int(sizes.max())
    padded = torch.tensor([[*row, *[BLANK] * (longest - len(row))] for row in labels]).reshape(len(labels), longest)
    # Blanks lie between symbols, before and after: state 2k is the blank after k symbols and 2k - 1 the k-th symbol.
    states = F.pad(torch.stack([torch.full_like(padded, BLANK), padded], -1).flatten(1), (0, 1), value=BLANK)
    skips = F.pad((states[:, 2:] != BLANK) & (states[:, 2:] != states[:, :-2]), (2, 0))
    emitted = logs.gather(2, states[:, None].expand(-1, logs.shape[1], -1))
    nothing = -math.inf
    paths = torch.full(states.shape, nothing, dtype=logs.dtype)
    paths[:, 0] = 0  # before the first frame
    for step in range(int(frames.max())):
        stepped = F.pad(paths, (1, 0), value=nothing)[:, :-1]
        skipped = F.pad(paths, (2, 0), value=nothing)[:, :-2].masked_fill(~skips, nothing)
        following = torch.logaddexp(torch.logaddexp(paths, stepped), skipped) + emitted[:, step]
        paths = torch.where((step < frames)[:, None], following, paths)
    ends = torch.cat([paths[:, :1], torch.logaddexp(paths[:, 1::2], paths[:, 2::2])], 1)
    return ends.masked_fill(torch.arange(longest + 1) > sizes[:, None], nothing)
