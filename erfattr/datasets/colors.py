"""Colours of micro-objects: plain numbers, which recipes name without importing torch."""

from __future__ import annotations

Color = tuple[int, int, int]
BLACK, RED = (0, 0, 0), (255, 0, 0)
