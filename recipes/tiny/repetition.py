"""Writes sentences in which words repeat, and texts of one to three words, for a teacher to read.

    python recipes/tiny/repetition.py sentences.txt repeats.txt [--count 1500] [--seed 1]

The words come from the sentences of the first file, so that no few words are learnt by heart. No line has the words of
a text that `benchmarks/repeats.py` counts, and the words that repeat in the second half of those are left out.
"""

import argparse
import random
import re
import sys
from collections import Counter
from pathlib import Path

from llasa.text.wording import words as words_of

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from repeats_texts import TEXTS, UNSEEN

TIMES = (2, 2, 3, 3, 3, 4, 4, 5, 5, 6, 7, 8)
CALLS = (
    "no", "yes", "go", "stop", "please", "thanks", "boom", "bang", "knock", "ha", "hey", "oh", "wait", "run", "help",
    "hurry", "never", "again", "really", "look", "quick", "up", "down", "out", "now", "well", "come on", "oh no",
    "thank you", "I see", "good night", "all right", "not yet", "one two", "left right", "tick tock", "hold on",
)  # fmt: skip
STRESSED = (
    "very",
    "so",
    "much",
    "far",
    "really",
    "too",
    "many",
    "long",
    "big",
    "old",
    "little",
    "more",
    "deep",
    "cold",
)
FRAMES = (
    "It was {a} {end}.", "I am {a} {end}.", "They were {a} {end}.", "She said {a}.", "He called {a}, and left.",
    "The {end} went {a}.", "We {and}.", "They {and} until the {end}.", "{and} we went.", "And then: {a}.",
    "{a} said the {end}.", "There is a {a} {end} in the {end}.",
)  # fmt: skip


def line(dice: random.Random, words: list[str]) -> str:
    """One text: a word alone, a call that repeats, or a sentence with something that repeats."""
    kind = dice.random()
    if kind < 0.2:
        text = " ".join(dice.sample(words, dice.choice([1, 1, 2, 3]))) if dice.random() < 0.5 else dice.choice(CALLS)
        return text.capitalize() + dice.choice(".!?.")
    many = dice.choice(TIMES)
    if kind < 0.55:
        phrase = dice.choice([dice.choice(CALLS), dice.choice(words), " ".join(dice.sample(words, 2))])
        times = min(many, 4) if " " in phrase else many
        return dice.choice([", ", ", ", " "]).join([phrase] * times).capitalize() + dice.choice(".!.")
    word = dice.choice([dice.choice(STRESSED), dice.choice(CALLS), dice.choice(words)])
    text = dice.choice(FRAMES)
    text = text.replace("{a}", dice.choice([", ", " "]).join([word] * many))
    text = text.replace("{and}", " and ".join([word] * min(many, 6)))
    text = re.sub("{end}", lambda _: dice.choice(words), text)
    return text[0].upper() + text[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes texts with words that repeat.")
    parser.add_argument("sentences", type=Path, help="a text file whose words are taken")
    parser.add_argument("out", type=Path, help="the file to write, one text a line")
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    counted = Counter(re.findall(r"\b[a-z]{2,9}\b", asked.sentences.read_text(encoding="utf-8")))
    held = {word for text in UNSEEN for word in words_of(text)}
    words = sorted(word for word, count in counted.items() if count >= 20 and word not in held)
    taken = [words_of(text) for text in (*TEXTS, *UNSEEN)]
    dice = random.Random(asked.seed)
    texts = dict.fromkeys(text for _ in range(2 * asked.count) if words_of(text := line(dice, words)) not in taken)
    asked.out.write_text("\n".join(list(texts)[: asked.count]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
