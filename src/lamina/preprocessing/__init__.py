"""From what people have (image files, token lists, photographs of digits) to arrays."""

from lamina.preprocessing import digit, image, sequence

__all__ = ["digit", "image", "sequence"]
