"""Measures how similar texts are, and draws conversations again until they differ enough."""

from collections.abc import Iterator

from dice import Dice
from speech import Conversation, Topic, converse, joined

SHINGLE = 5  # words, or characters in languages without spaces
TOO_SIMILAR = 0.6
DRAWS = 20

Shingles = frozenset[tuple[str, ...]]


def shingles(text: str) -> Shingles:
    """Return all sequences of five words of a text, or of five characters if it is written without spaces."""
    words = text.lower().split()
    units = words if len(text) < 12 * len(words) else list(text)
    return frozenset(tuple(units[place : place + SHINGLE]) for place in range(max(1, len(units) - SHINGLE + 1)))


def similarity(first: Shingles, second: Shingles) -> float:
    """Return the Jaccard similarity of the shingles of two texts, from 0 to 1."""
    common = len(first & second)
    return common / (len(first) + len(second) - common)


def conversations(topics: list[Topic], seed: object) -> Iterator[Conversation]:
    """Yield all conversations of all topics; one in ten continues with another topic in the same language."""
    for topic in topics:
        earlier: list[Shingles] = []
        for number in range(topic.trees):
            for draw in range(DRAWS):
                conversation = _draw(topic, topics, number, f"{seed}/{draw}")
                own = shingles(conversation.text())
                if all(similarity(own, other) < TOO_SIMILAR for other in earlier):
                    break
            earlier.append(own)
            yield conversation


def _draw(topic: Topic, topics: list[Topic], number: int, seed: object) -> Conversation:
    conversation = converse(topic, number, seed)
    dice = Dice(seed, topic.name, number, "wander")
    if dice.chance(0.9):
        return conversation
    other = dice.pick([other for other in topics if other.lang == topic.lang])
    second = converse(other, dice.below(1000) + 1000, seed)
    return joined(conversation, second, dice.pick(topic.slots["byway"]))
