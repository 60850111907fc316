"""Many addresses at once: views of physical memory for compiled code, batch translation, whole address spaces.

Importing this package imports numpy and numba; nothing that one walk needs does.
"""
