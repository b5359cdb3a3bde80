"""Passes from graph to graph: gradients, simplification, loops."""
