import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llasa.text.normalise import is_speakable, normalise
from llasa.text.numbers import speak_numbers
from llasa.text.splitting import CLAUSE, PARAGRAPH, SENTENCE, chunks, paragraphs, sentences

CASES = """
0 | zero
21 | twenty one
1,234,567 | one million two hundred and thirty four thousand five hundred and sixty seven
007 | zero zero seven
1234567890123456 | one two three four five six seven eight nine zero one two three four five six
it was -5 outside | it was minus five outside
3.14 | three point one four
.5 | zero point five
1,2,3 | one, two, three
I have 5. | I have five.
1st, 22nd and 103rd | first, twenty second and one hundred and third
the 21st century | the twenty first century
in 1984 | in nineteen eighty four
in 1905. | in nineteen oh five.
2008 and 2024 | two thousand and eight and twenty twenty four
the 1990s | the nineteen nineties
the '90s | the nineties
2024's best | twenty twenty four's best
$3.50 | three dollars and fifty cents
$1 | one dollar
$0.99 | ninety nine cents
£5m | five million pounds
€1,200 | one thousand two hundred euros
$3.5 million | three point five million dollars
$1bn | one billion dollars
5 € | five euros
¥500 | five hundred yen
US$20 | twenty U S dollars
$5-10 | five to ten dollars
$5/month | five dollars per month
£0.01 and 50p | one penny and fifty pence
-$5 | minus five dollars
5 USD | five dollars
2024-05-01 | May first, twenty twenty four
2024-05-01T14:30 | May first, twenty twenty four, fourteen thirty
2024-13-45 | two zero two four, one three, four five
May 3 | May third
Jan. 5, 2021 | January fifth, twenty twenty one
May 3-5 | May third to fifth
the 3rd of May 2024 | the third of May twenty twenty four
Sept. 2020 | September twenty twenty
3/4/2021 | March fourth, twenty twenty one
25/12/99 | December twenty fifth, nineteen ninety nine
25.12.2023 | December twenty fifth, twenty twenty three
Mon, 5 May | Monday, the fifth of May
march 4 miles | march four miles
3:45pm | three forty five P M
3:45 p.m. | three forty five P M.
at 3 p.m. He left | at three P M. He left
5 a.m. is early | five A M is early
14:30 | fourteen thirty
09:05 | nine oh five
12:00 | twelve o'clock
9am-5pm | nine A M to five P M
3:2 | three to two
1/2 | one half
3/4 | three quarters
2 1/2 | two and a half
2½ cups | two and a half cups
5/8 | five eighths
7/31 | seven over thirty one
24/7 | twenty four seven
50-60% | fifty to sixty percent
20°C | twenty degrees Celsius
-5 °F | minus five degrees Fahrenheit
5 km | five kilometres
1kg | one kilogram
100 km/h | one hundred kilometres per hour
5 m² | five square metres
6 ft. tall | six feet tall
a 10-km run | a ten kilometre run
5'10" | five foot ten
3x faster | three times faster
pages 10-20 | pages ten to twenty
1939–1945 | nineteen thirty nine to nineteen forty five
a 5-year-old | a five year-old
COVID-19 | COVID nineteen
mp3 and H2O | M P three and H two O
v1.2.3 | v one point two point three
192.168.0.1 | one nine two dot one six eight dot zero dot one
(555) 123-4567 | five five five, one two three, four five six seven
555-1234 | five five five, one two three four
+44 20 7946 0958 | plus four four, two zero, seven nine four six, zero nine five eight
1-800-555-0199 | one, eight zero zero, five five five, zero one nine nine
100-1000 | one hundred to one thousand
No. 5, pp. 3-5 | number five, pages three to five
2^10 and x² | two to the power of ten and x squared
5*3 | five times three
a = b + 3 | a equals b plus three
~5, >5 | about five, greater than five
Chapter IV | Chapter four
Part I of it | Part one of it
the part I like | the part I like
Type C | Type C
World War II began | World War two began
Henry VIII | Henry the eighth
Louis XIV's court | Louis the fourteenth's court
Mr. Smith | Mister Smith
Mrs Jones and Dr. No | Missus Jones and Doctor No
Mulholland Dr. is long | Mulholland Drive is long
St. John | Saint John
Main St. is here | Main Street is here
apples, etc. | apples, et cetera.
apples, etc., and pears | apples, et cetera, and pears
cats vs. dogs | cats versus dogs
(e.g. cats) | for example, cats
that, i.e., this | that, that is, this
Acme Inc. He left | Acme Incorporated. He left
the BBC's TVs | the B B C's T V's
NASA and the FBI | NASA and the F B I
the U.S. economy | the U S economy
in the U.S. He left | in the U S. He left
J. K. Rowling | J K Rowling
J.R.R. Tolkien, Ph.D. | J R R Tolkien, P H D.
Plan B. Doctors agree | Plan B. Doctors agree
on TV. Networks | on T V. Networks
https://www.example.com/page | W W W dot example dot com slash page
bob.smith@example.co.uk | bob dot smith at example dot co dot U K
(see example.com). | see example dot com.
you & me | you and me
AT&T and R&D | A T and T and R and D
@user #python #1 | at user hashtag python number one
C++ | C plus plus
and/or TCP/IP | and or T C P I P
item(s) | items
50% | fifty percent
“Hello,” she said | Hello, she said
it’s the dogs' rock 'n' roll | it's the dogs rock n roll
word—word | word, word
word - word | word, word
wait…what | wait, what
Wait... What | Wait. What
Hello , world!! | Hello, world!
What?! | What?
end.Next | end. Next
café naïve straße Łódź | cafe naive strasse Lodz
well-known | well-known
hello 😀 world привет | hello world
Hello 你好, Bob | Hello, Bob
""".strip().splitlines()

# What the rules look for, thrown together: plain random text would hardly ever meet one of them.
TRIGGERS = """
Dr. St. No. J. U.S. I V X IV Chapter Henry Part B. US TV BBC's 5 12 1984 007 $ £ % ° C km 3.5 1/2 - -- – — ' " ( ) . ...
, ; : ! ? / & @ # + = * ^ ~ < > a b The He vs etc. i.e. e.g. p.m. am Jan May 3 2024 555-1234 example.com www. http:// é
x@y.com ½ ² … 😀 我 PhD Ph.D. World War XX co. Plan MMM 's n't Jr. A-B -A A- Ch. _ | [ ]
"""
FRAGMENTS = [*TRIGGERS.split(), " ", "\n", "\n\n", "\0", "\u2044", "\u00ad", "\ud800"]
LIKELY = st.lists(st.tuples(st.sampled_from(FRAGMENTS), st.sampled_from(["", " "])).map("".join)).map("".join)
ANYTHING = LIKELY | st.text() | st.text(alphabet=string.printable)
thorough = settings(max_examples=200, deadline=None, derandomize=True)


@pytest.mark.parametrize("case", CASES, ids=[case.split(" | ")[0] for case in CASES])
def test_normalise_reads_as_a_person_would(case: str) -> None:
    written, _, spoken = case.partition(" | ")
    assert normalise(written) == spoken


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("a\0b\x07c", "abc"),
        ("soft\u00adhyphen", "softhyphen"),
        ("one\ntwo\r\nthree", "one two three"),
        ("A heading\n\nThe text.\n\n\nMore", "A heading. The text. More"),
        ("You need:\n- eggs\n- milk\n* flour", "You need: eggs, milk, flour"),
        ("one\n-----\ntwo", "one. two"),
        ("\ud800lone\udfff", "lone"),
        ("a | b", "a, b"),
        ("", ""),
        ("... !? -- '", ""),
        ("你好，世界。", ""),
    ],
)
def test_normalise_lines_and_bytes(written: str, spoken: str) -> None:
    assert normalise(written) == spoken


@thorough
@given(ANYTHING)
def test_normalise_gives_only_speakable_characters_and_is_idempotent(text: str) -> None:
    spoken = normalise(text)
    assert re.fullmatch(r"[A-Za-z',.?!;: -]*", spoken)
    assert not re.search(r"[,.?!;:][^ ]|  |^[ ,.?!;:]| $|(?<![A-Za-z])['-]|['-](?![A-Za-z])", spoken)
    assert normalise(spoken) == spoken


@thorough
@given(st.text(alphabet="0123456789,./:- $%aks'\"", max_size=40))
def test_no_digit_survives(text: str) -> None:
    assert not re.search(r"\d", speak_numbers(text))


@thorough
@given(st.integers(min_value=0, max_value=10**15 - 1))
def test_number_words_are_read_back(number: int) -> None:
    assert _value(normalise(f"{number:,}")) == number


def _value(words: str) -> int:
    """English number words back to the number."""
    units = {normalise(str(i)): i for i in range(20)} | {normalise(str(i)): i for i in range(20, 100, 10)}
    scales = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
    total = part = 0
    for word in words.split():
        if word in scales:
            total, part = total + part * scales[word], 0
        elif word == "hundred":
            part *= 100
        elif word != "and":
            part += units[word]
    return total + part


@pytest.mark.parametrize(
    "unit", ["1", "1,111,", "1.", "a.", "a@", "'", "\n ", "A.", "Chapter I ", "http://", "!", "a-"]
)
def test_fifty_thousand_characters_of_trouble(unit: str) -> None:
    # A pattern that backtracks takes minutes here.
    text = (unit * 50000)[:50000]
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())
    assert all(len(chunk.text) <= 160 for chunk in chunks(text))


# What the rules look for, and the starts of it.
MORE = """
1 1, 1. 1: 1/ 1- $5M- 8 = 1e- 1x 1920x 0, 000 12" call 911 PIN Mon- Jan- MM XIV CO H2 (a) a) 1. ii) &amp; &# won 3-1
f(x) √ #AbCd he/ C:\\ /a ~/ flight AB room 101 5:3-10 1st- century 1h 5m St. Elm <= -> a_b
7-6 737- A1s <b < scene i pp. iv- 5€5 $- 2x sin( Art. v. noon- 'A 0' n° · .tar. ../ Ps
"""
STARTS = [*TRIGGERS.split(), *MORE.split(), "\n", "\n- ", "\n1. ", "\nA", "  "]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(STARTS), min_size=1, max_size=4), st.sampled_from(["", " "]))
def test_mixed_trouble_is_read_to_its_end(parts: list[str], joint: str) -> None:
    # A pattern that backtracks takes minutes here.
    text = ((joint.join(parts) + joint) * 8000)[:8000]
    assert all(len(chunk.text) <= 160 for chunk in chunks(text))


@pytest.mark.parametrize(
    ("text", "speakable"), [("", False), (" \n", False), ("...!?", False), ("😀", False), ("5", True)]
)
def test_is_speakable(text: str, speakable: bool) -> None:
    assert is_speakable(text) == speakable


@pytest.mark.parametrize(
    "parts",
    [
        ["Dr. Smith met J. K. Rowling in St. Louis.", "It cost $3.50.", "Really?!", "Yes."],
        ['"Really?" he asked.', '"I left."', "She nodded."],
        ["Wait... what?", "Well...", "Perhaps."],
        ["He said “No.”", "Then he left (at last.)", "The end"],
        ["See e.g. Fig. 3 and No. 5.", "Version 2.0 is out.", "The U.S. Army came.", "He likes the U.S.", "He does."],
        ["Meet at 5 p.m. on Monday.", "Or at 6 p.m.", "We need eggs, milk, etc.", "Thanks."],
        ["Acme Inc. reported a loss.", "I sold my shares in Acme Inc.", "It fell."],
        ["1. The first point.", "2. The second."],
        ["hello there.", "how are you.", "fine"],
        ["We chose plan B.", "Doctors agreed.", "I am fine!"],
    ],
)
def test_sentences(parts: list[str]) -> None:
    assert sentences(" ".join(parts)) == parts
    # The same ends are found once the text is normalised.
    assert len(sentences(normalise(" ".join(parts)))) >= len(parts)


def test_sentences_end_with_their_paragraph_but_not_with_the_line() -> None:
    assert sentences("A title\n\nOne line\nand another.\r\n\r\nLast") == ["A title", "One line\nand another.", "Last"]
    assert sentences("你好。世界！") == ["你好。", "世界！"]


@thorough
@given(ANYTHING)
def test_sentences_lose_nothing(text: str) -> None:
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())


@thorough
@given(ANYTHING, st.integers(min_value=20, max_value=200))
def test_chunks_fit_and_lose_nothing(text: str, limit: int) -> None:
    pieces = chunks(text, limit)
    assert all(0 < len(piece.text) <= limit for piece in pieces)
    wanted = [word for block in paragraphs(text) for word in normalise(block).split()]
    if all(len(word) <= limit for word in wanted):
        assert [word for piece in pieces for word in piece.text.split()] == wanted
    else:
        assert "".join(piece.text for piece in pieces).replace(" ", "") == "".join(wanted)


def test_chunks_cut_at_sentences_clauses_and_words_in_this_order() -> None:
    first = "The first sentence is of a middling length."
    second = "The second one is much longer, since it has a clause, and after it one more that ends it."
    third = "no " * 30 + "stop"
    pieces = chunks(f"{first} {second}\n\n{third}\n\nThe end of all of this text.", limit=60)
    assert [piece.text for piece in pieces[:3]] == [
        first,
        "The second one is much longer, since it has a clause,",
        "and after it one more that ends it.",
    ]
    assert [piece.pause for piece in pieces] == [SENTENCE, CLAUSE, PARAGRAPH, 0.0, PARAGRAPH, 0.0]


def test_chunks_join_only_short_sentences() -> None:
    long = "This sentence is long enough to stand alone."
    assert [p.text for p in chunks(f"No. {long} {long} Yes! {long} Oh.")] == [f"No. {long}", long, f"Yes! {long} Oh."]
    assert [p.text for p in chunks(f"No. {long}", limit=len(long))] == ["No.", long]


def test_chunks_of_text_in_another_language_are_left_as_written() -> None:
    assert chunks("你好。世界，再见！", 5, str.strip) == [("你好。", SENTENCE), ("世界，", CLAUSE), ("再见！", 0.0)]


def test_chunks_cut_a_word_longer_than_the_limit() -> None:
    assert [piece.text for piece in chunks("a" + "x" * 48 + "z", 20)] == ["a" + "x" * 19, "x" * 20, "x" * 9 + "z"]


def test_chunks_need_a_limit() -> None:
    with pytest.raises(ValueError, match="limit"):
        chunks("text", 0)
