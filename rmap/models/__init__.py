"""The three accounting models, by the names the command line uses."""

from __future__ import annotations

from ...arch.errors import InputError
from ..levels import Rules
from .base import Model
from .no_page_mapcount import NoPageMapcount
from .precise import Precise
from .total_mapped_pages import TotalMappedPages

MODELS: dict[str, type[Model]] = {model.name: model for model in (Precise, NoPageMapcount, TotalMappedPages)}
"""Model classes by name, mainline's first."""


def make_model(name: str, rules: Rules) -> Model:
    """The model of that name under these rules; raises InputError for an unknown name.

    >>> make_model("precise", Rules()).name
    'precise'
    """
    if name not in MODELS:
        raise InputError(f"no accounting model of that name, there are {', '.join(MODELS)}", value=name)
    return MODELS[name](rules)


__all__ = ["MODELS", "Model", "NoPageMapcount", "Precise", "TotalMappedPages", "make_model"]
