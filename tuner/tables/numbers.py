"""Numbers as people write them: decimal commas, thousands, units, words for missing."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from pandas.api.types import is_float_dtype

from tuner.errors import Setting
from tuner.pipeline_steps import Dialect

_WORDS = """
- -- --- – — ? ?? . .. ... na n/a n.a. n.a n/d n.d. nan none null nil missing unknown void k.a. n.v.
s/d #n/a #value! #div/0! #ref! #name? #num! #null! (null) <na> 无 缺失 欠測
"""
_CURRENCIES = """
$ € £ ¥ ￥ ₹ ₩ ₽ ₺ ₫ ₪ ฿ R$ US$ C$ A$ HK$ NT$ kr zł Kč Ft lei Fr. CHF EUR USD GBP JPY CNY RMB INR
SEK NOK DKK PLN CZK AUD CAD BRL KRW RUB TRY 元 円 원
"""
_UNITS = """
% ‰ ％ ° °C °F ℃ ℉ Wh kWh MWh GWh TWh kW MW GW kVA hPa kPa mbar km/h m/s mph kn mm cm km kg µg mg
kcal kJ MJ GJ ppm ppb m² m³ m2 m3 µg/m³ W/m² W/m2 kbit/s Mbit/s dB lx Hz kHz MHz GHz rpm bpm
"""
# Words that stand for no value in a column of numbers, in lower case.
MISSING_WORDS = frozenset(_WORDS.split())
_KNOWN_UNITS = frozenset((_CURRENCIES + _UNITS).split())
_DURATIONS = frozenset(("s", "m", "h", "d", "w", "y", "min", "ms", "k", "K", "M", "B", "bn"))
_PARTS = re.compile(
    r"(?P<sign>[-+−])?\s*(?P<before>[^\d\s.,'’+\-−()\"]{1,4}\.?)?\s*(?P<inner>[-+−])?\s*"
    r"(?P<core>[0-9][0-9.,'’ _\u00a0\u202f]*|[.,][0-9]+)"
    r"(?P<power>[eE][-+]?[0-9]+)?\s*(?P<behind>(?:k?m|W/m)[23]|[^\d\s.,'’/:][^\d\s]{0,7})?"
)
_DIGITS = re.compile(
    r"\d+[.,]?\d*|[.,]\d+|\d{1,3}(,\d{3})+(\.\d*)?|\d{1,3}(\.\d{3})+(,\d*)?"
    r"|\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d*)?"  # as in India: 12,34,567
    r"|\d{1,3}([ '’_\u00a0\u202f])\d{3}(\5\d{3})*([.,]\d*)?"
)
_GAPS = " '’_\u00a0\u202f"  # what groups digits and is no point or comma
_GROUPED = re.compile(r"[1-9]\d{0,2}(\.\d{3})+")
_MOST = 0.8  # of a column's values make it one of numbers, if the others are mistakes
_JUDGED = 1000  # values that are looked at first


@dataclass(frozen=True)
class Ambiguity:
    """Why a column that seems to hold numbers stays texts."""

    kind: Literal["cell", "unit", "mark"]  # of what
    row: int  # of the first value that is none, or is not certain
    rule: str = ""
    got: str = ""  # with {place} for where that is
    remedy: str | None = None
    changes: tuple[str | Setting, ...] = ()  # of the experiment


@dataclass(frozen=True, eq=False)
class _Texts:
    """The different values of a column of texts that looks like numbers, taken apart."""

    name: str
    codes: np.ndarray  # (rows,), of each row's value; -1 for none
    values: pd.Series  # (n,), stripped
    parts: pd.DataFrame  # (n, 6) of str: sign, before, inner, core, power, behind; "" for none
    missing: np.ndarray  # (n,), bool: which values are words for no value

    def first_row(self, at: int) -> int:
        return int(np.flatnonzero(self.codes == at)[0])


@dataclass(frozen=True)
class _Evidence:
    """What points and commas of a column can be."""

    decimals: set[str]
    groups: set[str]
    either: set[str]  # stands once before three digits: 1,234

    @classmethod
    def of(cls, texts: _Texts) -> _Evidence:
        found = cls(set(), set(), set())
        cores = texts.parts["core"] + texts.parts["power"]
        for core in set(cores[~texts.missing]):
            kind, mark = _marks(core)
            if kind in ("decimal", "both"):
                found.decimals.add(mark)
            if kind == "both":
                found.groups.add("." if mark == "," else ",")
            elif kind == "groups":
                found.groups.add(mark)
            elif kind == "either":
                found.either.add(mark)
            found.groups.update(set(core) & set(_GAPS))
        return found


def looks_like_number(text: str) -> bool:
    """Return whether a text is a number in some dialect, perhaps with a unit."""
    found = _PARTS.fullmatch(_minus_first(text.strip()))
    if found is None or not _DIGITS.fullmatch(found["core"].strip()):
        return False
    return not found["before"] or found["before"] in _KNOWN_UNITS


def _minus_first(text: str) -> str:
    if text[:1] == "(" and text[-1:] == ")" and text[1:2] not in "+-−":
        return f"-{text[1:-1].strip()}"
    return f"-{text[:-1]}" if text[-1:] == "-" and text[:1].isdigit() else text


def is_unit(text: str) -> bool:
    """Return whether a text is a known unit, or stands in brackets."""
    bracketed = text[:1] + text[-1:] in ("[]", "()") and len(text) > 2
    return bracketed or text in _KNOWN_UNITS


def may_be_grouped(rows: list[list[str]]) -> bool:
    """Return whether a column has whole numbers, and points before groups of three digits alone."""
    for column in itertools.zip_longest(*rows, fillvalue=""):
        values = [value.strip() for value in column if value and value.strip()]
        pointed = [value for value in values if "." in value]
        grouped = sum(_GROUPED.fullmatch(value) is not None for value in pointed)
        if len(pointed) == grouped > 1 and any(value.isdigit() for value in values):
            return True
    return False


def with_numbers(
    frame: pd.DataFrame, dialect: Dialect, *, points_certain: bool = True, keep_plain: bool = False
) -> tuple[pd.DataFrame, Dialect, dict[str, Ambiguity]]:
    """Return a table with its texts of numbers as numbers.

    Args:
        dialect: what is declared about decimal, thousands, units and missing values.
        points_certain: whether 1.234 is certain to be less than two.
        keep_plain: whether texts of plain numbers stay texts, as 01 in a table that has types.

    Returns:
        The table; the dialect with what was found; and the columns that stay texts although
        they seem to hold numbers, and why.
    """
    columns = [_texts_of(str(name), frame[name], dialect) for name in frame]
    found = [texts for texts in columns if texts is not None]
    if keep_plain:
        found = [t for t in found if pd.to_numeric(t.values, errors="coerce").isna().any()]
    if not found:
        return frame, dialect, {}
    # Fractions that pandas read in a text were written with points.
    floats = [frame[name].dropna() for name in frame if is_float_dtype(frame[name])]
    points = not keep_plain and any((column % 1 != 0).any() for column in floats)
    ambiguous: dict[str, Ambiguity] = {}
    clean: list[_Texts] = []
    for texts in found:
        if (ambiguity := _ambiguity_of(texts, dialect)) is None:
            clean.append(texts)
        elif ambiguity.remedy or ambiguity.changes:
            ambiguous[texts.name] = ambiguity
    decided, unsure = _decided(clean, dialect, points=points, points_certain=points_certain)
    ambiguous |= unsure
    changed = {}
    for texts in clean:
        if texts.name in ambiguous:
            continue
        numbers = _converted(texts, decided)
        if (bad := np.flatnonzero(np.isnan(numbers) & ~texts.missing)).size:
            ambiguous[texts.name] = _no_number(texts, int(bad[0]), decided)
            continue
        changed[texts.name] = _by_row(texts, numbers)
        units = set(texts.parts.loc[~texts.missing, ["before", "behind"]].to_numpy().ravel())
        words = set(texts.values[texts.missing])
        decided = replace(
            decided,
            units=_joined(decided.units, units),
            missing_values=_joined(decided.missing_values, words),
        )
    return frame.assign(**changed) if changed else frame, decided, ambiguous


def _texts_of(name: str, column: pd.Series, dialect: Dialect) -> _Texts | None:
    """Take a column apart; None where it has a type, or its values look like something else."""
    if not (column.dtype == object or isinstance(column.dtype, pd.StringDtype)):
        return None
    sample = column.dropna().iloc[:: max(1, len(column) // _JUDGED)]
    texts = [v for v in sample if isinstance(v, str) and v.strip()]
    declared = {word.casefold() for word in dialect.missing_values or ()}
    words = declared | MISSING_WORDS
    candidates = [text for text in texts if text.strip().casefold() not in words]
    if len(texts) < len(sample) or not candidates:
        return None
    if sum(map(looks_like_number, candidates)) < _MOST * len(candidates):
        return None
    codes, uniques = pd.factorize(column)
    values = pd.Series(uniques, dtype=object).map(str).str.strip()
    parts = values.map(_minus_first).str.extract(f"^{_PARTS.pattern}$").fillna("")
    parts["core"] = parts["core"].str.strip()
    parts["core"] = parts["core"].where(parts["core"].str.fullmatch(_DIGITS.pattern), "")
    folded = values.str.casefold()
    known = declared if dialect.missing_values is not None else MISSING_WORDS
    missing = np.asarray(folded.isin(list(known)) | (folded == ""))
    return _Texts(name, codes, values, parts, missing)


def _ambiguity_of(texts: _Texts, dialect: Dialect) -> Ambiguity | None:
    """Return why values cannot be numbers of one unit; plain texts give no remedy."""
    missing, units = texts.missing, texts.parts[["before", "behind"]]
    core = texts.parts["core"].to_numpy()
    if (bad := np.flatnonzero((core == "") & ~missing)).size:
        if (core != "").sum() < _MOST * (~missing).sum():
            return Ambiguity("cell", 0)
        return _no_number(texts, int(bad[0]), dialect)
    every = sorted({(str(a), str(b)) for a, b in units.to_numpy()[~missing]})
    if every == [("", "")]:
        return None
    at = int(np.flatnonzero(~missing & (units != "").any(axis=1))[0])
    value, row = texts.values[at], texts.first_row(at)
    named = [unit for pair in every for unit in pair if unit]
    allowed = frozenset(dialect.units) if dialect.units is not None else _KNOWN_UNITS
    unknown = [unit for unit in named if unit not in allowed]
    if len(set(named)) > 1 or (len(every) > 1 and dialect.units is None):
        if unknown and not set(unknown) <= _DURATIONS:
            return Ambiguity("cell", 0)  # 12A, 13B: names
        rule = "must hold numbers of one unit"
        if len(set(named)) > 1:
            got = f"several, such as {value!r} in {{place}}"
            remedy = "write one unit in all of its rows, or only numbers"
            return Ambiguity("unit", row, rule, got, remedy)
        got = f"{value!r} in {{place}} and others without it"
        unit = Setting("data.read.units", f"[{_quoted(named[0])}]", " if all are in it")
        return Ambiguity("unit", row, rule, got, "correct them", (unit,))
    if unknown:
        if any(a and a not in allowed for a, _ in every):
            return Ambiguity("cell", 0)  # Q1, Q2: names
        rule = f"may hold numbers with the unit {unknown[0]!r}"
        unit = Setting("data.read.units", f"[{_quoted(unknown[0])}]", " if it does")
        return Ambiguity("unit", row, rule, f"{value!r} in {{place}}", changes=(unit,))
    return None


def _decided(
    columns: list[_Texts], dialect: Dialect, *, points: bool, points_certain: bool
) -> tuple[Dialect, dict[str, Ambiguity]]:
    """Decide between point and comma for the whole file; undecided columns stay texts."""
    seen = {texts.name: _Evidence.of(texts) for texts in columns}
    decimals = set("." if points else "").union(*(e.decimals for e in seen.values()))
    groups = set[str]().union(*(e.groups for e in seen.values()))
    either = set[str]().union(*(e.either for e in seen.values()))
    decimal, thousands = dialect.decimal, dialect.thousands
    if decimal is None and thousands in (".", ","):
        decimal = "," if thousands == "." else "."
    if decimal is None:
        others = {"," if g == "." else "." for g in groups & {".", ","}}
        votes = decimals or others or ({"."} if either == {"."} and points_certain else set())
        if len(votes) == 1:
            (decimal,) = votes
        elif not either and not votes:
            decimal = None  # whole numbers alone
        else:
            unsure = [t for t in columns if seen[t.name].decimals or seen[t.name].either]
            return dialect, {texts.name: _ambiguous(texts) for texts in unsure}
    found = groups | {mark for mark in either if mark != decimal}
    if thousands is None and found:
        thousands = sorted(found)[0]
    ambiguous = {}
    for texts in columns:
        evidence = seen[texts.name]
        marks = evidence.groups | {m for m in evidence.either if m != decimal}
        wrong = (evidence.decimals - {decimal}) | (marks - {thousands}) | (marks & {decimal})
        if wrong:
            ambiguous[texts.name] = _against(texts, sorted(wrong)[0], decimal, thousands)
    plain = decimal == "." and dialect.decimal is None
    return replace(dialect, decimal=None if plain else decimal, thousands=thousands), ambiguous


def _marks(core: str) -> tuple[str, str]:
    """Return what the points and commas of a number can be, and which mark that is."""
    digits, power, _ = re.sub(f"[{_GAPS}]", "", core.lower()).partition("e")
    points, commas = digits.count("."), digits.count(",")
    if points and commas:
        return "both", max(".,", key=digits.rfind)
    if not points + commas:
        return "", ""
    mark = "." if points else ","
    if points + commas > 1:
        return "groups", mark
    may_group = re.fullmatch(r"[1-9][0-9]{0,2}[.,][0-9]{3}", digits) and digits == core
    return ("either" if may_group and not power else "decimal"), mark


def _converted(texts: _Texts, dialect: Dialect) -> np.ndarray:
    """Return values as numbers, (n,) float64; nan where they are none, or grouped otherwise."""
    parts = texts.parts
    core = parts["core"]
    decimal = re.escape(dialect.decimal or ".")
    whole = r"[0-9]*"
    if dialect.thousands is not None:
        mark = re.escape(dialect.thousands)
        whole = rf"(?:[0-9]*|[0-9]{{1,3}}(?:{mark}[0-9]{{2,3}})*{mark}[0-9]{{3}})"
    fits = core.str.fullmatch(rf"{whole}(?:{decimal}[0-9]*)?")
    if dialect.thousands is not None:
        core = core.str.replace(dialect.thousands, "", regex=False)
    core = core.str.replace(dialect.decimal or ".", ".", regex=False) + parts["power"]
    numbers = pd.to_numeric(core, errors="coerce").to_numpy(np.float64, copy=True)
    minus = (parts["sign"] + parts["inner"]).str.replace("−", "-", regex=False)
    numbers[(minus == "-").to_numpy()] *= -1
    numbers[(minus.str.len() > 1).to_numpy() | ~fits.to_numpy(bool) | texts.missing] = np.nan
    return numbers


def _by_row(texts: _Texts, numbers: np.ndarray) -> np.ndarray:
    """Return the numbers of rows: whole ones as int64, where none is missing."""
    of_rows = np.append(numbers, np.nan)[texts.codes]  # -1 is the last
    known = texts.parts[~texts.missing]
    whole = not (known["core"].str.contains("[.,]") | (known["power"] != "")).any()
    if whole and not np.isnan(of_rows).any() and np.abs(of_rows).max() < 2**53:
        of_rows = of_rows.astype(np.int64)
    return np.asarray(of_rows)


def _no_number(texts: _Texts, at: int, dialect: Dialect) -> Ambiguity:
    value = texts.values[at]
    words = ", ".join(map(_quoted, _joined(dialect.missing_values, {value}) or ()))
    missing = Setting("data.read.missing_values", f"[{words}]", " if it stands for nothing")
    remedy, changes = "write a number there (1234.5)", ("choose another column", missing)
    got = f"{value!r} in {{place}}"
    return Ambiguity("cell", texts.first_row(at), "must hold numbers", got, remedy, changes)


def _ambiguous(texts: _Texts) -> Ambiguity:
    """Describe a column whose points and commas may be decimal or group digits."""
    cores = texts.parts["core"] + texts.parts["power"]
    kinds = [
        ("", "") if none else _marks(core) for core, none in zip(cores, texts.missing, strict=True)
    ]
    certain = {mark: kinds.index(("decimal", mark)) for kind, mark in kinds if kind == "decimal"}
    if len(certain) > 1:  # 1.5 and 1,5
        counts = Counter(mark for kind, mark in kinds if kind == "decimal")
        rarer = min(certain, key=lambda mark: counts[mark])
        at = certain[rarer]
        usual = "points" if rarer == "," else "commas"
        got = f"{texts.values[at]!r} in {{place}} among decimal {usual}"
        rule = "must write all numbers in one way"
        return Ambiguity("mark", texts.first_row(at), rule, got, "correct it")
    at = next(i for i, (kind, _) in enumerate(kinds) if kind in ("either", "decimal", "both"))
    mark = kinds[at][1]
    rule = "holds numbers, and the file does not tell whether points or commas are decimal"
    got, other = f"{texts.values[at]!r} in {{place}}", "." if mark == "," else ","
    decimal = Setting("data.read.decimal", f'"{mark}"', f' or "{other}"')
    return Ambiguity("mark", texts.first_row(at), rule, got, changes=(decimal,))


def _against(texts: _Texts, wrong: str, decimal: str | None, thousands: str | None) -> Ambiguity:
    cores = texts.parts["core"].to_numpy()
    at = next(i for i in np.flatnonzero(~texts.missing) if wrong in cores[i])
    rule = f"must write numbers with the decimal mark {_quoted(decimal or '.')}"
    rule += f" and {_quoted(thousands)} between groups of digits" if thousands else ""
    changes = ("set data.read.decimal and data.read.thousands",)
    got = f"{texts.values[at]!r} in {{place}}"
    remedy = "write numbers in one way"
    return Ambiguity("mark", texts.first_row(int(at)), rule, got, remedy, changes)


def _joined(known: tuple[str, ...] | None, more: set[str]) -> tuple[str, ...] | None:
    more = more - {""}
    return known if not more else tuple(dict.fromkeys((*(known or ()), *sorted(more))))


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
