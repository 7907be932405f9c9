"""loss.html: the page of a run with its losses, learning rate and speed, sample answers, and options."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from dataprep.common.charts import AxisNames, Series, line_chart
from dataprep.common.html import contents, document, figures, fragment, notes, options_list, section
from dataprep.common.text import visible
from training.after.card import public_options

if TYPE_CHECKING:
    from training.after.sample_answers import SampleAnswer
    from training.metrics import Line
    from training.run_record import RunRecord

_TEXT = 6_000  # characters that are shown of one answer
_SMOOTHED_SHARE = 0.05  # of the steps, over which the smoothed loss averages
_STEP = "optimizer step"

Points = Sequence[tuple[float, float]]


def loss_page(name: str, record: RunRecord, lines: Sequence[Line], samples: Sequence[SampleAnswer] = ()) -> str:
    """The page as HTML without external resources.

    Args:
        name: of the run.
        record: run.json.
        lines: of metrics.jsonl.
        samples: of answers.json.
    """
    sections = [
        ("loss", "Loss", _loss(lines)),
        ("steps", "Learning rate and speed", _other_charts(lines)),
        *([("answers", "Answers before and after", _answers(samples))] if samples else []),
        ("options", "Options", _options(record)),
    ]
    provenance = record["provenance"]
    lead = (
        f"{record['model']['name']} on {provenance['build']}@{provenance['version']}, template {provenance['template']}, "
        f"{record['place']['device']} in {record['place']['precision']}"
    )
    body = (
        f'<header><div><p class="kicker"><span>training · run</span></p><h1>{_text(name)}</h1>'
        f'<p class="lead">{_text(lead)}</p>{_verdict(lines)}{notes([visible(note) for note in record["notes"]])}'
        f"{figures(_figures(record, lines))}</div></header>"
        f"{contents([(id, title, '') for id, title, _ in sections])}"
        f'<main id="main">{"".join(section(*one) for one in sections)}</main>'
        "<footer>This page loads no external resources and runs no script.</footer>"
    )
    return document(f"Run {name}", body)


def run_fragment(name: str, record: RunRecord, lines: Sequence[Line]) -> str:
    """The losses of a run as HTML for the output of a notebook's cell."""
    chart = loss_chart(lines, 720, 280) or ""
    title = f"<h4>{_text(name)} <small>{_text(record['model']['name'])}, {_text(record['status'])}</small></h4>"
    shown = " · ".join(f"{value} {meaning}" for value, meaning in _figures(record, lines))
    return fragment(f"{title}<p>{_change(lines)}</p>{legend()}{chart}<p><small>{_text(shown)}</small></p>")


def loss_chart(lines: Sequence[Line], width: int = 340, height: int = 200) -> str | None:
    """The training loss, thin and smoothed, and the held-out losses; None if no finite loss was logged."""
    training, held_out = points(lines, "loss"), points(lines, "eval_loss")
    series = [
        Series(training, thin=True, color=0),
        Series(smoothed(training), color=0),
        Series(held_out, color=1),
        Series(held_out, dots=True, color=1),
    ]
    label = f"Loss by optimizer step. {_change(lines)}"
    return line_chart(series, width=width, height=height, names=AxisNames(_STEP, "nats per trained token"), label=label)


def points(lines: Sequence[Line], key: str) -> list[tuple[float, float]]:
    """Step and value of each line that has a finite number under `key`."""
    values = [(line["step"], line.get(key)) for line in lines]
    return [(step, value) for step, value in values if isinstance(value, int | float) and math.isfinite(value)]


def smoothed(values: Points) -> list[tuple[float, float]]:
    """An exponential moving average over about a twentieth of the points, without the bias towards its start."""
    keep = 1 - 1 / max(1.0, len(values) * _SMOOTHED_SHARE)
    total = weight = 0.0
    averages = []
    for step, value in values:
        total, weight = keep * total + value, keep * weight + 1
        averages.append((step, total / weight))
    return averages


def legend() -> str:
    """What the lines of `loss_chart` are."""
    names = ("training, smoothed (thin: each step)", "held out")
    shown = (f'<span><b class="s{color}"></b>{name}</span>' for color, name in enumerate(names))
    return f'<p class="legend">{"".join(shown)}</p>'


def _verdict(lines: Sequence[Line]) -> str:
    held_out = points(lines, "eval_loss")
    if len(held_out) < 2:
        return f'<p class="verdict calm"><strong>No comparison</strong> <span>{_change(lines)}</span></p>'
    better = held_out[-1][1] < held_out[0][1]
    words = "Better on held-out rows" if better else "No better on held-out rows"
    return (
        f'<p class="verdict {"good" if better else "warn"}"><strong>{words}</strong> <span>{_change(lines)}</span></p>'
    )


def _change(lines: Sequence[Line]) -> str:
    """A sentence with the first and the last loss."""
    for key, name in (("eval_loss", "held-out"), ("loss", "training")):
        values = [value for _, value in points(lines, key)]
        if values:
            return (
                f"The {name} loss went from {values[0]:.3f} to {values[-1]:.3f} nats per token, "
                f"the perplexity from {_perplexity(values[0])} to {_perplexity(values[-1])}."
            )
    return "No loss was logged."


def _perplexity(loss: float) -> str:
    return f"{math.exp(loss):,.2f}" if loss < 20 else "over 10⁸"


def _figures(record: RunRecord, lines: Sequence[Line]) -> Iterator[tuple[str, str]]:
    steps = max((line["step"] for line in lines), default=0)
    yield f"{steps:,}", f"of {record['resolved']['steps']:,} steps"
    metrics: Mapping[str, Any] = record.get("metrics", {})
    if "trained_tokens" in metrics:
        yield f"{metrics['trained_tokens']:,}", "tokens trained"
    speeds = sorted(value for _, value in points(lines, "tokens_per_s"))
    if speeds:
        yield f"{speeds[len(speeds) // 2]:,.0f}", "tokens a second, median"
    if metrics.get("best_step") is not None:
        yield f"{metrics['best_step']:,}", "step of the adapter (--keep-best)"
    if "stopped_by_itself" in metrics:
        yield f"{metrics['stopped_by_itself']:.0%}", f"of {metrics['stop_prompts']} answers ended by themselves"


def _loss(lines: Sequence[Line]) -> str:
    drawn, narrow = loss_chart(lines, 1080, 380), loss_chart(lines, 340, 240)
    if not drawn:
        return "<p>No loss was logged.</p>"
    rows = "".join(
        f'<tr><td class="n">{step:,}</td><td class="n">{loss:.4f}</td><td class="n">{_perplexity(loss)}</td></tr>'
        for step, loss in points(lines, "eval_loss")
    )
    heads = "".join(f'<th scope="col" class="n">{name}</th>' for name in ("step", "nats per token", "perplexity"))
    table = (
        f'<details class="plain"><summary class="small">Held-out losses</summary><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></details>"
        if rows
        else "<p class='small'>No rows were held out.</p>"
    )
    return f'{legend()}<figure><div class="wide-only">{drawn}</div><div class="narrow">{narrow}</div>{table}</figure>'


def _other_charts(lines: Sequence[Line]) -> str:
    drawn = (
        ("Learning rate", "learning_rate", "learning rate"),
        ("Speed", "tokens_per_s", "tokens a second"),
        ("Gradient norm", "grad_norm", "norm before clipping"),
    )
    cards = []
    for title, key, unit in drawn:
        values = points(lines, key)
        low, high = min((value for _, value in values), default=0), max((value for _, value in values), default=0)
        label = f"{title} by optimizer step, from {low:.4g} to {high:.4g}"
        chart = line_chart([Series(values)], y_range=(0, high), names=AxisNames(_STEP, unit), label=label)
        if chart:
            cards.append(f"<figure><figcaption><h3>{title}</h3></figcaption>{chart}</figure>")
    return f'<div class="cards">{"".join(cards)}</div>' if cards else "<p>Nothing was logged.</p>"


def _answers(samples: Sequence[SampleAnswer]) -> str:
    note = "<p>Questions of held-out rows. Both models choose the most likely token at each position, up to 256 tokens.</p>"
    return note + '<div class="box">' + "".join(_compared(*one) for one in enumerate(samples)) + "</div>"


def _compared(place: int, sample: SampleAnswer) -> str:
    shown = _answer("before: the base model", sample["before"], sample["before_stopped"]) + _answer(
        "after: the trained model", sample["after"], sample["after_stopped"]
    )
    return (
        f'<details{" open" if place == 0 else ""}><summary><span dir="auto">{_text(sample["question"][:400])}</span></summary>'
        f'<div class="pair">{shown}</div><details class="plain"><summary class="small">The answer in the data</summary>'
        f'<div class="text" dir="auto">{_text(sample["reference"])}</div></details></details>'
    )


def _answer(title: str, text: str, stopped: bool) -> str:
    pill = '<span class="pill good">ended</span>' if stopped else '<span class="pill warn">did not end</span>'
    return (
        f'<div><h3 class="turn">{title} {pill}</h3><div class="text" dir="auto">{_text(text) or "(empty)"}</div></div>'
    )


def _options(record: RunRecord) -> str:
    stated = [("--" + name.replace("_", "-"), value) for name, value in public_options(record).items()]
    resolved = [(name.replace("_", " "), value) for name, value in record["resolved"].items()]
    groups = (("Options", stated), ("Resolved", resolved), ("Versions", list(record["versions"].items())))
    return "".join(
        f'<h3 class="part">{title}</h3>' * (title != "Options")
        + options_list((name, visible(str(value))) for name, value in values if value not in (None, [], False, ""))
        for title, values in groups
    )


def _text(text: str) -> str:
    """Untrusted text as HTML."""
    return escape(visible(text[:_TEXT])) + (" …" if len(text) > _TEXT else "")
