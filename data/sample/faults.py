"""The faults that are planted into the sample, each in its own trees, so that the records that a build drops can be counted.

`FAULTS` change a tree in place; `COPIES` add a tree made from another one. The README lists each entry with its text.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

from dice import Dice
from trees import Message, Tree, best_path, messages, with_other_ids
from variety import shingles, similarity

TOKENS = ["<s>", "</s>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<|im_start|>"]
STATES = [
    "initial_prompt_review",
    "growing",
    "ranking",
    "prompt_lottery_waiting",
    "aborted_low_grade",
    "halted_by_moderator",
    "backlog_ranking",
]
SECOND_THOUGHTS = [
    "Sorry, I pressed enter too early. Please keep the answer short.",
    "And could you add an example, please?",
    "Hello? Are you still there?",
    "Oh, and it should be easy to remember.",
    "One more detail: it is for beginners.",
]
SYNONYMS = {
    "often": "frequently",
    "usually": "normally",
    "small": "little",
    "large": "big",
    "need": "require",
    "because": "since",
    "every": "each",
    "whole": "entire",
    "nearly": "almost",
    "begin": "start",
    "good": "fine",
    "only": "just",
    "without": "with no",
    "until": "till",
    "many": "a lot of",
    "always": "at all times",
}
OPTIONAL = ["rank", "labels", "emojis", "review_count", "model_name", "synthetic"]


@dataclass(frozen=True)
class Fault:
    """A fault: the number of trees that get it, which trees are suitable, and how it is planted (given a running number)."""

    name: str
    count: int
    says: str
    suits: Callable[[Tree], bool]
    plant: Callable[[Tree, int, Dice], None]


@dataclass(frozen=True)
class Copy:
    """A tree that repeats another one; `copy` returns None if that tree is not suitable."""

    name: str
    count: int
    says: str
    copy: Callable[[Tree, int, Dice], Tree | None]


def _any(tree: Tree) -> bool:
    return True


def _english(tree: Tree) -> bool:
    return tree["prompt"]["lang"] == "en"


def _ranked(tree: Tree) -> bool:
    return len(tree["prompt"]["replies"]) > 1


def _two_turns(tree: Tree) -> bool:
    return len(best_path(tree)) >= 4


def _english_two_turns(tree: Tree) -> bool:
    return _english(tree) and _two_turns(tree)


def _mark(find: Callable[[Tree], Message], field: str, value: object) -> Callable[[Tree, int, Dice], None]:
    """Return a function that sets one field of the message that `find` returns."""

    def plant(tree: Tree, number: int, dice: Dice) -> None:
        find(tree)[field] = value

    return plant


def _root(tree: Tree) -> Message:
    return tree["prompt"]


def _best(tree: Tree) -> Message:
    return tree["prompt"]["replies"][0]


def _worst(tree: Tree) -> Message:
    return tree["prompt"]["replies"][-1]


def _dangling(tree: Tree, number: int, dice: Dice) -> None:
    questions = [message for message in best_path(tree) if message["role"] == "prompter"]
    questions[-1]["replies"] = []


def _prompt_only(tree: Tree, number: int, dice: Dice) -> None:
    tree["prompt"]["replies"] = []


def _control_token(tree: Tree, number: int, dice: Dice) -> None:
    """Insert a control token before or after a question, as if pasted from a rendered prompt, or into an answer."""
    token = TOKENS[number % len(TOKENS)]
    if number // len(TOKENS) == 2:
        _best(tree)["text"] += f"\n\nIf you see {token} at the end of this answer, the page has a bug."
    elif "/" in token:
        tree["prompt"]["text"] += f" {token}"
    else:
        tree["prompt"]["text"] = f"{token} {tree['prompt']['text']}"


def _blanked(text: str) -> Callable[[Tree, int, Dice], None]:
    """Return a function that replaces the first answer and the second question in turn by `text`."""

    def plant(tree: Tree, number: int, dice: Dice) -> None:
        best_path(tree)[1 + number % 2]["text"] = text

    return plant


def _missing_fields(tree: Tree, number: int, dice: Dice) -> None:
    for message in messages(tree):
        for name in OPTIONAL:
            del message[name]


def _not_ready(tree: Tree, number: int, dice: Dice) -> None:
    tree["tree_state"] = STATES[number % len(STATES)]


def _orphan_elsewhere(tree: Tree, number: int, dice: Dice) -> None:
    best_path(tree)[2]["parent_id"] = tree["prompt"]["message_id"]


def _orphan_nowhere(tree: Tree, number: int, dice: Dice) -> None:
    best_path(tree)[1 + number % 2]["parent_id"] = dice.identity()


def _within(run: str) -> Callable[[Tree, int, Dice], None]:
    """Return a function that inserts unwanted characters between two words of the first answer."""

    def plant(tree: Tree, number: int, dice: Dice) -> None:
        words = _best(tree)["text"].split(" ")
        place = dice.between(1, len(words) - 1)
        times = dice.between(4, 12) if len(run) == 1 and run != "\0" else 1
        words[place] = run * times + words[place]
        _best(tree)["text"] = " ".join(words)

    return plant


def _second_thought(tree: Tree, number: int, dice: Dice) -> None:
    """Insert a prompter's reply to a prompter between the second question and its answers."""
    question = best_path(tree)[2]
    thought = deepcopy(question) | {
        "message_id": dice.identity(),
        "parent_id": question["message_id"],
        "text": dice.pick(SECOND_THOUGHTS),
    }
    for reply in thought["replies"]:
        reply["parent_id"] = thought["message_id"]
    question["replies"] = [thought]


FAULTS = [
    Fault(
        "best_reply_deleted",
        12,
        "the best ranked answer to the first question is deleted",
        _ranked,
        _mark(_best, "deleted", True),
    ),
    Fault(
        "other_reply_deleted",
        12,
        "the worst ranked answer to the first question is deleted",
        _ranked,
        _mark(_worst, "deleted", True),
    ),
    Fault(
        "best_reply_rejected",
        12,
        "reviewers rejected the best ranked answer",
        _ranked,
        _mark(_best, "review_result", False),
    ),
    Fault(
        "other_reply_rejected",
        12,
        "reviewers rejected the worst ranked answer",
        _ranked,
        _mark(_worst, "review_result", False),
    ),
    Fault("prompt_deleted", 8, "the first question itself is deleted", _any, _mark(_root, "deleted", True)),
    Fault("prompt_rejected", 8, "reviewers rejected the first question", _any, _mark(_root, "review_result", False)),
    Fault("dangling_question", 25, "the best path ends with a question", _two_turns, _dangling),
    Fault("prompt_only", 15, "a question without any reply", _any, _prompt_only),
    Fault(
        "control_tokens",
        21,
        "`" + "`, `".join(TOKENS).replace("|", "\\|") + "` typed in a text, three trees each",
        _english,
        _control_token,
    ),
    Fault("empty_turn", 6, "a turn of the best path has the empty text", _two_turns, _blanked("")),
    Fault("blank_turn", 6, "a turn of the best path has only white space", _two_turns, _blanked(" \n\t\u00a0 ")),
    Fault("missing_fields", 25, "no message has `" + "`, `".join(OPTIONAL) + "`", _any, _missing_fields),
    Fault("not_ready", 14, "`tree_state` is not `ready_for_export`; seven other states, twice each", _any, _not_ready),
    Fault(
        "orphan_elsewhere",
        6,
        "`parent_id` names a message of the tree that is not the parent",
        _two_turns,
        _orphan_elsewhere,
    ),
    Fault("orphan_nowhere", 6, "`parent_id` names a message that does not exist", _two_turns, _orphan_nowhere),
    Fault("replacement_run", 8, "a run of four to twelve U+FFFD in the first answer", _english, _within("\ufffd")),
    Fault("nul", 5, "a NUL in the first answer", _english, _within("\0")),
    Fault(
        "prompter_after_prompter",
        10,
        "a question follows a question on the best path",
        _english_two_turns,
        _second_thought,
    ),
]


def _exact_copy(tree: Tree, number: int, dice: Dice) -> Tree | None:
    """Return the same conversation with other ids and other case, white space or width of letters."""
    if not _english(tree) or not tree["prompt"]["text"].isascii():
        return None
    copy = with_other_ids(tree, dice)
    changes = [_other_case, _other_white_space, _full_width]
    for message in messages(copy):
        message["text"] = changes[number % 3](message)
    return copy


def _other_case(message: Message) -> str:
    return message["text"].upper() if message["role"] == "prompter" else message["text"].lower()


def _other_white_space(message: Message) -> str:
    return "  " + message["text"].replace(". ", ".  ").replace("\n\n", "\r\n\r\n") + "\n"


def _full_width(message: Message) -> str:
    if message["role"] == "assistant":
        return message["text"]
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in message["text"])


def _near_copy(tree: Tree, number: int, dice: Dice) -> Tree | None:
    """Return the same conversation with other ids and a few words replaced, at a similarity of 0.85 to 0.97."""
    copy = with_other_ids(tree, dice)
    left = 2 + number % 3
    for message in best_path(copy):
        if "```" not in message["text"]:
            message["text"], left = _reworded(message["text"], left)
    texts = ("\n".join(message["text"] for message in best_path(each)) for each in (tree, copy))
    measured = similarity(*map(shingles, texts))
    return copy if left == 0 and 0.85 <= measured <= 0.97 and _english(tree) else None


def _reworded(text: str, left: int) -> tuple[str, int]:
    """Return the text with up to `left` words replaced by synonyms, and how many are left to replace."""
    words = text.split(" ")
    for place, word in enumerate(words):
        if word in SYNONYMS and left and all(words[near] for near in range(max(0, place - 4), place)):
            words[place], left = SYNONYMS[word], left - 1
    return " ".join(words), left


def _same_line(tree: Tree, number: int, dice: Dice) -> Tree | None:
    return deepcopy(tree)


COPIES = [
    Copy(
        "exact_duplicate",
        21,
        "another tree's conversation; only ids and case, white space or width (seven each) differ",
        _exact_copy,
    ),
    Copy("near_duplicate", 20, "another tree's conversation with other ids and two to four words replaced", _near_copy),
    Copy("repeated_tree", 8, "the same line once more", _same_line),
]
