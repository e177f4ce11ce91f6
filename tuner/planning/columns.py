"""Guesses the roles of columns in an unknown file."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_datetime64_any_dtype, is_numeric_dtype

from tuner.errors import refusal
from tuner.pipeline_steps import Dialect
from tuner.tables.table import RawTable, WideColumns, melted, stem_of_series
from tuner.tables.timestamps import (
    EXCEL,
    are_days_of_spreadsheet,
    as_times,
    find_parts,
    where_outside,
    with_joined_time,
)

_MOST = 0.8  # of the values make a column's kind; reading then refuses the others by their lines
_VALUES_JUDGED = 1000
_TIME_NAMES = ("time", "date", "year", "month", "day", "timestamp", "datetime", "ds", "unix")
_TIME_WORDS = frozenset(
    (*_TIME_NAMES, "ts", "epoch", "quarter", "datum", "zeit", "zeitpunkt", "zeitstempel", "uhrzeit",
     "jahr", "monat", "quartal", "mois", "trimestre", "fecha", "mes", "日期", "时间")
)  # fmt: skip
_UNIX_UNITS = (1, 1e3, 1e6, 1e9)  # in a second
_QUARTERS = r"(?:19|20)\d\d[-/. ]0?([1-4])"  # or months, of which none is later than April
_DIGITS_OF_A_DATE = 4  # at least, where no month is named
_FEWEST_DATES = 10  # numbers that count as dates without a usual name
_SHORT_DATE = r"\s*\d{1,2}([./-])\d{1,2}\1\d{1,2}\s*"
_SHORT_YEAR = r".*\d\d\s*"
_MONTH_AND_YEAR = re.compile(r"(?i)[^\W\d_]{3,}\W*\d\d")
MOST_CLASSES = 30  # that numbers may stand for
_AGAIN = 0.3  # of the times come again where several series share them; else rows are doubled
_MOST_OF_PAIRS = 6  # columns that are tried in pairs as ids
_ROWS_OF_AN_ID = 3  # at least, on average


@dataclass(frozen=True)
class Columns:
    """The guessed roles of the columns of a file."""

    time: str | None
    id: str | None
    targets: list[str]
    numbers: list[str]  # the targets among them, unless no column holds numbers
    left_out: dict[str, str]  # every other column, and its kind: text, times, nothing
    why_target: str = ""  # "" where it was given
    why_id: str = ""  # likewise, and where there is none
    may_be_id: str | None = None  # where there is none
    wide: WideColumns | None = None  # whose id and value are `id` and the target
    may_be_wide: tuple[str, int] | None = None  # a pattern of columns, and how many they are
    dialect: Dialect = field(default_factory=Dialect)  # how the file is written
    found: tuple[str, ...] = ()  # of it that a plain file does not have

    @property
    def target(self) -> str:
        """The first one."""
        return self.targets[0]


def guess_columns(
    table: RawTable,
    *,
    time: str | None = None,
    id_: str | None = None,
    no_time: bool = False,
    target: Sequence[str] = (),
    features: list[str] | None = None,
    wide: WideColumns | None = None,
) -> Columns:
    """Guess the roles of the columns; given ones are kept.

    Raises:
        DataError: a given column is absent, or no column is certain to be the target.
    """
    if not no_time:
        table, time = _with_time(table, time)
    read = table
    if wide is not None:
        table, _ = melted(table, wide, time)
        id_, target = wide.id, [wide.value]
    frame, names, given = table.frame, table.names, list(target)
    listed = [("target", c) for c in given] + [("features", c) for c in features or []]
    for key, name in [("time", time), ("id", id_), *listed]:
        if name is not None:
            table.check_has(f"data.{key}", name)
    kinds = {c: kind for c, kind in kinds_of(table).items() if c != id_}
    kinds |= dict.fromkeys((name for _, name in listed), "numbers")
    if not no_time:
        time = time or next((c for c, kind in kinds.items() if kind == "times"), None)
        if time is None:
            _refuse_unread_times(table, kinds)
        else:
            _refuse_quarters(table, time)
    why_id = ""
    if id_ is None:
        others = [c for c in names if c not in (time, *given, *(features or []))]
        id_, why_id = _guess_id(table, None if no_time else time, others, kinds)
        kinds = {c: kind for c, kind in kinds.items() if c != id_}
    numbers = [c for c, kind in kinds.items() if kind == "numbers" and c != time]
    stem = None if given or features or id_ is not None else stem_of_series(numbers)
    why = ""
    if not given:
        usable = [c for c in features or numbers if c != time]
        chosen, why = _choose_target(table, time, id_, usable, kinds, sure=features is not None)
        given = [chosen]
    return Columns(
        time=time,
        id=id_,
        targets=given,
        numbers=numbers,
        left_out=_left_out(table, kinds, [time, *numbers]),
        why_target=why,
        why_id=why_id,
        may_be_id=_likely_id(frame, kinds, time) if id_ is None else None,
        wide=wide,
        may_be_wide=None if stem is None else (stem[0], len(stem[2])),
        dialect=read.dialect,
        found=read.notes,
    )


def kinds_of(table: RawTable) -> dict[str, str]:
    """Return the kind of each column: numbers, times, text or nothing."""
    frame = table.frame
    return {c: "text" if c in table.ambiguous else _kind(frame[c]) for c in table.names}


def _left_out(table: RawTable, kinds: dict[str, str], used: list[str | None]) -> dict[str, str]:
    left = {c: kind for c, kind in kinds.items() if c not in used}
    for c, ambiguity in table.ambiguous.items():
        if c in left:
            left[c] += f"; {ambiguity.rule}, got {table.value_of(ambiguity)}"
    return left


def _choose_target(
    table: RawTable,
    time: str | None,
    id_: str | None,
    usable: list[str],
    kinds: dict[str, str],
    *,
    sure: bool,
) -> tuple[str, str]:
    """Return the target, and the reason; refuse a guess beside columns that may be it.

    Args:
        usable: columns of numbers.
        sure: whether these were given, so that no other column can be the target.
    """
    if not usable and not sure:
        _refuse_ambiguous(table, [time, id_], named=False)
    found = None if id_ is None else _guess_class(table, id_, time, usable, kinds)
    chosen, why = found or _guess_target(table.path, table.frame, usable)
    if not sure:
        named = why.startswith("by its name")
        _refuse_texts(table, kinds, named=named)
        _refuse_ambiguous(table, [time, id_], named=named)
    return chosen, why


def _with_time(table: RawTable, time: str | None) -> tuple[RawTable, str | None]:
    """Return the table with readable times, and the column that holds them.

    Parts of the time in several columns are joined; what a spreadsheet counts as days, in a
    column that is called so, is read as days.
    """
    frame, dialect = table.frame, table.dialect
    if dialect.time_columns is not None:
        name = time or _free_name(table)
        if name not in frame:
            frame = with_joined_time(table.path, frame, dialect, name)
        return replace(table, frame=frame), name
    if time is None and (parts := _parts_of_time(frame)):
        name = _free_name(table)
        note = f"time_columns: {', '.join(parts)}, joined into {name!r}"
        dialect = replace(dialect, time_columns=parts)
        frame = with_joined_time(table.path, frame, dialect, name)
        return replace(table, frame=frame, dialect=dialect, notes=(*table.notes, note)), name
    if dialect.date_format is not None:
        fitting = (c for c in table.names if table.times(c).notna().mean() >= _MOST)
        return table, time or next(fitting, None)
    usual = [name for name in table.names if set(_words_of(name)) & set(_TIME_NAMES)]
    for name in usual if time is None else [time]:
        if name in frame and are_days_of_spreadsheet(frame[name]):
            note = f"date_format: {EXCEL}, as {name!r} counts days since 1899-12-30"
            dialect = replace(dialect, date_format=EXCEL)
            return replace(table, dialect=dialect, notes=(*table.notes, note)), name
    return table, time


def _parts_of_time(frame: pd.DataFrame) -> tuple[str, ...]:
    """Return the columns that form the time together; none if one column holds it."""
    parts = find_parts(frame)
    others = [str(c) for c in frame if c not in parts]
    if not parts or any(_kind(frame[c]) == "times" for c in others):
        return ()
    first = frame[parts[0]]
    return () if _kind(first) == "times" and not first.duplicated().any() else parts


def _refuse_unread_times(table: RawTable, kinds: dict[str, str]) -> None:
    """Refuse a file whose column of times, by its name, cannot be read as times."""
    for name, kind in kinds.items():
        words, values = set(_words_of(name)), table.frame[name].dropna()
        if not words & _TIME_WORDS or values.empty:
            continue
        if kind == "text" and values.astype(str).str.contains(r"(?:19|20)\d\d").mean() >= _MOST:
            remedy = 'write data.read.date_format: "%d.%m.%Y", say, as strptime has it'
        elif kind == "numbers" and words <= _TIME_WORDS and _are_years_and_parts(values):
            remedy = "write 1990-01 for January 1990, say"
        else:
            continue
        place = table.place_of(int(values.index[0]))
        rule = f"column {name!r} seems to hold times"
        got = f"{str(values.iloc[0])!r} in {place}"
        raise refusal(table.path, "data.time", rule, got, f"{remedy}, or init with --no-time")


def _are_years_and_parts(values: pd.Series) -> bool:
    numbers = pd.to_numeric(values.astype(object), errors="coerce")
    return bool(numbers.between(1900, 2101).mean() >= _MOST and (numbers % 1 != 0).mean() > 0.5)


def _refuse_quarters(table: RawTable, time: str) -> None:
    """Refuse quarters that would be read as months: 1990-4 as April."""
    if time not in table.names or table.dialect.date_format is not None:
        return
    values = table.frame[time].dropna()
    if is_numeric_dtype(values) or is_datetime64_any_dtype(values):
        return
    texts = values.astype(str).str.strip()
    numbers = texts.str.extract(f"^{_QUARTERS}$", expand=False)
    if numbers.notna().all() and set(numbers) == set("1234") and len(set(texts.str[:4])) > 1:
        place = table.place_of(int(values.index[0]))
        rule = f"column {time!r} seems to hold quarters"
        got = f"{texts.iloc[0]!r} in {place}, which would be read as a month"
        remedy = "write 1990Q1, say, or init with --no-time"
        raise refusal(table.path, "data.time", rule, got, remedy)


def _free_name(table: RawTable) -> str:
    names = ("time", "datetime", "timestamp", "time_of_row")
    return next(name for name in names if name not in table.names)


def _refuse_ambiguous(table: RawTable, others: list[str | None], *, named: bool) -> None:
    """Refuse a column whose numbers are ambiguous, unless the user chose the columns.

    If the target is known by its name, an unknown unit in another column is no reason to refuse.
    """
    for name, ambiguity in table.ambiguous.items():
        if name in others or (named and ambiguity.kind == "unit"):
            continue
        key = "data.features" if named else "data.target"
        option = "--features" if named else "--target"
        table.check_certain(key, name, f"choose other columns with {option}")


def _refuse_texts(table: RawTable, kinds: dict[str, str], *, named: bool) -> None:
    """Refuse to guess a target if a column with a usual name holds unreadable numbers."""
    texts = [c for c, kind in kinds.items() if kind == "text" and c not in table.ambiguous]
    name = None if named else _first_named(texts)
    if name is None:
        return
    values = table.frame[name].dropna().astype(str)
    if values.str.contains(r"\d").mean() < 0.5:
        return
    bad = values[pd.to_numeric(values, errors="coerce").isna()]
    rule = (
        f"column {name!r} may be what is to be forecast, and is no number in "
        f"{table.place_of(int(bad.index[0]))}"
    )
    remedy = "write numbers there, or name what is forecast with --target"
    raise refusal(table.path, "data.target", rule, repr(bad.iloc[0]), remedy)


def _kind(column: pd.Series) -> str:
    values = column.dropna()
    values = values.iloc[:: max(1, len(values) // _VALUES_JUDGED)]
    if values.empty:
        return "nothing"
    numbers = pd.to_numeric(values.astype(object), errors="coerce")
    numeric = is_numeric_dtype(values) or numbers.notna().mean() >= _MOST
    if numeric:
        named = str(column.name).lower() in _TIME_NAMES and _are_times(values)
        unix = bool(set(_words_of(str(column.name))) & _TIME_WORDS) and _are_unix(numbers)
        return "times" if named or unix or _are_dates(numbers) else "numbers"
    return "times" if _say_a_year(values) and _are_times(values) else "text"


def _are_times(values: pd.Series) -> bool:
    times = as_times(values)
    return bool(times.notna().sum() - len(where_outside(times)) >= _MOST * len(times))


def _say_a_year(values: pd.Series) -> bool:
    """Return whether texts may hold a year, unlike sizes, scores and names of months.

    Versions such as 1.0.12 count as dates only if every one of them is a date.
    """
    if is_datetime64_any_dtype(values):
        return True
    texts = values.astype(str)
    if texts.str.fullmatch(_SHORT_DATE).mean() >= _MOST:
        return bool(texts.str.fullmatch(_SHORT_YEAR).all() and as_times(values).notna().all())
    digits = texts.str.count(r"\d")
    months = texts.str.contains(_MONTH_AND_YEAR)
    return bool(((digits >= _DIGITS_OF_A_DATE) | months).mean() >= _MOST)


def _are_unix(numbers: pd.Series) -> bool:
    return any(bool(numbers.between(3e8 * of, 1.9e9 * of).all()) for of in _UNIX_UNITS)


def _are_dates(numbers: pd.Series) -> bool:
    """Return whether all numbers are dates such as 20200131, or, if they never fall, 202001."""
    if numbers.nunique() < _FEWEST_DATES or numbers.isna().any() or (numbers % 1 != 0).any():
        return False
    texts = numbers.astype(np.int64).astype(str)
    layout = {6: "%Y%m", 8: "%Y%m%d"}.get(len(texts.iloc[0]))
    if layout is None or (layout == "%Y%m" and not numbers.is_monotonic_increasing):
        return False
    dates = pd.to_datetime(texts, format=layout, errors="coerce")
    return bool(dates.dt.year.between(1900, 2100).all())


def _guess_id(
    table: RawTable, time: str | None, others: list[str], kinds: dict[str, str]
) -> tuple[str | None, str]:
    """Return the column that identifies series or sequences, and the reason.

    If times repeat, it is the first column of ids by its name, else of texts, within whose values
    no time repeats. Without times it is a column of ids by its name whose rows stand together,
    if another column is a class by its name.
    """
    named = [c for c in others if _is_id_name(c)]
    if time is not None:
        if table.frame[time].duplicated().mean() < _AGAIN:
            return None, ""
        texts = [c for c in others if kinds.get(c) == "text" and c not in named]
        for c in [*named, *texts]:
            few = table.frame[c].nunique() <= len(table.frame) // _ROWS_OF_AN_ID
            if few and not table.frame.duplicated([time, c]).any():
                return c, "times come again, and with it they do not"
        _check_pairs(table, time, [*named, *texts])
        return None, ""
    if any(_is_class_name(c) for c in others):
        for c in named:
            codes, found = pd.factorize(table.frame[c])
            if 1 < len(found) == 1 + np.count_nonzero(np.diff(codes)) < len(codes):
                return c, "by its name, and its rows stand together"
    return None, ""


def _check_pairs(table: RawTable, time: str, columns: list[str]) -> None:
    """Refuse series that are identified by two columns together, and by neither alone."""
    for one, other in itertools.combinations(columns[:_MOST_OF_PAIRS], 2):
        groups = table.frame.groupby([one, other], observed=True).ngroups
        few = groups <= len(table.frame) // _ROWS_OF_AN_ID
        if few and not table.frame.duplicated([time, one, other]).any():
            got = f"{one!r} and {other!r}, which do it together"
            remedy = "write both into one column, and name that with --id"
            raise refusal(table.path, "data.id", "series are told apart by one column", got, remedy)


def _likely_id(frame: pd.DataFrame, kinds: dict[str, str], time: str | None) -> str | None:
    """Return a column that may identify series: by its name, else the first of texts."""
    if time in frame and not frame[time].duplicated().any():
        return None
    again = [c for c, kind in kinds.items() if kind in ("text", "numbers")]
    again = [c for c in again if 1 < frame[c].nunique() < len(frame)]
    named = [c for c in again if _is_id_name(c)]
    return next(iter(named), None) or next((c for c, k in kinds.items() if k == "text"), None)


def _guess_class(
    table: RawTable, id_: str, time: str | None, numbers: list[str], kinds: dict[str, str]
) -> tuple[str, str] | None:
    """Return the column of classes of sequences, and the reason.

    It has a usual name; without times, it may also be a text that is constant within each id and
    shared by several. None if there are times and a target by its name: that is a panel of series.
    """
    if time is not None and _first_named(numbers) is not None:
        return None
    columns = [c for c in table.names if c in kinds and c != time and kinds[c] != "times"]
    strings = table.raw_strings([id_, *columns])
    codes, ids = pd.factorize(strings[id_])
    last = None
    for c in columns:
        values, classes = pd.factorize(strings[c])
        if not 1 < len(classes) <= (len(codes) // 2 if kinds[c] == "text" else MOST_CLASSES):
            continue
        first = pd.Series(values).groupby(codes).transform("first")
        stays = bool((first == values).all()) and len(ids) > len(classes)
        if _is_class_name(c) and (stays or kinds[c] == "text"):
            what = "a class of each id" if stays else "a class of each row"
            return c, f"by its name, {what}"
        if kinds[c] == "text" and stays and time is None:
            last = c
    if last is None or _first_named(numbers) is not None:
        return None
    return last, "the text that stays the same within each id"


def _guess_target(path: Path, frame: pd.DataFrame, numbers: list[str]) -> tuple[str, str]:
    """Return the column with a usual name, else the last one, and the reason.

    Flags, numbers of the row, parts of the date and ids are chosen only if nothing else is left.
    """
    if numbers:
        kept = [c for c in numbers if frame[c].nunique() > 2] or numbers
        if (named := _first_named(c for c in kept if not _is_id_name(c))) is not None:
            return named, "by its name"
        kept = [c for c in kept if not (set(_words_of(c)) <= _CALENDAR or _is_id_name(c))] or kept
        kept = [c for c in kept if not _counts_rows(frame[c])] or kept
        if len(numbers) == 1:
            return kept[-1], "the only column of numbers"
        of = "" if kept[-1] == numbers[-1] else " that is no flag, id, date or count"
        return kept[-1], f"the last column of numbers{of}"
    columns = [str(c) for c in frame]
    texts = [c for c in columns if _kind(frame[c]) == "text"]
    if not texts:
        rule = "no column of numbers to forecast"
        raise refusal(path, "data.target", rule, ", ".join(columns), "add one")
    likeliest = max(texts, key=lambda c: frame[c].astype(str).str.contains(r"\d").mean())
    return likeliest, "no column holds numbers"


def _counts_rows(column: pd.Series) -> bool:
    return (
        is_numeric_dtype(column)
        and len(column) > 1
        and bool((column.astype(np.float64).diff().iloc[1:] == 1).all())
    )


def _known(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split())


# Whole words of names, without accents; the earlier ones say more.
_TARGETS = (
    _known("y target ziel zielwert cible objetivo obiettivo alvo doel 目标 目標 目标值"),
    _known(
        "sales sale sold demand load consumption revenue turnover quantity qty orders visitors",
        "passengers traffic units",
        "umsatz absatz verkauf verkaufe verkaeufe nachfrage verbrauch netzlast",
        "ventes vente demande consommation ventas demanda carga consumo vendas vendite domanda",
        "carico consumi verkoop omzet vraag verbruik satis talep sprzedaz popyt",
        "продажи спрос нагрузка потребление выручка",
        "销量 销售 销售量 销售额 需求 负荷 負荷 用电量 产量 客流",
        "売上 販売 需要 판매 매출 수요 부하",
    ),
    _known(
        "value values val price close power energy usage production output flow count",
        "wert werte preis leistung menge prix valeur puissance precio valor potencia preco prezzo",
        "valore prijs waarde cena wartosc цена значение",
        "值 数值 价格 收盘 收盘价 价 価格 終値 値 가격 종가 값",
    ),
)
# Targets that are something else as a word of a longer name: the last price, the overtime (OT).
_WHOLE_NAMES = frozenset({"last", "charge", "ot"})
# Words that make a name something else, though it has one of the above: `sales_lag_1`.
_NO_TARGETS = _known(
    "id code flag is has lag lagged lags prev previous last forecast predicted prediction pred",
    "yhat plan planned budget rank type tax factor limit",
)
_IDS = _known(
    "id ids uid uuid key series sequence seq store shop item sku product station sensor meter",
    "device machine unit household customer user patient subject session case sample trip asset",
    "region country city site location ticker symbol engine",
    "filiale geschaft artikel kunde magasin produit client tienda producto cliente loja produto",
    "negozio prodotto магазин товар",
    "编号 序列 门店 店铺 商品 站点 设备 店舗 매장 상품",
)
_CLASSES = _known(
    "class classes label labels category speaker species genre gesture activity diagnosis digit",
    "emotion sentiment outcome klasse kategorie sprecher classe categorie etiquette clase",
    "categoria etiqueta etichetta класс метка",
    "类别 标签 分类 類別 クラス ラベル 라벨 클래스",
)
_CALENDAR = _known(
    "year month day hour minute second week weekday dayofweek dayofyear quarter date time index",
    "jahr monat tag stunde woche quartal annee mois jour heure semaine ano mes dia hora semana",
    "年 月 日 时 周 季度",
)


def _words_of(name: str) -> list[str]:
    """Return the words of a name in lower case, without accents: daily, sales of `DailySales`."""
    plain = re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFKD", name.replace("ß", "ss")))
    plain = unicodedata.normalize("NFC", plain)  # the syllables of Hangul are letters again
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", plain)
    return re.findall(r"[^\W\d_]+|\d+", plain.lower())


def _first_named(names: Iterable[str]) -> str | None:
    """Return the most likely name of the target, else None; the earlier name breaks ties."""
    ranked = [(rank, at, name) for at, name in enumerate(names) if (rank := _rank(name))]
    return min(ranked)[2] if ranked else None


def _is_id_name(name: str) -> bool:
    return _has(_words_of(name), _IDS) and not _is_class_name(name)


def _is_class_name(name: str) -> bool:
    return _has(_words_of(name), _CLASSES)


def _rank(name: str) -> tuple[int, bool] | None:
    """Return how likely a name is that of the target, the smallest first; None for no target."""
    words = _words_of(name)
    whole = "".join(words)
    if whole in _WHOLE_NAMES:
        return 1, False
    if set(words) & _NO_TARGETS:
        return None
    for tier, known in enumerate(_TARGETS):
        if whole in known:
            return tier, False
        if _has([w for w in words if len(w) > 1], known):  # y is one as a whole name alone
            return tier, True
    return None


def _has(words: list[str], known: frozenset[str]) -> bool:
    """Return whether a word is known, or contains a known one in a script without blanks."""
    return any(
        word in known
        or (not word.isascii() and any(not k.isascii() and len(k) > 1 and k in word for k in known))
        for word in words
    )
