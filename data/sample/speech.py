"""Turns fragments into conversations by filling templates, without repeating a phrase while another is left.

A topic (fragments/*.toml) has `subjects` (a dish, a city, a theorem, with facts in fields), `slots` (phrases that all its
subjects can use), and `opening` and `follow` turns, each with templates to `ask` and to answer well (`best`), fairly
(`fair`) or poorly (`weak`). Slots that are `fixed` have one value in the whole conversation. A template may hold

    {{field}}            a value of a field or slot, if possible one that this conversation has not used
    {{Field}}            the same with a capital first letter
    {{this|that}}        one of the words
    {{bullets tips 3}}   three values (all, without a number) as a list; also `numbered`, `rows` of a table,
                         `headings` (### Step 1), `sentences` and `comma` (a, b and c)
"""

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import computed
from dice import Dice

FRAGMENTS = Path(__file__).parent / "fragments"
PLACEHOLDER = re.compile(r"\{\{(.+?)\}\}")
TURNS = {1: 34, 2: 30, 3: 20, 4: 11, 5: 5}  # number of turns of a conversation: its weight
LONGEST = 6  # turns
ANSWERS = {1: 40, 2: 32, 3: 28}  # number of answers to a question: its weight
WITHOUT_SPACES = ("zh", "ja")

Fields = dict[str, str | list[str]]


@dataclass(frozen=True)
class Turn:
    """A question and its answers, the best first."""

    ask: str
    answers: list[str]


@dataclass(frozen=True)
class Conversation:
    """The turns of a best path, and a polite turn that another branch may use (`aside`)."""

    topic: str
    lang: str
    turns: list[Turn]
    aside: Turn

    def text(self) -> str:
        """Return the best path as one text."""
        return "\n".join(text for turn in self.turns for text in (turn.ask, turn.answers[0]))


@dataclass(frozen=True)
class Topic:
    """A file of fragments, with the phrases that all topics in its language share."""

    name: str
    lang: str
    trees: int
    subjects: list[Fields]
    slots: Fields
    opening: list[dict]
    follow: list[dict]
    fixed: list[str]


@dataclass
class Speaker:
    """Fills templates with the fields of one subject and remembers which values were used."""

    dice: Dice
    fields: Fields
    glue: str = " "
    used: dict[str, set[int]] = field(default_factory=dict)

    def say(self, template: str) -> str:
        """Return the template with every placeholder filled, including placeholders in the values."""
        while PLACEHOLDER.search(template):
            template = PLACEHOLDER.sub(lambda match: self._fill(match[1]), template)
        return template.strip()

    def forked(self) -> "Speaker":
        """Return a speaker with a copy of the memory, for answers off the best path."""
        used = {name: set(places) for name, places in self.used.items()}
        return Speaker(self.dice, self.fields, self.glue, used)

    def _fill(self, words: str) -> str:
        if "|" in words:
            return self.dice.pick(words.split("|"))
        name, *rest = words.split()
        if rest:
            return self._list(name, rest[0], int(rest[1]) if rest[1:] else None)
        value = self._take(name.lower(), 1)[0]
        return value[:1].upper() + value[1:] if name[0].isupper() else value

    def _list(self, shape: str, name: str, count: int | None) -> str:
        values = self._take(name, count) if count else list(self.fields[name])
        if shape == "numbered":
            return "\n".join(f"{place}. {value}" for place, value in enumerate(values, 1)).rstrip()
        if shape == "headings":
            word = self._take("step", 1)[0]
            return "\n\n".join(f"### {word} {n}\n{value.strip()}" for n, value in enumerate(values, 1))
        if shape == "rows":
            return "\n".join(f"| {place} | {value} |" for place, value in enumerate(values, 1))
        if shape == "bullets":
            return "\n".join(f"- {value}" for value in values).rstrip()
        if shape == "comma":
            return self.fields["and"].join([", ".join(values[:-1]), values[-1]])
        if shape == "sentences":
            return self.glue.join(values)
        raise ValueError(f"Unknown list shape {shape!r}.")

    def _take(self, name: str, count: int) -> list[str]:
        """Return values of a field in the order of the file; unused values are preferred."""
        values = self.fields[name]
        if isinstance(values, str):
            return [values]
        used = self.used.setdefault(name, set())
        unused = self.dice.shuffled([place for place in range(len(values)) if place not in used])
        repeated = self.dice.shuffled(sorted(used))
        chosen = sorted((unused + repeated)[:count])
        used.update(chosen)
        return [values[place] for place in chosen]


def read_topics() -> list[Topic]:
    """Return every topic of the folder of fragments, in the order of the file names."""
    common = tomllib.loads((FRAGMENTS / "common.toml").read_text("utf-8"))
    paths = sorted(path for path in FRAGMENTS.glob("*.toml") if path.name != "common.toml")
    return [_read_topic(path, common) for path in paths]


def _read_topic(path: Path, common: dict) -> Topic:
    topic = tomllib.loads(path.read_text("utf-8"))
    shared = common[topic["lang"]]
    return Topic(
        name=path.stem,
        lang=topic["lang"],
        trees=topic["trees"],
        subjects=topic.get("subjects", []) + [{"computed": name} for name in topic.get("computed", [])],
        slots=shared["slots"] | topic.get("slots", {}),
        opening=topic["opening"],
        follow=topic.get("follow", []) + shared["follow"],
        fixed=topic.get("fixed", []),
    )


def converse(topic: Topic, number: int, seed: object) -> Conversation:
    """Return conversation `number` of a topic; its subjects are used in turn."""
    dice = Dice(seed, topic.name, number)
    subject = computed.complete(topic.subjects[number % len(topic.subjects)], dice)
    fixed = {name: dice.pick(topic.slots[name]) for name in topic.fixed}
    speaker = Speaker(dice, topic.slots | subject | fixed, "" if topic.lang in WITHOUT_SPACES else " ")
    opening = dice.pick(_possible(topic.opening, speaker.fields))
    follow = dice.shuffled(_possible(topic.follow, speaker.fields))
    polite = [turn for turn in follow if turn.get("last")]
    curious = [turn for turn in follow if not turn.get("last")]
    chosen = [opening, *curious[: dice.weighted(TURNS) - 1]]
    if len(chosen) > 1 and dice.chance(0.12):
        chosen[-1] = polite[0]
    turns = [_turn(turn, speaker) for turn in chosen]
    return Conversation(topic.name, topic.lang, turns, aside=_turn(polite[0], speaker))


def joined(first: Conversation, second: Conversation, byway: str) -> Conversation:
    """Return two conversations as one, joined by a transition (`byway`)."""
    opening, *rest = second.turns
    glue = "" if first.lang in WITHOUT_SPACES else " "
    turns = [*first.turns, Turn(f"{byway}{glue}{opening.ask}", opening.answers), *rest]
    return Conversation(first.topic, first.lang, turns[:LONGEST], first.aside)


def _possible(turns: list[dict], fields: Fields) -> list[dict]:
    """Return the turns whose fields this subject has."""
    return [turn for turn in turns if all(name in fields for name in turn.get("needs", []))]


def _turn(turn: dict, speaker: Speaker) -> Turn:
    dice = speaker.dice
    ask = speaker.say(dice.pick(turn["ask"]))
    other = speaker.forked()
    answers = [speaker.say(dice.pick(turn["best"]))]
    count = dice.weighted(ANSWERS)
    weak = other.say(dice.pick(turn.get("weak", speaker.fields["weak"])))
    fair = other.say(dice.pick(turn.get("fair", turn["best"])))
    more = [fair, weak] if count == 3 else [dice.pick([fair, weak])]
    answers += [text for text in more[: count - 1] if text not in answers]
    return Turn(ask, answers)
