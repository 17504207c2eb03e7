"""The data files of LLaSA_training and X-Codec-2.0, read and written.

Knows their layouts and their tokens; knows nothing of models.

- Rows: `train_input_ids.memmap` and `val_input_ids.memmap`, int32, one utterance a row of 2,048 tokens, the number of
  rows and their width in `*_input_ids_shape.npy`. A row is the text between `<|TEXT_UNDERSTANDING_START|>` and its end
  token, the codes between `<|SPEECH_GENERATION_START|>` and its end token, and the tokenizer's eos up to 2,048; what is
  longer is cut. Instruction and chat template are no part of it: upstream's dataset class puts them around each row,
  and so does `sequence`.
- Code files: X-Codec-2.0 writes `vq_codes/SAME/FOLDERS/NAME.wav.npy` (of a .flac, `NAME.npy`), int32, (T,); the
  transcripts lie elsewhere, in LJSpeech's `metadata.csv`, of which its script takes the second column.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from llasa.codec.files import load_codes
from llasa.data.shards import CODES_SCHEMA, read_codes, shard_files, write_shard
from llasa.errors import LlasaError
from llasa.lexicon import pronounce
from llasa.vocabulary import INSTRUCTION, Vocabulary
from llasa.writing import whole

WIDTH = 2048  # tokens of a row, in both of upstream's scripts
SPLITS = ("train", "val")
HELD_OUT = 30  # of code files, which come without a split, every so many-th is for validation
SHARD = 2000  # utterances

_OPEN, _CLOSE = "<|TEXT_UNDERSTANDING_START|>", "<|TEXT_UNDERSTANDING_END|>"
_AUDIO = {".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".m4a"}


def has_rows(folder: Path, split: str | None = None) -> bool:
    """Whether a folder holds rows (of a split)."""
    return any(_memmap(folder, name).exists() for name in ([split] if split else SPLITS))


def open_rows(folder: Path, split: str) -> np.ndarray:
    """The rows of a split, mapped from disk: (N, width) int32.

    Raises:
        LlasaError: a file is missing, or the two do not belong together.
    """
    path, shape_path = _memmap(folder, split), _shape(folder, split)
    for file in (path, shape_path):
        if not file.exists():
            raise LlasaError(
                f"{folder} has no {file.name}: the rows of {split} need both the .memmap and the _shape.npy"
            )
    try:
        rows, width = (int(size) for size in np.load(shape_path, allow_pickle=False))
    except (ValueError, TypeError, EOFError, OSError) as error:
        raise LlasaError(f"{shape_path} does not hold two numbers, rows and their width: copy it again") from error
    if rows < 1 or width < 1 or path.stat().st_size != 4 * rows * width:
        raise LlasaError(
            f"{path} has {path.stat().st_size} bytes where {rows} rows of {width} int32 numbers were promised: "
            "copy both files again"
        )
    return np.memmap(path, dtype=np.int32, mode="r", shape=(rows, width))


def split_row(row: np.ndarray, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """The two halves of a row: what is before `<|SPEECH_GENERATION_START|>`, and from there to its end token.

    A row that was cut to its width has no end token; then the second half is all the rest.

    Raises:
        LlasaError: it does not hold exactly one utterance.
    """
    starts, ends = (np.flatnonzero(row == mark) for mark in (vocabulary.start, vocabulary.end))
    fill = vocabulary.tokenizer.eos_token_id
    if len(ends) > 1 and vocabulary.end == fill:
        ends = ends[:1]
    whole = ends[0] > starts[0] if len(starts) == len(ends) == 1 else len(starts) == 1 and not len(ends)
    if not whole or (not len(ends) and row[-1] == fill):
        raise LlasaError(
            f"{len(starts)} starts and {len(ends)} ends of speech where one of each belongs: "
            "were the rows made with another tokenizer?"
        )
    start = int(starts[0])
    return row[:start], row[start : int(ends[0]) + 1] if len(ends) else row[start:]


def sequence(row: np.ndarray, vocabulary: Vocabulary) -> tuple[np.ndarray, int]:
    """What upstream's dataset class makes of a row, without the padding.

    The row goes into the chat template and is cut at its own width. After the end token the class has only what its
    labels leave out, for its padding is the eos that ends a turn of Llama 3. For the same reason its attention mask
    hides the eos of the turns before, which neither its own inference nor our packed attention does.

    Returns:
        ids: (T,) int64.
        first: index of `<|SPEECH_GENERATION_START|>`, the first token that has a label. All after it have one.

    Raises:
        LlasaError: the row does not hold exactly one utterance.
    """
    text, speech = split_row(row, vocabulary)
    before, between, after = _template(vocabulary)
    pad = vocabulary.tokenizer.eos_token_id
    while after and after[-1] == pad:
        after = after[:-1]
    ids = np.concatenate([before, text, between, speech, after]).astype(np.int64)
    return ids[: len(row)], len(before) + len(text) + len(between)


@lru_cache(maxsize=4)
def _template(vocabulary: Vocabulary) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Token ids of the chat template before the text, between text and speech, and after the speech."""
    tokenizer = vocabulary.tokenizer
    chat = [
        {"role": "user", "content": f"{INSTRUCTION}{_OPEN}"},
        {"role": "assistant", "content": "<|SPEECH_GENERATION_START|>"},
    ]
    ids = tuple(tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False))
    text, speech = ids.index(tokenizer.convert_tokens_to_ids(_OPEN)), ids.index(vocabulary.start)
    return ids[:text], ids[text + 1 : speech], ids[speech + 1 :]


def make_row(text: str, codes: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """An utterance as a row, (WIDTH,) int32, cut if it is longer.

    Args:
        text: what the tokenizer is to read: phones already, for a model with a lexicon.

    Raises:
        LlasaError: a code lies outside the codebook, or the tokenizer has no eos.
    """
    tokenizer = vocabulary.tokenizer
    if tokenizer.eos_token_id is None:
        raise LlasaError("this model's tokenizer has no eos token, with which rows are filled: set eos_token")
    prompt = tokenizer.encode(f"{_OPEN}{text}{_CLOSE}", add_special_tokens=False)
    ids = [*prompt, vocabulary.start, *vocabulary.tokens(codes), vocabulary.end][:WIDTH]
    row = np.full(WIDTH, tokenizer.eos_token_id, dtype=np.int32)
    row[: len(ids)] = ids
    return row


def write_rows(folder: Path, split: str, rows: Iterable[np.ndarray]) -> int:
    """Writes the rows of a split, whole or not at all; returns how many. No rows, no files.

    Raises:
        LlasaError: they cannot be written.
    """
    rows, count = iter(rows), 0
    if (first := next(rows, None)) is None:
        return 0
    with whole(_memmap(folder, split)) as table, whole(_shape(folder, split)) as shape:
        folder.mkdir(parents=True, exist_ok=True)
        with table.open("wb") as file:
            for row in chain([first], rows):
                file.write(row.astype(np.int32).tobytes())
                count += 1
        with shape.open("wb") as file:
            np.save(file, np.array([count, len(first)]))
    return count


def utterances(folder: Path, split: str, vocabulary: Vocabulary, rate: float, speaker: str) -> Iterator[dict[str, Any]]:
    """The rows of a split as rows of codes shards: texts decoded, codes without their offset.

    Args:
        rate: codes a second.

    Raises:
        LlasaError: the files are damaged, or were made with another tokenizer; the message names the row.
    """
    marks = [vocabulary.tokenizer.convert_tokens_to_ids(mark) for mark in (_OPEN, _CLOSE)]
    for index, row in enumerate(open_rows(folder, split)):
        try:
            text, speech = split_row(row, vocabulary)
        except LlasaError as error:
            raise LlasaError(f"{_memmap(folder, split)}, row {index}: {error}") from error
        spoken = _decode(vocabulary.tokenizer, text[~np.isin(text, marks)].tolist())
        name = f"{folder.resolve().name}-{split}-{index:08d}"
        yield _utterance(name, spoken, vocabulary.codes(speech), rate, speaker)


def _decode(tokenizer: Any, ids: list[int]) -> str:
    """Token ids to text. A character tokenizer has no decoder: its tokens are the text."""
    if tokenizer.backend_tokenizer.decoder is None:
        return "".join(tokenizer.convert_ids_to_tokens(ids))
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def code_files(folder: Path, transcripts: Path) -> tuple[list[tuple[str, str, Path]], int]:
    """The code files below a folder that have a transcript, (id, text, file) in order, and how many have none.

    Args:
        transcripts: `id|text` a line, more columns or not; an id is a file's name without .npy and .wav, with or
            without the folders that it lies in.

    Raises:
        LlasaError: there are no code files, no transcripts, or none of them for any of the files.
    """
    if not transcripts.is_file():
        raise LlasaError(f"there is no file {transcripts}: pass --text with the transcripts, id|text a line")
    try:
        lines = [line.strip().split("|") for line in transcripts.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise LlasaError(f"{transcripts} is not UTF-8 text: save it as such") from error
    texts = {parts[0]: parts[1].strip() for parts in lines if len(parts) > 1}
    files = sorted(path for path in folder.rglob("*.npy") if not path.name.startswith("."))
    if not files:
        raise LlasaError(f"no .npy files of codes in {folder}, nor rows (train_input_ids.memmap)")
    found = []
    for path in files:
        name = path.relative_to(folder).with_suffix("")
        name = name.with_suffix("") if name.suffix.lower() in _AUDIO else name
        ids = ["/".join(name.parts[i:]) for i in range(len(name.parts))]
        if text := next((texts[key] for key in ids if texts.get(key)), ""):
            found.append((name.as_posix(), text, path))
    if not found:
        example = next(iter(texts), "no id at all")
        raise LlasaError(
            f"{transcripts} has no transcript for any of {len(files)} files: "
            f"it has {example}, they are like {files[0].name}"
        )
    return found, len(files) - len(found)


def read_code_files(
    files: Iterable[tuple[str, str, Path]], vocabulary: Vocabulary, rate: float, speaker: str
) -> Iterator[dict[str, Any]]:
    """Code files as rows of codes shards.

    Raises:
        LlasaError: a file is damaged, or holds codes outside the codebook.
    """
    for name, text, path in files:
        yield _utterance(name, text, load_codes(path, vocabulary.size), rate, speaker)


def _utterance(name: str, text: str, codes: np.ndarray, rate: float, speaker: str) -> dict[str, Any]:
    facts = {"speaker": speaker, "language": "", "seconds": len(codes) / rate, "phones": [], "ends": []}
    return {"id": name, "text": text, "codes": codes, **facts}


def write_shards(rows: Iterator[dict[str, Any]], out: Path, name: str) -> Iterator[tuple[int, float]]:
    """Writes `out/name-NNNNN.parquet`, SHARD utterances each; yields (utterances, seconds) for each."""
    number = 0
    while part := list(islice(rows, SHARD)):
        out.mkdir(parents=True, exist_ok=True)
        write_shard(out / f"{name}-{number:05d}.parquet", part, CODES_SCHEMA)
        number += 1
        yield len(part), sum(row["seconds"] for row in part)


def export_shards(
    source: Path, out: Path, split: str, vocabulary: Vocabulary, lexicon: dict[str, str] | None
) -> tuple[int, int]:
    """Writes the utterances of codes shards that have a text as rows; returns how many, and how many were cut.

    Args:
        lexicon: that of the model, whose tokenizer then reads phones.

    Raises:
        LlasaError: there are no shards, or they hold audio instead of codes, codes of another codec, or no text.
    """

    def rows() -> Iterator[np.ndarray]:
        for file in shard_files(source):
            for row in read_codes(file):
                if row["text"]:
                    text = row["text"] if lexicon is None else pronounce(row["text"], lexicon)
                    yield make_row(text, np.asarray(row["codes"]), vocabulary)

    count = write_rows(out, split, rows())
    if not count:
        raise LlasaError(f"no utterance in {source} has a text: there is nothing to train a language model on")
    last = open_rows(out, split)[:, -1]
    return count, int((~np.isin(last, [vocabulary.end, vocabulary.tokenizer.eos_token_id])).sum())


def _memmap(folder: Path, split: str) -> Path:
    return folder / f"{split}_input_ids.memmap"


def _shape(folder: Path, split: str) -> Path:
    return folder / f"{split}_input_ids_shape.npy"
