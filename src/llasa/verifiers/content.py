"""Scores whether speech says its text: how probable the package's own recogniser finds the text, by CTC.

The recogniser is Wav2Vec2-BERT with CTC over letters, without a language model. It spells what it hears, so it notices
wrong sounds where a recogniser with a dictionary would guess the word. The score is not a word error rate but the
probability of the text itself (the forward algorithm of Graves et al. 2006). That separates two candidates that are
both spelt correctly, and it works for the beginning of an utterance, too.

The recogniser is not independent of the embedded voice: its training began from the codec's semantic encoder and used
the same teachers and the codec's copies of them.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from llasa.codec.features import mel_features
from llasa.errors import LlasaError, first_line
from llasa.files import is_file, parse_json, read_text
from llasa.models.folder import check_weights, hush_transformers
from llasa.text.script import PACE, is_latin
from llasa.text.wording import Miscount, miscounts, words
from llasa.verifiers.protocol import RATE, Batch

EMBEDDED = Path(__file__).parents[1] / "assets" / "tiny" / "recogniser"
BLANK, SPACE = 0, "|"
BATCH = 16  # rows at once, of about the same length
# A transcript cannot be right if it is less probable than what is heard by UNHEARD nats a letter, as words are missing
# from it. Nor if it is more probable without a beginning or end of ADDITION letters or more, by ADDED nats for each of
# them. The limits were chosen on 189 clips of 101 people: 188 right transcripts pass. On 120 clips of five corpora, all
# right ones pass; refused are 98 % of those that lack half of the words, all with a sentence too many at an end, and
# 97 % with one in the middle: 92 % over a telephone. A lower UNHEARD refuses right ones that were said in a large room.
UNHEARD, ADDED, ADDITION = 2.8, 5.0, 10
SURE = 3.0  # nats; below it, a sound of one word may be taken for two
LATE = 0.08  # seconds after the start of a sound at which its letter is most probable (benchmarks/words.py)
LEAST_PAUSE = 0.2  # seconds before the first word of an utterance
LEAD = 0.5  # seconds that a fragment may be silent before its first word


def load(device: str = "cpu", folder: Path | None = None) -> "CtcContent":
    """Loads the recogniser in a folder, by default the embedded voice's.

    The folder has transformers' layout, with a `vocab.json`.

    Raises:
        LlasaError: the folder is missing or damaged, or has no `vocab.json`.
    """
    from transformers import Wav2Vec2BertForCTC

    folder = folder or EMBEDDED
    if not is_file(folder / "vocab.json"):
        raise LlasaError(f"{folder} has no vocab.json: pass a recogniser's folder")
    check_weights(folder)
    hush_transformers()
    try:
        vocabulary: dict[str, int] = parse_json(read_text(folder / "vocab.json"))
        if not isinstance(vocabulary, dict) or not all(isinstance(place, int) for place in vocabulary.values()):
            raise ValueError("vocab.json does not map letters to numbers")
        model = Wav2Vec2BertForCTC.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        count = model.lm_head.out_features
        if not vocabulary or not all(0 <= place < count for place in vocabulary.values()):
            raise ValueError(f"vocab.json does not map letters to numbers below {count}")
    except Exception as error:  # transformers raises what its libraries raise
        raise LlasaError(
            f"the recogniser in {folder} cannot be loaded ({first_line(error)}): copy it or train it again"
        ) from error
    return CtcContent(model.eval().to(device), vocabulary)


class CtcContent:
    """The probability of the text given the sound, as the geometric mean over its letters: 1 is a perfect reading.

    A fragment is scored as a reading of the beginning of the text that fits it best. Very short beginnings fit silence
    and babble well. So a beginning also has to account for the letters that even slow speech would have reached by
    then: each of them that it lacks counts as a guess (one over the size of the alphabet).
    """

    name = "content"
    process = True
    needs_text = True
    needs_reference = False

    def __init__(self, model: Any, vocabulary: dict[str, int]) -> None:
        self.model, self.vocabulary = model, vocabulary
        self._symbols = {index: symbol.replace(SPACE, " ") for symbol, index in vocabulary.items() if index != BLANK}

    def score(self, batch: Batch, ended: bool = True) -> np.ndarray:
        """See `Verifier.score`.

        Raises:
            LlasaError: a text is in letters that the recogniser does not know.
        """
        scores = np.zeros(len(batch))
        labels = [self.spell(text) for text in batch.texts]
        judged = [i for i in range(len(batch)) if labels[i] and batch.audios[i].any()]
        judged.sort(key=lambda i: len(batch.audios[i]))
        for start in range(0, len(judged), BATCH):
            rows = judged[start : start + BATCH]
            chosen = [labels[i] for i in rows]
            logs, frames = self.listen([batch.audios[i] for i in rows])
            likelihoods = prefix_likelihoods(logs, frames, chosen)
            if ended:
                sizes = torch.tensor([len(row) for row in chosen])
                scores[rows] = (likelihoods.gather(1, sizes[:, None])[:, 0] / sizes).exp()
            else:
                seconds = torch.tensor([len(batch.audios[i]) / RATE for i in rows])
                scores[rows] = self._of_beginnings(likelihoods, seconds, chosen)
        return scores

    def spell(self, text: str) -> list[int]:
        """The recogniser's symbols for a text: letters and the spaces between words.

        Raises:
            LlasaError: most of its letters are not Latin.
        """
        if not is_latin(text):
            raise LlasaError("it does not know the letters of some of the text: verify with whisper")
        spelt = SPACE.join(words(text))
        return [self.vocabulary[letter] for letter in spelt if letter in self.vocabulary]

    @torch.no_grad()
    def listen(self, audios: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities (B, T, symbols) float64 on the CPU, 50 frames a second, and each row's number of frames."""
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
        return self._read(self.listen([samples])[0][0])

    def _read(self, logs: torch.Tensor) -> str:
        """The letters on the best path through log-probabilities (T, symbols)."""
        best = logs.argmax(-1).unique_consecutive()
        return " ".join("".join(self._symbols[i] for i in best.tolist() if i != BLANK).split())

    def compare(self, text: str, samples: np.ndarray) -> tuple[bool, str]:
        """Whether a text can be the transcript of a sound, and what is heard there.

        The score would not do: it tells readings of one text apart, while an accent or a telephone lowers it as much as
        a missing word.

        Args:
            samples: (T,), not silent.

        Raises:
            LlasaError: the text is in letters that the recogniser does not know.
        """
        labels = self.spell(text)
        logs, frames = self.listen([samples])
        # Backwards, the beginnings of the text are its ends.
        both = torch.cat([logs, logs.flip(1)])
        likelihoods = prefix_likelihoods(both, frames.repeat(2), [labels, labels[::-1]])
        whole, heard = likelihoods[0, -1], logs[0].max(-1).values.sum()
        fits = bool(heard <= whole + UNHEARD * len(labels))
        if len(labels) > ADDITION:
            left_out = torch.arange(len(labels), ADDITION - 1, -1)
            fits = fits and bool((likelihoods[:, : len(left_out)] <= whole + ADDED * left_out).all())
        return fits, self._read(logs[0])

    def doubt(self, text: str, samples: np.ndarray) -> float:
        """How many nats likelier than a text its likeliest miscount is (`text.wording.miscounts`); below 0 if the text
        is said with the right count, and minus infinity if it has no miscounts.

        Args:
            samples: (T,), not silent.
        """
        return self._likeliest(text, samples)[0]

    def surplus(self, text: str, samples: np.ndarray) -> tuple[float, float] | None:
        """From where to where, in seconds, a word or phrase is said that the text has once less, if that is likelier
        than its other miscounts, and than the text by SURE nats. Both ends lie in the pauses, if there are any, before
        two of its copies.

        Args:
            samples: (T,), not silent.
        """
        doubt, found, logs = self._likeliest(text, samples)
        if found is None or found.surplus is None or not SURE < doubt < math.inf:
            return None
        frames = align(logs.numpy(), self.spell(" ".join(found.words)))
        step = len(samples) / len(logs)
        power = np.convolve(samples.astype(np.float64) ** 2, np.ones(round(step)), mode="same")

        def onset(word: int) -> int:
            """The quietest sample between the words before this one and this one."""
            letter = len(self.spell(" ".join(found.words[:word]))) + (word > 0)
            stop = round(frames[letter][0] * step)
            start = round((frames[letter - 2][1] + 1) * step) if word else max(0, stop - round(LEAST_PAUSE * RATE))
            return start + int(power[start : max(stop, start + 1)].argmin())

        start, stop = (onset(word) / RATE for word in found.surplus)
        return start, stop

    def starts(self, spoken: Sequence[str], samples: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """When each word of a normalised text begins, in seconds, and how probable its letters are there, from 0 to 1.

        None if the text cannot be what is said: it has letters of another script, or more than fit the sound.

        Args:
            spoken: the words.
            samples: (T,).
        """
        if not is_latin(" ".join(spoken)) or not samples.any():
            return None
        labels, places = list[int](), list[slice]()
        for word in spoken:
            letters = self.spell(word)
            labels += [self.vocabulary[SPACE]] if labels and letters else []
            places.append(slice(len(labels), len(labels) + len(letters)))
            labels += letters
        logs = self.listen([samples])[0][0].numpy()
        frames = np.array([first for first, _ in align(logs, labels)]) if labels else np.empty(0, int)
        if not len(frames) or len(frames) < len(labels):
            return None
        sure = logs[frames, labels]
        begins = frames[[min(place.start, len(labels) - 1) for place in places]] * len(samples) / RATE / len(logs)
        means = [sure[place].mean() if place.stop > place.start else 0.0 for place in places]
        return np.maximum(0.0, begins - LATE), np.exp(means)

    def _likeliest(self, text: str, samples: np.ndarray) -> tuple[float, Miscount | None, torch.Tensor]:
        """The doubt in a text, its likeliest miscount, and the log-probabilities (T, symbols) of what is heard."""
        spoken = words(text)
        others = miscounts(spoken) if is_latin(text) else []
        if not others:
            return -math.inf, None, torch.empty(0)
        labels = [self.spell(" ".join(one)) for one in [spoken, *(other.words for other in others)]]
        logs, frames = self.listen([samples])
        count = len(labels)
        likelihoods = prefix_likelihoods(logs.expand(count, -1, -1), frames.expand(count), labels)
        right, *wrong = (float(likelihoods[row, len(label)]) for row, label in enumerate(labels))
        doubt = max(wrong) - right if right > -math.inf else math.inf
        return doubt, others[int(np.argmax(wrong))], logs[0]

    def _of_beginnings(
        self, likelihoods: torch.Tensor, seconds: torch.Tensor, labels: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        """The score of each row's best beginning, given the log-likelihoods of all beginnings (B, L + 1)."""
        sizes = torch.tensor([len(row) for row in labels])
        # Slow speech takes twice as long as usual.
        due = torch.minimum(((seconds - LEAD) / (2 * PACE)).clamp_min(1), sizes)[:, None]
        reached = torch.arange(likelihoods.shape[1])
        guessed = math.log(len(self.vocabulary)) * (due - reached).clamp_min(0)
        return ((likelihoods - guessed) / torch.maximum(due, reached)).amax(1).exp()


def align(logs: np.ndarray, labels: Sequence[int]) -> list[tuple[int, int]]:
    """The first and last frame of each symbol on the likeliest path that spells the labels, by CTC (Viterbi).

    Args:
        logs: (T, symbols) log-probabilities; symbol 0 is the blank. There are frames enough for the labels.
    """
    states = np.full(2 * len(labels) + 1, BLANK)
    states[1::2] = labels
    skips = np.zeros(len(states), bool)
    skips[3::2] = states[3::2] != states[1:-2:2]
    score = np.full(len(states), -np.inf)
    score[:2] = logs[0, states[:2]]
    came = np.zeros((len(logs), len(states)), int)
    for step in range(1, len(logs)):
        ways = np.full((3, len(states)), -np.inf)
        ways[0], ways[1, 1:], ways[2, 2:] = score, score[:-1], np.where(skips[2:], score[:-2], -np.inf)
        came[step] = ways.argmax(0)
        score = ways.max(0) + logs[step, states]
    state = len(states) - 1 - int(score[-2] > score[-1])
    path = [state]
    for step in range(len(logs) - 1, 0, -1):
        state -= came[step, state]
        path.append(state)
    where = np.array(path[::-1])
    return [(int(places[0]), int(places[-1])) for place in range(len(labels))
            if len(places := np.flatnonzero(where == 2 * place + 1))]  # fmt: skip


def prefix_likelihoods(logs: torch.Tensor, frames: torch.Tensor, labels: Sequence[Sequence[int]]) -> torch.Tensor:
    """Log-likelihoods that the frames spell exactly the first k symbols of the labels, for every k, by CTC.

    This is the forward algorithm's sum over all paths, read at every symbol instead of only at the last one.

    Args:
        logs: (B, T, symbols) log-probabilities; symbol 0 is the blank.
        frames: (B,) valid frames of each row.
        labels: each row's symbols.

    Returns:
        (B, L + 1), L the longest label's length; minus infinity if a row has fewer than k symbols, or too few frames.
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
