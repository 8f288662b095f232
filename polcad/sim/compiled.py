"""Compiles the inner loops with numba where the extra `sim` is installed; else they are plain Python, and slow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

try:
    from numba import njit

    COMPILED = True
except ImportError:
    COMPILED = False


def compiled(function: F) -> F:
    """The function, compiled at its first call; its plain Python stays reachable as ``py_func``."""
    if not COMPILED:
        return function
    return njit(cache=True)(function)  # type: ignore[no-any-return]  # numba has no types
