"""The chat loop of `training chat`: commands, interrupted answers and errors."""

from __future__ import annotations

from collections.abc import Iterator

from training.after.chat import Respond, Show, chat
from training.after.prompts import Messages
from training.errors import ModelError


class Terminal:
    """Types `lines` one after the other (an exception is raised instead of typed) and collects what is shown."""

    def __init__(self, *lines: str | BaseException) -> None:
        self.lines: Iterator[str | BaseException] = iter(lines)
        self.shown = ""

    def read(self, prompt: str) -> str:
        line = next(self.lines, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line

    def write(self, text: str) -> None:
        self.shown += text


def recorded(conversations: list[Messages], *answers: str | BaseException) -> Respond:
    """A responder that records each conversation and shows the next of `answers` in two pieces."""
    remaining = iter(answers)

    def respond(messages: Messages, show: Show) -> None:
        conversations.append(list(messages))
        answer = next(remaining)
        if isinstance(answer, ModelError):
            raise answer
        if isinstance(answer, BaseException):
            show("half an ")
            raise answer
        show(answer[:2])
        show(answer[2:])

    return respond


def contents(messages: Messages) -> list[str]:
    return [message["content"] for message in messages]


def test_each_message_is_answered_with_the_whole_conversation() -> None:
    seen: list[Messages] = []
    terminal = Terminal("Hello", "And you?")
    chat(recorded(seen, "Hi there", "Fine"), terminal.read, terminal.write, system="Be brief.")
    assert contents(seen[1]) == ["Be brief.", "Hello", "Hi there", "And you?"]
    assert "Hi there\n" in terminal.shown and "Fine\n" in terminal.shown


def test_ctrl_c_stops_the_answer_and_keeps_the_conversation() -> None:
    seen: list[Messages] = []
    terminal = Terminal("Hello", "Go on")
    chat(recorded(seen, KeyboardInterrupt(), "Yes"), terminal.read, terminal.write)
    assert contents(seen[1]) == ["Hello", "half an", "Go on"]
    assert "[stopped]" in terminal.shown


def test_ctrl_c_at_the_prompt_shows_how_to_leave() -> None:
    terminal = Terminal(KeyboardInterrupt(), "/exit", "never read")
    chat(recorded([]), terminal.read, terminal.write)
    assert terminal.shown.count("/exit ends") == 2
    assert next(terminal.lines) == "never read"


def test_reset_and_system_start_a_new_conversation() -> None:
    seen: list[Messages] = []
    terminal = Terminal("one", "/reset", "two", "/system Rhyme.", "three", "/system", "four")
    chat(recorded(seen, "a", "b", "c", "d"), terminal.read, terminal.write)
    assert [contents(messages) for messages in seen] == [["one"], ["two"], ["Rhyme.", "three"], ["four"]]


def test_an_unknown_command_is_not_sent_to_the_model() -> None:
    seen: list[Messages] = []
    terminal = Terminal("/quit\x1b[2J now")
    chat(recorded(seen), terminal.read, terminal.write)
    assert not seen
    assert "Unknown command /quit<U+001B>[2J" in terminal.shown


def test_an_error_of_the_model_is_shown_and_its_question_is_forgotten() -> None:
    seen: list[Messages] = []
    terminal = Terminal("too long", "short")
    chat(recorded(seen, ModelError("The conversation is too long."), "ok"), terminal.read, terminal.write)
    assert "The conversation is too long.\n" in terminal.shown
    assert contents(seen[1]) == ["short"]


def test_escape_sequences_in_an_answer_are_written_out() -> None:
    terminal = Terminal("Hello")
    chat(recorded([], "\x1b[31mred"), terminal.read, terminal.write)
    assert "\x1b" not in terminal.shown
