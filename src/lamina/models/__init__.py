"""Models: chains and graphs of layers that learn."""

from __future__ import annotations

from lamina.models.cloning import clone_model, model_from_json
from lamina.models.graph import Function, GraphError
from lamina.models.model import Functional, Model
from lamina.models.sequential import Sequential
from lamina.saving import load_model, save_model

__all__ = [
    "Function",
    "Functional",
    "GraphError",
    "Model",
    "Sequential",
    "clone_model",
    "load_model",
    "model_from_json",
    "save_model",
]
