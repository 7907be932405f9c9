"""Conversation trees in OpenAssistant's nested export format, grown from conversations.

A tree is `{message_tree_id, tree_state, prompt}`. A message holds its replies; assistants' replies are ordered by rank.
Every message is marked `synthetic`, and its model is `MODEL`, which stands for this script.
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
    """Return the tree of a conversation, with its alternative answers and sometimes a second branch."""
    dice = Dice(seed, "tree")
    root = _question(conversation, 0, None, dice)
    _branch(root, conversation, dice)
    return {"message_tree_id": root["message_id"], "tree_state": "ready_for_export", "prompt": root}


def _question(conversation: Conversation, place: int, parent: Message | None, dice: Dice) -> Message:
    """Return turn number `place` with the following turns below its best answer."""
    question = _turn(conversation.turns[place], conversation.lang, parent, dice)
    if place + 1 < len(conversation.turns):
        best = question["replies"][0]
        best["replies"].append(_question(conversation, place + 1, best, dice))
    return question


def _turn(turn: Turn, lang: str, parent: Message | None, dice: Dice) -> Message:
    """Return a question with all its answers."""
    question = _message(turn.ask, "prompter", lang, parent, dice)
    for rank, text in enumerate(turn.answers):
        answer = _message(text, "assistant", lang, question, dice, rank / 2)
        answer["rank"] = rank if len(turn.answers) > 1 else None
        question["replies"].append(answer)
    return question


def _branch(root: Message, conversation: Conversation, dice: Dice) -> None:
    """Sometimes add a second branch: below another answer, or beside the next question."""
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
    """Return labels as `count` reviewers would give them: flags are mostly 0, scales are means of five steps."""
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
    """Yield every message of a tree, a parent before its replies."""
    waiting = [tree["prompt"]]
    while waiting:
        message = waiting.pop()
        yield message
        waiting.extend(reversed(message["replies"]))


def best_path(tree: Tree) -> list[Message]:
    """Return the path from the root that always takes the first reply."""
    path = [tree["prompt"]]
    while path[-1]["replies"]:
        path.append(path[-1]["replies"][0])
    return path


def with_other_ids(tree: Tree, dice: Dice) -> Tree:
    """Return a copy whose messages have new identifiers."""
    copy = deepcopy(tree)
    for message in messages(copy):
        message["message_id"] = dice.identity()
        for reply in message["replies"]:
            reply["parent_id"] = message["message_id"]
    copy["message_tree_id"] = copy["prompt"]["message_id"]
    return copy
