"""The render stage of a build: drop what the template refuses before anything is sampled or written."""

from __future__ import annotations

import polars as pl

from dataprep.common.errors import RecipeError
from dataprep.recipe import Recipe
from dataprep.rendering.loading import list_templates, load_template
from dataprep.rendering.probe import capabilities
from dataprep.rendering.renderer import Renderer
from dataprep.rendering.rows import TOOLS_NOT_IN_TEMPLATE
from dataprep.rendering.template import Template
from dataprep.tables import StageResult, dropped

STAGE = "render"


def check_system_text(recipe: Recipe, template: Template) -> None:
    """Refuse a `--system` text that holds a control token: the rules would drop every conversation that gets it.

    Raises:
        RecipeError: names the token and the template.
    """
    typed = [token for token in template.forbidden_in_content if token in (recipe.system or "")]
    if typed and recipe.control_tokens == "drop":
        raise RecipeError(f"--system holds {typed[0]}, which the template {template.name} writes itself: remove it.")


def drop_refused(conversations: pl.DataFrame, renderer: Renderer) -> StageResult[None]:
    """Drop the conversations that the template refuses.

    Args:
        conversations: CONVERSATIONS.
        renderer: of the build's template.

    Returns:
        kept, fates (stage `render`; the rules and details of `Renderer.refusals`), and the warnings of `dataprep templates
        check` as notes.
    """
    refusals = renderer.refusals(conversations)
    notes = [f"The template {renderer.template.name}: {warning}." for warning in renderer.warnings()]
    if refusals.is_empty():
        return StageResult(conversations, notes=notes)
    refused = conversations.join(refusals, on="row", how="inner", maintain_order="left")
    kept = conversations.join(refusals, on="row", how="anti", maintain_order="left")
    without_tools = pl.col("rule") == TOOLS_NOT_IN_TEMPLATE
    refused = refused.with_columns(
        detail=pl.when(without_tools).then(pl.col("detail") + _templates_with_tools()).otherwise("detail")
    )
    return StageResult(kept, dropped(refused, "conversation", STAGE), notes)


def _templates_with_tools() -> str:
    names = [name for name in list_templates() if capabilities(load_template(name)).tools]
    return f" Bundled templates with tools: {', '.join(names)}."
