"""lamina: deep learning in readable Python, compiled to native code by lamina itself."""

__version__ = "0.1.0"
