"""Reads and writes the data files of LLaSA_training and X-Codec-2.0.

- Rows: `train_input_ids.memmap` and `val_input_ids.memmap`, int32, with a row of 2,048 tokens for each utterance. The
  number of rows and their width are in `*_input_ids_shape.npy`. A row holds the text between
  `<|TEXT_UNDERSTANDING_START|>` and its end token, the codes between `<|SPEECH_GENERATION_START|>` and its end token,
  and the tokenizer's eos up to 2,048 tokens; longer rows are cut. Instruction and chat template are not in the row:
  upstream's dataset class puts them around it, and so does `sequence`.
- Code files: X-Codec-2.0 writes `vq_codes/SAME/FOLDERS/NAME.wav.npy` (for a .flac, `NAME.npy`), int32, (T,). The
  transcripts are in LJSpeech's `metadata.csv`, of which its script uses the second column.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from llasa.codec.code_files import load_codes
from llasa.data.shards import CODES_SCHEMA, read_codes, shard_files, write_shard
from llasa.errors import LlasaError
from llasa.files import absolute, exists, is_file, listed, read_text, whole
from llasa.layout import read_layout
from llasa.text.lexicon import pronounce
from llasa.vocabulary import INSTRUCTION, Vocabulary

WIDTH = 2048  # tokens in a row, as in both of upstream's scripts
SPLITS = ("train", "val")
HELD_OUT = 30  # code files have no split: one in this many is for validation
SHARD = 2000  # utterances in a shard

_OPEN, _CLOSE = "<|TEXT_UNDERSTANDING_START|>", "<|TEXT_UNDERSTANDING_END|>"
_AUDIO = {".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".m4a"}


def has_rows(folder: Path, split: str | None = None) -> bool:
    """Whether a folder holds rows (of a split)."""
    return any(exists(_memmap(folder, name)) for name in ([split] if split else SPLITS))


def open_rows(folder: Path, split: str) -> np.ndarray:
    """The rows of a split, mapped from disk: (N, width) int32.

    Raises:
        LlasaError: a file is missing, or the two files do not belong together.
    """
    path, shape_path = _memmap(folder, split), _shape(folder, split)
    for file in (path, shape_path):
        if not exists(file):
            raise LlasaError(
                f"{folder} has no {file.name}: the rows of {split} need both the .memmap and the _shape.npy"
            )
    try:
        rows, width = (int(size) for size in np.load(shape_path, allow_pickle=False))
    except (ValueError, TypeError, EOFError, OSError) as error:
        raise LlasaError(f"{shape_path} does not hold two numbers, rows and their width: copy it again") from error
    if rows < 1 or width < 1 or path.stat().st_size != 4 * rows * width:
        raise LlasaError(
            f"{path} has {path.stat().st_size} bytes, which is not {rows} rows of {width} int32 numbers: "
            "copy both files again"
        )
    return np.memmap(path, dtype=np.int32, mode="r", shape=(rows, width))


def split_row(row: np.ndarray, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """The two halves of a row: everything before `<|SPEECH_GENERATION_START|>`, and from there to its end token.

    A row that was cut to its width has no end token; its second half reaches to the end.

    Raises:
        LlasaError: the row does not hold exactly one utterance.
    """
    starts, ends = (np.flatnonzero(row == mark) for mark in (vocabulary.start, vocabulary.end))
    fill = vocabulary.tokenizer.eos_token_id
    if len(ends) > 1 and vocabulary.end == fill:
        ends = ends[:1]
    whole = ends[0] > starts[0] if len(starts) == len(ends) == 1 else len(starts) == 1 and not len(ends)
    if not whole or (not len(ends) and row[-1] == fill):
        raise LlasaError(
            f"{len(starts)} starts and {len(ends)} ends of speech instead of one each: "
            "pass the --model whose tokenizer made the rows"
        )
    start = int(starts[0])
    return row[:start], row[start : int(ends[0]) + 1] if len(ends) else row[start:]


def sequence(row: np.ndarray, vocabulary: Vocabulary) -> tuple[np.ndarray, int]:
    """The sequence that upstream's dataset class makes of a row, without the padding.

    The row goes into the chat template and is cut at its own width. Everything after the end token is padding without
    labels. Upstream pads with the eos that also ends a turn of Llama 3, so its attention mask hides the eos of earlier
    turns too; neither its own inference nor the packed attention here does that.

    Returns:
        ids: (T,) int64.
        first: index of `<|SPEECH_GENERATION_START|>`; it and all tokens after it have a label.

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
    tokenizer, layout = vocabulary.tokenizer, read_layout(vocabulary.tokenizer)
    chat = f"{layout.before}{INSTRUCTION}{_OPEN}{layout.between}<|SPEECH_GENERATION_START|>{layout.after}"
    ids = tuple(tokenizer(chat, add_special_tokens=False)["input_ids"])
    text, speech = ids.index(tokenizer.convert_tokens_to_ids(_OPEN)), ids.index(vocabulary.start)
    return ids[:text], ids[text + 1 : speech], ids[speech + 1 :]


def make_row(text: str, codes: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """An utterance as a row, (WIDTH,) int32, cut if it is longer.

    Args:
        text: the tokenizer's input; for a model with a lexicon it is in phones already.

    Raises:
        LlasaError: a code lies outside the codebook, or the tokenizer has no eos.
    """
    tokenizer = vocabulary.tokenizer
    if tokenizer.eos_token_id is None:
        raise LlasaError("this model's tokenizer has no eos token, which pads rows: set its eos_token")
    prompt = tokenizer.encode(f"{_OPEN}{text}{_CLOSE}", add_special_tokens=False)
    ids = [*prompt, vocabulary.start, *vocabulary.tokens(codes), vocabulary.end][:WIDTH]
    row = np.full(WIDTH, tokenizer.eos_token_id, dtype=np.int32)
    row[: len(ids)] = ids
    return row


def write_rows(folder: Path, split: str, rows: Iterable[np.ndarray]) -> int:
    """Writes the rows of a split, whole or not at all, and returns their number. Without rows there are no files.

    Raises:
        LlasaError: the files cannot be written.
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
    """The rows of a split as rows of codes shards, with decoded texts, and codes instead of tokens.

    Args:
        rate: codes a second.

    Raises:
        LlasaError: the files are damaged, or were made with another tokenizer.
    """
    marks = [vocabulary.tokenizer.convert_tokens_to_ids(mark) for mark in (_OPEN, _CLOSE)]
    for index, row in enumerate(open_rows(folder, split)):
        try:
            text, speech = split_row(row, vocabulary)
        except LlasaError as error:
            raise LlasaError(f"{_memmap(folder, split)}, row {index}: {error}") from error
        spoken = _decode(vocabulary.tokenizer, text[~np.isin(text, marks)].tolist())
        name = f"{absolute(folder).name}-{split}-{index:08d}"
        yield _utterance(name, spoken, vocabulary.codes(speech), rate, speaker)


def _decode(tokenizer: Any, ids: list[int]) -> str:
    """Token ids to text. A character tokenizer has no decoder, as its tokens are the text."""
    if tokenizer.backend_tokenizer.decoder is None:
        return "".join(tokenizer.convert_ids_to_tokens(ids))
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def code_files(folder: Path, transcripts: Path) -> tuple[list[tuple[str, str, Path]], int]:
    """The code files below a folder that have a transcript, as (id, text, file) in order, and how many have none.

    Args:
        transcripts: a file with `id|text` on each line, and perhaps more columns. An id is a file's name without .npy
            and .wav, with or without its folders.

    Raises:
        LlasaError: there are no code files, no transcripts, or no file has a transcript.
    """
    if not is_file(transcripts):
        raise LlasaError(f"there is no file {transcripts}: pass --text with the transcripts, id|text a line")
    lines = [line.strip().split("|") for line in read_text(transcripts).splitlines()]
    texts = {parts[0]: parts[1].strip() for parts in lines if len(parts) > 1}
    files = listed(folder, (".npy",))
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
            f"its ids are like {example}, the files' names like {files[0].name}"
        )
    return found, len(files) - len(found)


def read_code_files(
    files: Iterable[tuple[str, str, Path]], vocabulary: Vocabulary, rate: float, speaker: str
) -> Iterator[dict[str, Any]]:
    """Code files as rows of codes shards.

    Raises:
        LlasaError: a file is damaged, or a code lies outside the codebook.
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
    """Writes the utterances of codes shards that have a text as rows. Returns their number, and how many were cut.

    Args:
        lexicon: the model's lexicon, if its tokenizer reads phones.

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
        raise LlasaError(f"no utterance in {source} has a text, which training needs: encode it with its transcripts")
    last = open_rows(out, split)[:, -1]
    return count, int((~np.isin(last, [vocabulary.end, vocabulary.tokenizer.eos_token_id])).sum())


def _memmap(folder: Path, split: str) -> Path:
    return folder / f"{split}_input_ids.memmap"


def _shape(folder: Path, split: str) -> Path:
    return folder / f"{split}_input_ids_shape.npy"
