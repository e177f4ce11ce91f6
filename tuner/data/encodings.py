"""The encoding of a text file that does not say which one it has.

Libraries that tell encodings go by whole sentences. Of a table only names and classes are written
in letters, five words perhaps, so candidates are judged here by whether their letters go together.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from dataclasses import dataclass

__all__ = ["Unclear", "decoded"]

_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What programs of today still write, the likelier first, and the script that it is for.
_LEGACY = {
    "cp1252": "LATIN",
    "cp1250": "LATIN",
    "cp1251": "CYRILLIC",
    "gb18030": "gb2312",
    "cp949": "euc_kr",
    "cp932": "shift_jis",
    "big5": "big5",
    "cp1253": "GREEK",
    "cp1255": "HEBREW",
    "cp1256": "ARABIC",
}
_COMMON = {
    "gb2312": (0xB0, 0xD7),
    "euc_kr": (0xB0, 0xC8),
    "big5": (0xA4, 0xC6),
    "shift_jis": (0x88, 0x97),
}
"""First bytes of the characters that are in daily use, in the standards of the encodings."""
_SYMBOLS = frozenset("°€£µ²³·–—’‘“”…№½±×§™®© ")
_PLAUSIBLE = 0.9
_HANGUL_ALONE = 8  # characters; fewer that are Korean may as well be Chinese


@dataclass
class Unclear(ValueError):
    """Several encodings may be right: (encoding, the first words as they would be read)."""

    readings: list[tuple[str, str]]


def decoded(raw: bytes, encoding: str | None = None) -> tuple[str, str | None]:
    """Return a file's text without byte order mark, and its encoding where that is not UTF-8.

    Raises:
        UnicodeDecodeError: it is not in the encoding that is given, or in none that is known.
        Unclear: in one of several.
    """
    if encoding is not None:
        if not raw.isascii() and _is_utf8(raw):  # no other encoding makes such bytes by chance
            encoding = "utf-8"
        return raw.decode(encoding).removeprefix("\ufeff"), encoding
    for bom, marked in _BOMS:
        if raw.startswith(bom):
            return raw.decode(marked), None if marked == "utf-8-sig" else marked
    sample = raw[: 1 << 12]
    for offset, wide in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(sample) > 3 and sample[offset::2].count(0) > 0.4 * len(sample) / 2:
            return raw.decode(wide), wide
    try:
        return raw.decode("utf-8"), None
    except UnicodeDecodeError:
        if (name := _legacy(raw)) is None:
            raise
        return raw.decode(name), name


def _legacy(raw: bytes) -> str | None:
    """Return the encoding of bytes that are no UTF-8; None where none is plausible."""
    lines = [line for line in raw.splitlines() if not line.isascii()]
    if b"\0" in raw or any(map(_is_utf8, lines)):  # UTF-8 with a broken character
        return None
    sample = b"\n".join(lines[:200])
    readings: dict[str, str] = {}
    for name, script in _LEGACY.items():
        try:
            text = sample.decode(name)
            raw.decode(name)
        except UnicodeDecodeError:
            continue
        if _share_of_common(text, script) >= _PLAUSIBLE:
            readings[name] = text
    if {"gb18030", "cp949"} <= readings.keys():  # the Korean syllables lie among the Chinese
        letters = sum(not c.isascii() for c in readings["cp949"])
        if letters >= _HANGUL_ALONE:
            return "cp949"
        pairs = [(name, readings[name]) for name in ("gb18030", "cp949")]
        raise Unclear([(name, " ".join(text.split())[:30]) for name, text in pairs])
    return next(iter(readings), None)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _share_of_common(text: str, script: str) -> float:
    """Return the share of the characters beyond ASCII that stand where such ones stand."""
    good = n = 0
    for word in re.findall(r"[^\W\d_]+|[^\x00-\x7f]", text):
        others = [c for c in word if not c.isascii()]
        n += len(others)
        if script in _COMMON:
            good += sum(_is_common(c, script) for c in others)
        elif len(word) == 1 and word in _SYMBOLS:
            good += 1
        elif all(_in_script(c, script) for c in others) and _is_word(word, script):
            good += len(others)
    return good / n if n else 0.0


def _is_common(char: str, standard: str) -> bool:
    """Say whether a character is in daily use, by its place in a standard."""
    if standard == "shift_jis" and "\u3040" <= char <= "\u30ff":  # kana
        return True
    try:
        first = char.encode(standard)
    except UnicodeEncodeError:
        return False
    least, most = _COMMON[standard]
    return len(first) == 2 and least <= first[0] <= most


def _in_script(char: str, script: str) -> bool:
    return char.isalpha() and unicodedata.name(char, "").startswith(script)


def _is_word(word: str, script: str) -> bool:
    """Say whether letters make a word: of one script, and not in capitals alone beyond Latin."""
    if len(word) < 2:
        return False
    if script == "LATIN":
        capitals = word.isupper() and not re.search(r"[^\x00-\x7f]{2}", word)
        cased = word[1:] == word[1:].lower() or capitals
        return cased and re.search(r"[^\x00-\x7f]{3}", word) is None
    one_script = all(not c.isascii() for c in word)
    caseless = script in ("HEBREW", "ARABIC")
    return one_script and (caseless or word[1:] == word[1:].lower())
