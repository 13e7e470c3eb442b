"""Reads whom a certificate names, subject and issuer, and writes it as OpenSSL does.

Knows DER and where the names stand in it; knows nothing of keys, of trust or of sockets.
The form is X509_NAME_oneline()'s of OpenSSL 3 with a buffer of 256 bytes; the short names
are asked of OpenSSL itself.  A stranger wrote the certificate: nothing recurses, nothing is
read again and again, and what is not DER raises ValueError, which says what and where.
"""

import re
from itertools import accumulate, compress
from ssl import _ASN1Object
from typing import Final

__all__ = ["names"]

Value = tuple[bytes, bytes, int]  # tag and length, content, and at which offset this begins
HEAD: Final = re.compile(rb".([\0-\x7f]|\x81[\x80-\xff]|\x82[^\0].|\x83[^\0]..)", re.S)
ATTRIBUTE: Final = rb"\x06[\x03\x07-\x09\x0b-\x0f\x12-\x14\x16\x1c-\x1e\x30]"
ESCAPES: Final = {n: f"\\x{n:02X}" for n in (*range(32), *range(127, 256))} | {43: r"\+", 47: r"\/"}


def names(der: bytes) -> tuple[str, str]:
    """The subject and the issuer of an X.509 certificate."""
    (certificate,) = _parts((b"", der, 0), rb"\x30")
    signed, *_ = _parts(certificate, rb"\x30\x30\x03")
    fields = _parts(signed, rb"\xa0?\x02\x30{5}\x81?\x82?\xa3?")
    _, issuer, _, subject, _ = (field for field in fields if field[0][0] == 0x30)
    return _line(subject), _line(issuer)


def _parts(value: Value, tags: bytes) -> list[Value]:
    """The values that another is made of, with the tags that are expected."""
    parts, end, (_, content, offset) = list[Value](), 0, value
    while head := HEAD.match(content, end):
        end = head.end() + int.from_bytes(head[0][2:] or head[0][1:])
        parts.append((head[0], content[head.end() : end], offset + head.end()))
    if end != len(content):
        raise ValueError(f"values reach offset {offset + end}, not {offset + len(content)}")
    if not re.fullmatch(tags, found := bytes(head[0] for head, _, _ in parts)):
        raise ValueError(f"unexpected tags at offset {offset}: {found[:9].hex(' ') or 'none'}")
    return parts


def _line(name: Value) -> str:
    """The attributes, up to the first that does not fit whole into the buffer."""
    sets = [enumerate(_parts(part, rb"\x30*")) for part in _parts(name, rb"\x31*")]
    texts = ["/+"[number > 0] + _text(each) for numbered in sets for number, each in numbered]
    return "".join(compress(texts, (size < 256 for size in accumulate(map(len, texts)))))


def _text(attribute: Value) -> str:
    kind, (head, octets, offset) = _parts(attribute, ATTRIBUTE)
    if head[0] == 0x03:
        octets = _bits(octets, offset)
    shown = head + octets if head[0] == 0x30 else octets  # OpenSSL keeps a sequence as it is
    return f"{_short_name(_arcs(kind))}={shown.decode('latin-1').translate(ESCAPES)}"


def _bits(octets: bytes, offset: int) -> bytes:
    if not octets or octets[0] > 7 or octets[-1] & (1 << octets[0]) - 1:
        raise ValueError(f"no string of bits at offset {offset}")
    return octets[1:]


def _arcs(kind: Value) -> list[int]:
    arcs = re.findall(rb"[\0-\x7f]|[\x81-\xff][\x80-\xff]*[\0-\x7f]", kind[1][:586])
    if not arcs or b"".join(arcs) != kind[1]:
        raise ValueError(f"no object identifier at offset {kind[2]}")
    return [int("".join(f"{byte & 127:07b}" for byte in arc), 2) for arc in arcs]


def _short_name(arcs: list[int]) -> str:
    root = min(arcs[0] // 40, 2)
    dotted = ".".join(map(str, [root, arcs[0] - 40 * root, *arcs[1:]]))
    try:
        return _ASN1Object(dotted).shortname
    except ValueError:
        return dotted[:79]
