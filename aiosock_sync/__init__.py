"""The same as aiosock without ``await``: a drop-in for `socket`.  Not written yet."""

__all__: list[str] = []
