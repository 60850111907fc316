"""Emulated address spaces: processes with real page tables, areas, files and swap, over one accounting of all models."""
