"""The stories of the demo: pronouns that agree, distances as they are counted, nothing local."""

from __future__ import annotations

import re
from itertools import islice

import pytest

from fastlstm.cli import _demo_text
from fastlstm.cli._stories import NOUNS, PRONOUNS, Story, stories

KIND = {name.removeprefix("the "): kind for kind, names in enumerate(NOUNS) for name in names}
FORMS = {word: kind for words in PRONOUNS for kind, word in enumerate(words)}
WORD = re.compile(r"\w+")


@pytest.fixture(scope="module")
def told() -> list[Story]:
    return list(islice(stories(7), 2000))


def antecedents(text: str) -> list[tuple[int, int, int]]:
    """Place, kind and distance of each pronoun, read from the words alone.

    The subject of a sentence is its first noun, after "gave" the second; that of a sentence that
    begins with a pronoun is the one before.
    """
    words = [(m.group(), m.start()) for m in WORD.finditer(text)]
    found, subject, last, fresh = [], -1, -1, True
    gave = False
    for i, (word, place) in enumerate(words):
        if place and text[place - 2 : place] == ". ":
            fresh = True
        if word.lower() in FORMS:
            fresh = False
            found.append((place, subject, i - last))
            last = i
        elif word in KIND and (fresh or gave):
            subject, last = KIND[word], i
            fresh = gave = False
        gave = gave or word == "gave"
    return found


def test_pronouns_agree_with_their_nouns(told: list[Story]) -> None:
    for story in told:
        found = antecedents(story.text)
        assert [(p.place, p.kind, p.distance) for p in story.pronouns] == found, story.text
        for p in story.pronouns:
            word = WORD.match(story.text, p.place)
            assert word is not None
            assert word.group().lower() == PRONOUNS[p.form][p.kind]


def test_stories_have_three_to_seven_sentences_of_few_people(told: list[Story]) -> None:
    lengths = {story.text.count(".") for story in told}
    assert lengths == {3, 4, 5, 6, 7}
    for story in told:
        assert "\n" not in story.text
        starts = re.findall(r"(?:^|\. )(?:One day |Then )?(?:[Tt]he )?(\w+)", story.text)
        assert len({word.lower() for word in starts if word.lower() not in FORMS}) <= 3


def test_distances_go_from_2_to_more_than_40_words(told: list[Story]) -> None:
    distances = {p.distance for story in told for p in story.pronouns}
    assert min(distances) == 2
    assert distances >= set(range(2, 46))


def test_every_kind_is_as_likely_at_every_distance(told: list[Story]) -> None:
    pronouns = [p for story in told for p in story.pronouns]
    for least, most in ((2, 5), (6, 10), (11, 20), (21, 40)):
        kinds = [p.kind for p in pronouns if least <= p.distance <= most]
        for kind in range(3):
            assert abs(kinds.count(kind) / len(kinds) - 1 / 3) < 0.06


def test_the_words_before_a_pronoun_do_not_tell_it(told: list[Story]) -> None:
    """Who knows the three words before, and learned from other stories, guesses."""
    seen: dict[tuple[str, ...], list[int]] = {}
    right, n = 0, 0
    for number, story in enumerate(told):
        for p in story.pronouns:
            if p.distance <= 10:
                continue
            key = (*story.text[: p.place].split()[-3:], str(p.form))
            counts = seen.setdefault(key, [0, 0, 0])
            if number < 1500:
                counts[p.kind] += 1
            else:
                right, n = right + (counts.index(max(counts)) == p.kind), n + 1
    assert n > 200
    assert right / n < 0.45


def test_whom_a_way_leads_past_does_not_tell_the_pronoun(told: list[Story]) -> None:
    same = []
    for story in told:
        words = [(m.group(), m.start()) for m in WORD.finditer(story.text)]
        for p in story.pronouns:
            end = next(i for i, (_, place) in enumerate(words) if place == p.place)
            between = [KIND[w] for w, _ in words[end - p.distance + 1 : end] if w in KIND]
            if p.distance > 10 and between:
                same.append(between[-1] == p.kind)
    assert len(same) > 100
    assert abs(sum(same) / len(same) - 1 / 3) < 0.1


def test_the_same_seed_tells_the_same_different_stories(told: list[Story]) -> None:
    assert list(islice(stories(7), 2000)) == told
    assert len({story.text for story in told}) == 2000
    assert next(stories(8)) != told[0]


def test_held_out_stories_are_not_read() -> None:
    corpus = _demo_text.load("stories")
    read = set(corpus.text.split("\n"))
    assert len(corpus.stories) > 1000
    assert not read & {story.text for story in corpus.stories}
    assert corpus.held_out.split("\n")[0] == corpus.stories[0].text
    assert set(corpus.held_out) | set("".join(s.text for s in corpus.stories)) <= set(corpus.text)
