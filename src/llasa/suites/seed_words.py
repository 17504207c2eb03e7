"""Counts word errors as Seed-TTS-Eval's own scripts do (`run_wer.py`, `average_wer.py`), so that figures compare.

Punctuation goes, an apostrophe excepted; English is put in lower case; Chinese is compared character by character, in
simplified characters. Each utterance's rate counts alike, whatever its length.
"""

import string


def errors(text: str, heard: str, language: str) -> tuple[float, float]:
    """The error rate of one utterance, and its weight in the mean, which is 1.

    Raises:
        ValueError: the text has no words.
    """
    import jiwer

    ours, theirs = (plain(said, language) for said in (text, heard))
    found = jiwer.process_words(ours, theirs)
    return float(found.wer), 1.0


def plain(said: str, language: str) -> str:
    """A text or a transcript as it is compared: words, or in Chinese characters, with spaces between them."""
    from zhon.hanzi import punctuation

    for mark in punctuation + string.punctuation:
        if mark != "'":
            said = said.replace(mark, "")
    said = said.replace("  ", " ")
    return " ".join(said) if language == "zh" else said.lower()


def simplified(heard: str) -> str:
    """A transcript in simplified characters, whatever the recogniser wrote."""
    import zhconv

    return str(zhconv.convert(heard, "zh-cn"))
