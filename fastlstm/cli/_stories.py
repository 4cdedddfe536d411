"""Stories by a small grammar, in which pronouns have to be remembered over many words.

Everybody in a story is a he, a she or an it, and stays one.  A pronoun stands for the subject of
its sentence or, where it begins one, of the sentence before; after "gave", for who was given
something.  Between noun and pronoun there is a way of any length.  Nothing on it tells the pronoun:
ways and verbs are the same for all, each kind is a subject equally often, and whom a long way
leads past has nothing to do with the subject.  Only a memory back to the noun knows the pronoun.

What is counted is the distance: how many words a pronoun comes after its noun.  In "Mary lost her
hat" it is 2.

The same seed tells the same stories, in every version of Python.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")

# A row for each form of a pronoun, a column for each kind.
PRONOUNS = (("he", "she", "it"), ("his", "her", "its"), ("him", "her", "it"))

NOUNS = (
    ("John", "Peter", "Tom", "Ben", "the king"),
    ("Mary", "Anna", "Lucy", "Emma", "the queen"),
    ("the puppy", "the kitten", "the owl", "the fox", "the robot"),
)

# {who} is the subject.
OPENINGS = (
    "{giver} gave {who} {gift}. {He} was {glad}.",
    "{giver} gave {who} {gift}, and {he} was {glad}.",
    "One day {giver} gave {who} {gift}{way}. {He} was {glad}.",
    "{giver} gave {who} {gift}{way}, and {he} was {glad}.",
)
SENTENCES = (
    "{who} {went}{way}. {He} was {glad}.",
    "{who} {went}{way}. {He} {did}.",
    "{who} {went}{way}, and {he} was {glad}.",
    "{who} {went}{way} to find {his} {hat}.",
    "{who} {went}{way} and lost {his} {hat}.",
    "{who} {went}{way}, and we all ran after {him}.",
    "{who} lost {his} {hat}.",
    "{who} said{way} that {he} was {glad}.",
    "Then {giver} gave {who} a {lamp}. {He} was {glad}.",
)

WORDS = {
    "went": ("went", "ran", "walked"),
    "did": ("sang a song", "slept well", "saw a star", "ate a pear"),
    "glad": ("glad", "tired", "hungry", "proud", "cold"),
    "lamp": ("hat", "lamp", "key", "pear"),
    "hat": ("hat", "lamp", "red shoes", "key", "mother", "home"),
}

WAYS = (
    "in the sun", "by the sea", "up the hill", "to the mill", "in the rain", "all day",
    "under the moon",
)  # fmt: skip
WAYS_PAST_OTHERS = ("with {other}", "past {other}", "to see {other}", "and met {other}")

# The least and most words of a way, drawn alike.
LENGTHS = (*[(0, 0)] * 12, *[(1, 4)] * 6, *[(5, 8)] * 3, *[(9, 17)] * 3, (18, 35), (36, 45))
LONG = 9  # words: one in three ways that are as long leads past somebody


class Pronoun(NamedTuple):
    """A pronoun of a story."""

    place: int
    """Of its first character."""
    form: int
    """Its row of PRONOUNS."""
    kind: int
    """Its column."""
    distance: int
    """In words, from its noun."""


class Story(NamedTuple):
    """A story, one line, and its pronouns in their order."""

    text: str
    pronouns: tuple[Pronoun, ...]


class Somebody(NamedTuple):
    """Somebody in a story."""

    name: str
    kind: int


def stories(seed: int) -> Iterator[Story]:
    """Tell stories, endlessly; each differs from all before."""
    told, rng = set(), random.Random(seed)
    while True:
        story = _Teller(rng).tell()
        if story.text not in told:
            told.add(story.text)
            yield story


class _Teller:
    """Tells one story."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._text = ""
        self._pronouns: list[Pronoun] = []
        self._told: dict[Somebody, int] = {}  # where the last noun of each ends
        giver = self._somebody(self._below(2))
        receiver = self._somebody(self._below(3), giver)
        self._gift = self._somebody(2, receiver)
        self._cast = (giver, receiver, self._gift)

    def tell(self) -> Story:
        self._sentence(self._one_of(OPENINGS), self._cast[1])
        # Givers are no things and gifts are: so each kind is a subject equally often.
        subjects = (*self._cast[:2] * 2, self._gift)
        sentences = 3 + self._below(4)
        while self._text.count(".") < sentences:  # each adds one or two
            self._text += " "
            self._sentence(self._one_of(SENTENCES), self._one_of(subjects))
        return Story(self._text, tuple(self._pronouns))

    def _sentence(self, template: str, subject: Somebody) -> None:
        for part in re.split(r"(\{\w+\})", template):
            slot = part[1:-1]
            if not part.startswith("{"):
                self._text += part
            elif slot == "way":
                self._way(subject)
            elif slot in WORDS:
                self._text += self._one_of(WORDS[slot])
            elif slot == "who":
                self._name(subject)
            elif slot == "giver":
                # Who gives in the first sentence; later anybody else of the story.
                others = [s for s in self._cast if s != subject]
                self._name(self._one_of(others) if self._told else self._cast[0])
            elif slot == "gift":
                name = self._gift.name.removeprefix("the ")
                self._name(self._gift, f"an {name}" if name[0] in "aeiou" else f"a {name}")
            else:
                self._pronoun(slot, subject)

    def _name(self, somebody: Somebody, name: str = "") -> None:
        self._word(name or somebody.name)
        self._told[somebody] = len(self._text)

    def _word(self, word: str) -> None:
        first = not self._text or self._text.endswith(". ")
        self._text += word[0].upper() + word[1:] if first else word

    def _pronoun(self, slot: str, subject: Somebody) -> None:
        form = [row[0] for row in PRONOUNS].index(slot.lower())
        place, told = len(self._text), self._told[subject]
        distance = len(self._text[told:].split(" ")) - 1
        self._pronouns.append(Pronoun(place, form, subject.kind, distance))
        self._word(PRONOUNS[form][subject.kind])

    def _way(self, subject: Somebody) -> None:
        """Phrases of so many words, none of them twice among four."""
        least, most = self._one_of(LENGTHS)
        length, words = least + self._below(most - least + 1), 0
        phrases: list[str] = []
        while words < length:
            past = len(phrases) == 1 and length >= LONG and self._below(3) == 0
            new = [way for way in WAYS if way not in phrases[-3:]]
            phrases.append(self._one_of(WAYS_PAST_OTHERS if past else new))
            self._text += ", " if words else " "
            before, other, _ = phrases[-1].partition("{other}")
            self._text += before
            if other:
                self._name(self._other(subject))
            words += len(phrases[-1].split())

    def _other(self, subject: Somebody) -> Somebody:
        """Anybody but the subject; the kind is drawn first, so that it tells nothing."""
        kind = self._below(3)
        known = [s for s in self._cast if s.kind == kind and s != subject]
        return self._one_of(known) if known and self._below(2) else self._somebody(kind, subject)

    def _somebody(self, kind: int, but: Somebody | None = None) -> Somebody:
        names = [name for name in NOUNS[kind] if but is None or name != but.name]
        return Somebody(self._one_of(names), kind)

    def _one_of(self, things: Sequence[T]) -> T:
        return things[self._below(len(things))]

    def _below(self, n: int) -> int:
        # `random` draws the same in every version of Python, `choice` need not.
        return int(self._rng.random() * n)
