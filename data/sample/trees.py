"""Conversation trees in the nested export format of OpenAssistant, grown from conversations.

A tree is `{message_tree_id, tree_state, prompt}`; a message holds its replies, assistants' replies in the order of their
rank. Every message is `synthetic` and was made by the model named below, which is this script.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from dice import Dice
from speech import Conversation, Turn

Message = dict[str, Any]
Tree = dict[str, Any]

MODEL = "dataprep-sample"
FLAGS = ["spam", "lang_mismatch", "pii", "not_appropriate", "hate_speech", "sexual_content"]
SCALES = {  # label: (expected value of the best answer, of the worst one), from 0 to 1
    "quality": (0.85, 0.25),
    "helpfulness": (0.85, 0.2),
    "creativity": (0.5, 0.2),
    "humor": (0.3, 0.25),
    "toxicity": (0.02, 0.1),
    "violence": (0.01, 0.02),
}
EMOJIS = {"+1": 6, "-1": 1, "_skip_reply": 2, "_skip_ranking": 1, "_skip_labeling": 1, "red_flag": 0.2}


def grow(conversation: Conversation, seed: object) -> Tree:
    """The tree of a conversation, with its other answers and at times a second branch."""
    dice = Dice(seed, "tree")
    root = _question(conversation, 0, None, dice)
    _branch(root, conversation, dice)
    return {"message_tree_id": root["message_id"], "tree_state": "ready_for_export", "prompt": root}


def _question(conversation: Conversation, place: int, parent: Message | None, dice: Dice) -> Message:
    """Turn number `place` and, below its best answer, the turns after it."""
    question = _turn(conversation.turns[place], conversation.lang, parent, dice)
    if place + 1 < len(conversation.turns):
        best = question["replies"][0]
        best["replies"].append(_question(conversation, place + 1, best, dice))
    return question


def _turn(turn: Turn, lang: str, parent: Message | None, dice: Dice) -> Message:
    """A question with all its answers."""
    question = _message(turn.ask, "prompter", lang, parent, dice)
    for rank, text in enumerate(turn.answers):
        answer = _message(text, "assistant", lang, question, dice, rank / 2)
        answer["rank"] = rank if len(turn.answers) > 1 else None
        question["replies"].append(answer)
    return question


def _branch(root: Message, conversation: Conversation, dice: Dice) -> None:
    """Some people answer elsewhere: below a second answer, or beside a question that was asked already."""
    parent = root["replies"][-1] if dice.chance(0.5) else root["replies"][0]
    if dice.chance(0.2):
        parent["replies"].append(_turn(conversation.aside, conversation.lang, parent, dice))


def _message(text: str, role: str, lang: str, parent: Message | None, dice: Dice, badness: float = 0.0) -> Message:
    reviews = dice.between(2, 4)
    message = {"message_id": dice.identity(), "parent_id": parent["message_id"] if parent else None}
    if parent is None:
        del message["parent_id"]
    return message | {
        "text": text,
        "role": role,
        "lang": lang,
        "review_count": reviews,
        "review_result": True,
        "deleted": False,
        "rank": None,
        "synthetic": True,
        "model_name": MODEL,
        "emojis": {dice.weighted(EMOJIS): dice.between(1, 5)} if dice.chance(0.4) else {},
        "labels": _labels(role, reviews, badness, dice),
        "replies": [],
    }


def _labels(role: str, count: int, badness: float, dice: Dice) -> dict[str, dict[str, float]]:
    """What `count` reviewers said: flags are mostly 0, and scales are means of five steps."""
    labels = {flag: {"value": 1 / count if dice.chance(0.01) else 0.0, "count": count} for flag in FLAGS}
    if role == "assistant":
        fails = dice.chance(0.5 * badness * badness)
        labels["fails_task"] = {"value": (count - 1) / count if fails else 0.0, "count": count}
    for scale, (best, worst) in SCALES.items():
        if scale != "helpfulness" or role == "assistant":
            level = best + (worst - best) * badness
            votes = [min(4, max(0, int(4 * level + 1.6 * dice.share() - 0.3))) for _ in range(count)]
            labels[scale] = {"value": sum(votes) / 4 / count, "count": count}
    return {name: {"value": round(label["value"], 4), "count": count} for name, label in labels.items()}


def messages(tree: Tree) -> Iterator[Message]:
    """Every message of a tree, a parent before its replies."""
    waiting = [tree["prompt"]]
    while waiting:
        message = waiting.pop()
        yield message
        waiting.extend(reversed(message["replies"]))


def best_path(tree: Tree) -> list[Message]:
    """From the root always on to the first reply."""
    path = [tree["prompt"]]
    while path[-1]["replies"]:
        path.append(path[-1]["replies"][0])
    return path


def with_other_ids(tree: Tree, dice: Dice) -> Tree:
    """A copy whose messages have identifiers of their own."""
    copy = deepcopy(tree)
    for message in messages(copy):
        message["message_id"] = dice.identity()
        for reply in message["replies"]:
            reply["parent_id"] = message["message_id"]
    copy["message_tree_id"] = copy["prompt"]["message_id"]
    return copy
