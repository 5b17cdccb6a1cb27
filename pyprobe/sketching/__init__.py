"""Tall data made small: scores of rows, samples of them, and sketches."""

__all__: list[str] = []
