"""Whom a certificate names: as OpenSSL says it, or ValueError where it is no DER.

Two oracles tell OpenSSL's own words: the command ``openssl x509 -nameopt compat``, whose
buffer has no end, and X509_NAME_oneline() in the very library that Python's ssl uses.
"""

import ctypes
import importlib
import random
import re
import shutil
import ssl
import subprocess
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import cache
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.x509.name import _ASN1Type as Kind

from aiosock._certificates import names

Name, Attribute, OID = x509.Name, x509.NameAttribute, x509.ObjectIdentifier
NameOID = x509.oid.NameOID

Pair = tuple[str, str]
Reader = Callable[[bytes], Pair | None]

# --- certificates, by cryptography and by hand --------------------------------------


@cache
def key() -> Any:
    """Always the same, and so is what it signs."""
    ed25519 = importlib.import_module("cryptography.hazmat.primitives.asymmetric.ed25519")
    return ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))


def certificate(subject: Any, issuer: Any = None) -> bytes:
    """The DER that cryptography makes of names, or of lists of attributes."""
    encoding = importlib.import_module("cryptography.hazmat.primitives.serialization").Encoding
    builder = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer))
    builder = builder.not_valid_before(datetime(2020, 1, 1)).not_valid_after(datetime(2060, 1, 1))
    builder = builder.serial_number(7).public_key(key().public_key())
    alternative = x509.SubjectAlternativeName([x509.DNSName("www.example.org")])
    signed = builder.add_extension(alternative, critical=False).sign(key(), None)
    der: bytes = signed.public_bytes(encoding.DER)
    return der


def name(given: Any) -> Any:
    return given if isinstance(given, Name) else Name(given or [])


def attribute(oid: str, value: Any, kind: Any = Kind.UTF8String) -> Any:
    """An attribute that need not make sense, or have a proper length."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return Attribute(OID(oid), value, kind, _validate=False)


def tlv(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    long = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, *([size] if size < 128 else [128 + len(long), *long])]) + content


def entry(value: bytes, tag: int = 0x0C, oid: bytes = b"\x55\x04\x03") -> bytes:
    return tlv(0x30, tlv(0x06, oid), tlv(tag, value))


ALGORITHM = tlv(0x30, bytes.fromhex("06082a8648ce3d040302"))
TIMES = tlv(0x30, tlv(0x17, b"200101000000Z"), tlv(0x17, b"490101000000Z"))
CURVE = tlv(0x30, bytes.fromhex("06072a8648ce3d020106082a8648ce3d030107"))
KEY = tlv(0x30, CURVE, tlv(0x03, b"\0\4", bytes(64)))
HEAD = [b"\xa0\3\2\1\2", b"\2\1\7", ALGORITHM]


def by_hand(*sets: bytes) -> bytes:
    """A certificate of a subject whose sets of attributes are given."""
    signed = tlv(0x30, *HEAD, tlv(0x30), TIMES, tlv(0x30, *sets), KEY)
    return tlv(0x30, signed, ALGORITHM, tlv(0x03, b"\0\1"))


def one(value: bytes, tag: int = 0x0C, oid: bytes = b"\x55\x04\x03") -> bytes:
    return by_hand(tlv(0x31, entry(value, tag, oid)))


# --- random certificates ------------------------------------------------------------

OIDS = [oid.dotted_string for oid in vars(NameOID).values() if isinstance(oid, OID)]
UNKNOWN = ["1.2.3.4.5", "2.999.1", "0.39", "1.0.8571.2", f"2.5.4.{2**64}", f"2.{2**127}.{2**90}"]
LETTERS = {
    Kind.UTF8String: "ab /+\\=,\0\n\x7fé中\U0001f600",
    Kind.BMPString: "ab /+\\=,\0\n\x7fé中",
    Kind.UniversalString: "ab /+\\=,\0\n\x7fé中\U0001f600",
    Kind.PrintableString: "abcXYZ '()+,-./:=?",
    Kind.IA5String: "ab@/+\\\0\n\x7f",
    Kind.T61String: "ab@/+\\é",
    Kind.NumericString: "0123456789 ",
}


def some_attribute(dice: random.Random, longest: int) -> Any:
    if dice.random() < 0.05:
        bits = b"\0" + dice.randbytes(dice.randint(0, longest))
        return attribute("2.5.4.45", bits, Kind.BitString)
    kind = dice.choice(list(LETTERS))
    value = "".join(dice.choices(LETTERS[kind], k=dice.randint(1, longest)))
    return attribute(dice.choice(OIDS * 3 + UNKNOWN), value, kind)


def some_name(dice: random.Random, most: int, longest: int) -> Any:
    sets = []
    for _ in range(dice.randint(0, most)):
        found = [some_attribute(dice, longest) for _ in range(dice.choice([1, 1, 1, 2, 3]))]
        sets.append(x509.RelativeDistinguishedName({each.oid: each for each in found}.values()))
    return Name(sets)


def some_certificates(count: int, most: int, longest: int) -> Iterator[bytes]:
    dice = random.Random(f"{count} {most} {longest}")
    for _ in range(count):
        yield certificate(some_name(dice, most, longest), some_name(dice, most, longest))


# --- oracles ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def command() -> Reader:
    """What the command says, as long as it may be."""
    path = shutil.which("openssl")
    if path is None:
        pytest.skip("there is no openssl command")
    version = subprocess.run([path, "version"], capture_output=True, text=True).stdout
    if not re.match(r"OpenSSL ([3-9]|\d\d)\.", version):
        pytest.skip(f"the form is that of OpenSSL 3, and the command is of {version}")

    def ask(der: bytes) -> Pair | None:
        asked = [path, "x509", "-inform", "DER", *"-noout -subject -issuer -nameopt compat".split()]
        told = subprocess.run(asked, input=der, capture_output=True)
        found = re.fullmatch(r"subject=(.*)\nissuer=(.*)\n", told.stdout.decode("ascii"))
        return (found[1], found[2]) if found else None

    return ask


@pytest.fixture(scope="module")
def library() -> Reader:
    """What X509_NAME_oneline() writes into 256 bytes, or None for what is no certificate."""
    if not re.match(r"OpenSSL ([3-9]|\d\d)\.", ssl.OPENSSL_VERSION):
        pytest.skip(f"the form is that of OpenSSL 3, and Python has {ssl.OPENSSL_VERSION}")
    crypto = ctypes.CDLL(getattr(importlib.import_module("_ssl"), "__file__", None))
    try:
        crypto.d2i_X509.restype = ctypes.c_void_p
        for function in (crypto.X509_get_subject_name, crypto.X509_get_issuer_name):
            function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
        crypto.X509_NAME_oneline.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
        crypto.X509_free.argtypes = [ctypes.c_void_p]
    except AttributeError as error:
        pytest.skip(f"Python's OpenSSL cannot be called: {error}")

    def line(found: int) -> str:
        buffer = ctypes.create_string_buffer(256)
        assert crypto.X509_NAME_oneline(found, buffer, 256)
        return buffer.value.decode("ascii")

    def ask(der: bytes) -> Pair | None:
        read = crypto.d2i_X509(None, ctypes.byref(ctypes.c_char_p(der)), ctypes.c_long(len(der)))
        crypto.ERR_clear_error()
        if not read:
            return None
        try:
            subject = line(crypto.X509_get_subject_name(read))
            return subject, line(crypto.X509_get_issuer_name(read))
        finally:
            crypto.X509_free(read)

    return ask


def test_the_command_says_the_same(command: Reader) -> None:
    for der in some_certificates(30, 4, 9):
        told = command(der)
        assert told is not None
        for ours, theirs in zip(names(der), told, strict=True):
            assert ours == theirs if len(theirs) < 256 else theirs.startswith(ours)


@pytest.mark.parametrize(("most", "longest"), [(1, 9), (5, 20), (3, 300), (1, 2000), (40, 20)])
def test_the_library_says_the_same(library: Reader, most: int, longest: int) -> None:
    for der in some_certificates(100, most, longest):
        assert names(der) == library(der)


def test_the_library_reads_the_same_types_of_values(library: Reader) -> None:
    for tag in range(256):
        told = library(one(b"\0\0\0A", tag))
        if told is None:
            with pytest.raises(ValueError, match="unexpected tags at offset"):
                names(one(b"\0\0\0A", tag))
        else:
            assert names(one(b"\0\0\0A", tag)) == told, tag


def test_the_library_cuts_at_the_same_length(library: Reader) -> None:
    for size in range(230, 270):
        der = by_hand(tlv(0x31, entry(b"a" * size)), tlv(0x31, entry(b"b"), entry(b"c")))
        assert names(der) == library(der), size


def test_the_library_writes_the_same_numbers(library: Reader) -> None:
    dice = random.Random(5)
    for size in range(1, 120):
        oid = dice.randbytes(size).replace(b"\x80", b"\1") + b"\1"
        assert names(one(b"v", oid=oid)) == library(one(b"v", oid=oid)), oid


def test_certificates_of_trustme(library: Reader, command: Reader) -> None:
    root = trustme.CA(organization_name="Räksmörgås/Inc", organization_unit_name="a+b")
    child = root.create_child_ca()
    leaf = child.issue_cert("www.example.org", common_name="www.example.org")
    issued = [root.cert_pem, child.cert_pem, leaf.cert_chain_pems[0]]
    ders = [ssl.PEM_cert_to_DER_cert(pem.bytes().decode()) for pem in issued]
    told = [names(der) for der in ders]
    assert told == [library(der) for der in ders] == [command(der) for der in ders]
    assert [issuer for _, issuer in told] == [told[0][0], told[0][0], told[1][0]]
    assert told[2][0].endswith("/CN=www.example.org")


# --- what is written ----------------------------------------------------------------


def test_subject_and_issuer_in_this_order() -> None:
    place = [("2.5.4.6", "US"), ("2.5.4.8", "California"), ("2.5.4.7", "San Francisco")]
    whose = [*place, ("2.5.4.10", "Example"), ("2.5.4.3", "www.example.org")]
    der = certificate([attribute(*each) for each in whose], [attribute("2.5.4.3", "Example CA")])
    subject = "/C=US/ST=California/L=San Francisco/O=Example/CN=www.example.org"
    assert names(der) == (subject, "/CN=Example CA")


@pytest.mark.parametrize(
    ("oid", "short"),
    [
        *((f"2.5.4.{number}", short) for number, short in [(6, "C"), (8, "ST"), (7, "L")]),
        *((f"2.5.4.{number}", short) for number, short in [(10, "O"), (11, "OU"), (3, "CN")]),
        *((f"2.5.4.{number}", short) for number, short in [(4, "SN"), (5, "serialNumber")]),
        *((f"2.5.4.{number}", short) for number, short in [(42, "GN"), (9, "street")]),
        *((f"2.5.4.{number}", short) for number, short in [(12, "title"), (17, "postalCode")]),
        *((f"2.5.4.{number}", short) for number, short in [(15, "businessCategory")]),
        ("1.2.840.113549.1.9.1", "emailAddress"),
        ("0.9.2342.19200300.100.1.25", "DC"),
        ("0.9.2342.19200300.100.1.1", "UID"),
        ("1.3.6.1.4.1.311.60.2.1.1", "jurisdictionL"),
        ("1.3.6.1.4.1.311.60.2.1.2", "jurisdictionST"),
        ("1.3.6.1.4.1.311.60.2.1.3", "jurisdictionC"),
        *((unknown, unknown) for unknown in UNKNOWN),
    ],
)
def test_an_attribute_has_its_short_name_or_numbers(oid: str, short: str) -> None:
    assert names(certificate([attribute(oid, "v")])) == (f"/{short}=v", "")


def test_long_numbers_are_cut() -> None:
    oid = b"\x2a" + b"\x82\x59" * 40
    assert names(one(b"v", oid=oid))[0] == f"/1.2{'.345' * 19}=v"


def test_each_byte_of_a_value_is_shown() -> None:
    plain = {*range(0x20, 0x7F)} - {*b"/+"}
    for byte in range(256):
        shown = chr(byte) if byte in plain else f"\\{chr(byte)}"
        expected = shown if 0x20 <= byte < 0x7F else f"\\x{byte:02X}"
        assert names(one(bytes([byte]), 0x16))[0] == f"/CN={expected}"


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        (Kind.UTF8String, "é", r"\xC3\xA9"),
        (Kind.T61String, "a", "a"),
        (Kind.BMPString, "aé中", r"\x00a\x00\xE9N-"),
        (Kind.UniversalString, "a\U0001f600", r"\x00\x00\x00a\x00\x01\xF6\x00"),
        (Kind.BitString, b"\4\xf0\x10", r"\xF0\x10"),
    ],
)
def test_each_type_of_string_is_shown_as_its_bytes(kind: Any, value: Any, shown: str) -> None:
    assert names(certificate([attribute("2.5.4.45", value, kind)]))[0].endswith("=" + shown)


def test_a_sequence_is_shown_as_it_is() -> None:
    assert names(one(tlv(0x0C, b"x"), 0x30))[0] == r"/CN=0\x03\x0C\x01x"


def test_attributes_of_one_set_are_joined() -> None:
    sets = tlv(0x31, entry(b"a"), entry(b"b")), tlv(0x31), tlv(0x31, entry(b"c"))
    assert names(by_hand(*sets))[0] == "/CN=a+CN=b/CN=c"


def test_an_empty_name_is_an_empty_text() -> None:
    assert names(certificate([])) == ("", "")


def test_an_attribute_that_does_not_fit_ends_the_name() -> None:
    for size, kept in [(251, 251), (252, 0), (10_000, 0)]:
        sets = tlv(0x31, entry(b"a" * size)), tlv(0x31, entry(b"b"))
        assert names(by_hand(*sets))[0] == ("/CN=" + "a" * kept if kept else "")
    assert names(by_hand(*[tlv(0x31, entry(b"12345"))] * 99))[0] == "/CN=12345" * 28


def test_other_versions_have_less_or_more_fields() -> None:
    fields = [ALGORITHM, tlv(0x30), TIMES, tlv(0x30, tlv(0x31, entry(b"a"))), KEY]
    first = tlv(0x30, HEAD[1], *fields)
    second = tlv(0x30, *HEAD[:2], *fields, b"\x81\2\0a", b"\x82\2\0b")
    for signed in first, second:
        assert names(tlv(0x30, signed, ALGORITHM, tlv(0x03, b"\0"))) == ("/CN=a", "")


# --- what is refused ----------------------------------------------------------------

GOOD = one(b"a")
START = len(by_hand()) - len(KEY + ALGORITHM + b"\3\2\0\1")  # of the sets in the subject
BODY = tlv(0x30, *HEAD)


@pytest.mark.parametrize(
    ("der", "told"),
    [
        (b"", "unexpected tags at offset 0: none"),
        (b"\x30", "values reach offset 0, not 1"),
        (b"\x30\x00", "unexpected tags at offset 2: none"),
        (b"\x30\x80\0\0", "values reach offset 0, not 4"),
        (b"\x30\x81\x05abcde", "values reach offset 0, not 8"),
        (b"\x30\x82\x00\x90" + bytes(0x90), "values reach offset 0, not 148"),
        (b"\x30\x84\0\0\0\1a", "values reach offset 0, not 7"),
        (b"\x30\xff" + b"\xff" * 200, "values reach offset 0, not 202"),
        (b"\x30\x83\xff\xff\xff", "values reach offset 16777220, not 5"),
        (b"\x3f\x01\x00", "unexpected tags at offset 0: 3f"),
        (b"\x10\x00", "unexpected tags at offset 0: 10"),
        (GOOD + b"\0", f"values reach offset {len(GOOD)}, not {len(GOOD) + 1}"),
        (GOOD + b"\0\0", "unexpected tags at offset 0: 30 00"),
        (GOOD[:-1], f"values reach offset {len(GOOD)}, not {len(GOOD) - 1}"),
        (tlv(0x30, BODY, ALGORITHM), "unexpected tags at offset 2: 30 30"),
        (tlv(0x30, BODY, ALGORITHM, b"\3\0"), "unexpected tags at offset 4: a0 02 30"),
        (by_hand(b"\x30\0"), f"unexpected tags at offset {START}: 30"),
        (by_hand(tlv(0x31, b"\x31\0")), f"unexpected tags at offset {START + 2}: 31"),
        (by_hand(tlv(0x31, b"\x30\0")), f"unexpected tags at offset {START + 4}: none"),
        (by_hand(b"\x31\x05\x30\x09123"), f"values reach offset {START + 13}, not {START + 7}"),
        (one(b"a", 0x2C), f"unexpected tags at offset {START + 4}: 06 2c"),
        (one(b"a", 0x1F), f"unexpected tags at offset {START + 4}: 06 1f"),
        (one(b"a", oid=b""), f"no object identifier at offset {START + 6}"),
        (one(b"a", oid=b"\x55\x84"), f"no object identifier at offset {START + 6}"),
        (one(b"a", oid=b"\x55\x80\x01"), f"no object identifier at offset {START + 6}"),
        (one(b"", 0x03), f"no string of bits at offset {START + 11}"),
        (one(b"\x08\0", 0x03), f"no string of bits at offset {START + 11}"),
        (one(b"\x04\x08", 0x03), f"no string of bits at offset {START + 11}"),
    ],
)
def test_what_is_no_der_is_told_with_its_place(der: bytes, told: str) -> None:
    with pytest.raises(ValueError, match="offset") as refused:
        names(der)
    assert str(refused.value) == told


def test_size_and_depth_are_no_matter() -> None:
    deep = b""
    for _ in range(5000):
        deep = tlv(0x30, deep)
    arc = b"\xff" * 50_000
    for der in (deep, b"\x30\x80" * 50_000, one(b"a", oid=arc), one(b"a", oid=arc + b"\1")):
        assert read_or_refused(der) is None
    assert read_or_refused(one(b"a", oid=b"\x55" * 586)) is not None
    assert read_or_refused(one(b"a", oid=b"\x55" * 587)) is None
    assert names(one(deep, 0x30)) == ("", "")
    assert names(by_hand(tlv(0x31) * 20_000, tlv(0x31, entry(b"a")))) == ("/CN=a", "")
    assert names(by_hand(tlv(0x31, *[entry(b"a")] * 5000)))[0] == "/CN=a" + "+CN=a" * 50


def spoilt(der: bytes, dice: random.Random) -> bytes:
    """A byte or some changed, put in or taken away; half of the time where the names begin."""
    broken = bytearray(der)
    for _ in range(dice.choice([1, 1, 1, 2, 5])):
        place = dice.randrange(dice.choice([len(broken), min(len(broken), 150)]))
        match dice.randrange(4):
            case 0:
                broken[place] ^= 1 << dice.randrange(8)
            case 1:
                broken[place] = dice.choice([0, 0x30, 0x7F, 0x80, 0x81, 0xFF, dice.randrange(256)])
            case 2:
                broken[place:place] = dice.randbytes(dice.choice([1, 1, 3]))
            case _:
                del broken[place : place + dice.choice([1, 1, 3])]
    return bytes(broken)


def read_or_refused(der: bytes) -> Pair | None:
    try:
        told = names(der)
    except ValueError as error:
        words = str(error)
    else:
        assert all(len(line) < 256 and line.isascii() and line.isprintable() for line in told)
        return told
    assert re.search(r"\boffset \d+", words)
    return None


def test_a_part_of_a_certificate_is_refused() -> None:
    for der in some_certificates(5, 3, 20):
        assert all(read_or_refused(der[:end]) is None for end in range(len(der)))
        assert all(read_or_refused(der[start:]) is None for start in range(1, len(der)))


def test_noise_is_refused() -> None:
    dice = random.Random(1)
    for _ in range(3000):
        noise = dice.randbytes(dice.randrange(300))
        assert read_or_refused(noise) is None
        assert read_or_refused(tlv(0x30, tlv(0x30, noise), ALGORITHM, b"\3\1\0")) is None
        read_or_refused(by_hand(noise))
        read_or_refused(by_hand(tlv(0x31, tlv(0x30, noise))))


def test_a_spoilt_certificate_is_read_or_refused() -> None:
    dice, read = random.Random(2), 0
    for der in some_certificates(20, 4, 20):
        read += sum(read_or_refused(spoilt(der, dice)) is not None for _ in range(400))
    assert 0 < read < 8000


def test_a_spoilt_certificate_is_not_read_differently(library: Reader) -> None:
    dice, both = random.Random(3), 0
    for der in some_certificates(20, 4, 20):
        for broken in (spoilt(der, dice) for _ in range(200)):
            ours, theirs = read_or_refused(broken), library(broken)
            both += ours is not None and theirs is not None
            assert None in (ours, theirs) or ours == theirs
    assert both > 100
