"""How alike two texts are, and conversations that are drawn again until they differ."""

from collections.abc import Iterator

from dice import Dice
from speech import Conversation, Topic, converse, joined

RUN = 5  # words, or characters where there are hardly any spaces
TOO_MUCH_ALIKE = 0.6
DRAWS = 20


Runs = frozenset[tuple[str, ...]]


def runs(text: str) -> Runs:
    """All runs of five words of a text, or of five characters if it is written without spaces."""
    words = text.lower().split()
    units = words if len(text) < 12 * len(words) else list(text)
    return frozenset(tuple(units[place : place + RUN]) for place in range(max(1, len(units) - RUN + 1)))


def likeness(first: Runs, second: Runs) -> float:
    """The Jaccard similarity of the runs of two texts, from 0 to 1."""
    common = len(first & second)
    return common / (len(first) + len(second) - common)


def conversations(topics: list[Topic], seed: object) -> Iterator[Conversation]:
    """All conversations of all topics; one in ten goes on to another topic of its language."""
    for topic in topics:
        told: list[Runs] = []
        for number in range(topic.trees):
            for draw in range(DRAWS):
                conversation = _wandering(topic, topics, number, f"{seed}/{draw}")
                said = runs(conversation.text())
                if all(likeness(said, earlier) < TOO_MUCH_ALIKE for earlier in told):
                    break
            told.append(said)
            yield conversation


def _wandering(topic: Topic, topics: list[Topic], number: int, seed: object) -> Conversation:
    conversation = converse(topic, number, seed)
    dice = Dice(seed, topic.name, number, "wander")
    if dice.chance(0.9):
        return conversation
    other = dice.pick([other for other in topics if other.lang == topic.lang])
    second = converse(other, dice.below(1000) + 1000, seed)
    return joined(conversation, second, dice.pick(topic.slots["byway"]))
