"""Many addresses at once: views of physical memory for compiled code, batch translation, whole address spaces.

Importing this package imports numpy and numba; nothing that one walk needs does.
"""

from .batch import Batch
from .translate import FORMS, translate_many
from .views import chunk_view, flat_view, memory_view, words_view

__all__ = ["FORMS", "Batch", "chunk_view", "flat_view", "memory_view", "translate_many", "words_view"]
