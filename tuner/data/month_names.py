"""Names of months in languages that pandas does not read, and of time zones."""

from __future__ import annotations

import re

__all__ = ["in_english"]

_MONTHS = (
    "januar janvier janv enero ene gennaio gen janeiro januari",
    "februar février fevrier févr fevr febrero febbraio feb fevereiro fev februari",
    "märz maerz mrz mars marzo março marco maart mrt",
    "april avril avr abril abr aprile",
    "mai mayo maggio mag maio mei",
    "juni juin junio giugno giu junho",
    "juli juillet juil julio luglio lug julho",
    "august août aout agosto ago augustus",
    "september septembre septiembre settembre set setembro",
    "oktober okt octobre octubre ottobre ott outubro out",
    "november novembre noviembre novembro",
    "dezember dez décembre decembre déc diciembre dic dicembre dezembro december",
)
_ENGLISH = "January February March April May June July August September October November December"
_NAMES = {
    name: english
    for english, names in zip(_ENGLISH.split(), _MONTHS, strict=True)
    for name in names.split()
}
_ZONES = {
    "UTC": "+00:00", "GMT": "+00:00", "WET": "+00:00", "WEST": "+01:00", "CET": "+01:00",
    "MEZ": "+01:00", "CEST": "+02:00", "MESZ": "+02:00", "EET": "+02:00", "EEST": "+03:00",
    "MSK": "+03:00", "JST": "+09:00", "KST": "+09:00", "EST": "-05:00", "EDT": "-04:00",
    "PST": "-08:00", "PDT": "-07:00",
}  # fmt: skip
_DAY_MONTH = re.compile(r"(\d{1,2})\.?\s+(?:de\s+)?([^\W\d_]{3,10})\.?\s+(?:de\s+)?(\d{4})(.*)")
_MONTH_YEAR = re.compile(r"([^\W\d_]{3,10})\.?\s+(?:de\s+)?(\d{4})")
_ZONE = re.compile(r"(.*\d)\s+([A-Z]{3,4})")


def in_english(text: str) -> str:
    """Return a date with its month in English, and a known time zone as an offset.

    Other texts come back as they are.
    """
    if (found := _DAY_MONTH.fullmatch(text)) and (month := _NAMES.get(found[2].lower())):
        text = f"{int(found[1])} {month} {found[3]}{found[4]}"
    elif (found := _MONTH_YEAR.fullmatch(text)) and (month := _NAMES.get(found[1].lower())):
        text = f"{month} {found[2]}"
    if (found := _ZONE.fullmatch(text)) and (offset := _ZONES.get(found[2])):
        text = f"{found[1]}{offset}"
    return text
