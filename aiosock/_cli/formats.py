"""Bytes as they are shown and typed: escaped for a terminal, in hex, with CRLF, as a rate.

Knows bytes and text alone.
"""

import codecs
import re

__all__ = ["Crlf", "Escaper", "HexDump", "in_words"]

WIDTH = 16  # bytes in a line of hex


class Escaper:
    """Text for a terminal: what would move its cursor, or fool its reader, is written out.

    Newlines and tabs stay, and so does the CR of a CRLF, which is not shown.  What is not
    UTF-8 is written out too.  The pieces may be cut anywhere.
    """

    def __init__(self, encoding: str = "utf-8") -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode
        self._encoding, self._carriage = encoding, False

    def feed(self, data: bytes, final: bool = False) -> bytes:
        text = "\r" * self._carriage + self._decode(data, final)
        self._carriage = text.endswith("\r") and not final
        text = text[:-1] if self._carriage else text
        shown = "".join(map(_visible, text.replace("\r\n", "\n")))
        return shown.encode(self._encoding, "backslashreplace")


def _visible(char: str) -> str:
    if char.isprintable() or char in "\n\t":
        return char
    return char.encode("unicode_escape").decode()


class HexDump:
    """Lines of offset, hex and text, for one direction, which `mark` names."""

    def __init__(self, mark: str) -> None:
        self._mark, self._offset = mark, 0

    def feed(self, data: bytes, final: bool = False) -> bytes:
        lines = [self._line(data[at : at + WIDTH]) for at in range(0, len(data), WIDTH)]
        return "".join(lines).encode()

    def _line(self, piece: bytes) -> str:
        at, self._offset = self._offset, self._offset + len(piece)
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
        left, right = piece[: WIDTH // 2].hex(" "), piece[WIDTH // 2 :].hex(" ")
        return f"{self._mark} {at:08x}  {left:23}  {right:23}  |{text}|\n"


class Crlf:
    """Every LF as CRLF, except where it is one; the pieces may be cut anywhere."""

    def __init__(self) -> None:
        self._carriage = False

    def feed(self, data: bytes) -> bytes:
        whole = b"\r" * self._carriage + data
        made = re.sub(rb"(?<!\r)\n", b"\r\n", whole)[self._carriage :]
        self._carriage = whole.endswith(b"\r")
        return made


def in_words(size: float) -> str:
    """A number of bytes, short."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
