"""The texts that `repeats.py` counts. `recipes/tiny/repetition.py` leaves them out of what is learnt."""

TEXTS = (
    "I am very very very very very tired.", "No, no, no, no, no, no, no, no.",
    "One two three, one two three, one two three, one two three.", "It was a long, long, long way home.",
    "Again and again and again we tried.", "Please, please, please listen to me.", "Go, go, go, go, go, go!",
    "They walked on and on and on and on.", "Thanks, thanks, thanks.", "I know, I know, I know, I know.",
    "The drum went boom, boom, boom, boom, boom.", "Many many many many people came.",
)  # fmt: skip
# `recipes/tiny/repetition.py` leaves out the words of these.
UNSEEN = (
    "Bravo, bravo, bravo!", "Drip, drip, drip, drip went the tap.", "It rained and rained and rained.",
    "Slowly, slowly, slowly he turned.", "Higher and higher and higher they flew.", "Hooray, hooray, hooray!",
    "Tomorrow, and tomorrow, and tomorrow.", "The duck said quack, quack, quack, quack.",
    "It is a funny, funny, funny story.", "Twinkle, twinkle, little star.", "Row, row, row your boat.",
    "My feet hurt, hurt, hurt, hurt.",
)  # fmt: skip
