"""What columns are usually called, in several languages: the quantity to predict, ids, classes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

__all__ = [
    "first_named",
    "is_calendar_name",
    "is_class_name",
    "is_id_name",
    "words_of",
]


def _known(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split())


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
"""Whole words of names, without accents; the earlier ones say more."""

_WHOLE_NAMES = frozenset({"last", "charge", "ot"})
"""Targets that are something else as a word of a longer name: the last price, the overtime (OT)."""

_NO_TARGETS = _known(
    "id code flag is has lag lagged lags prev previous last forecast predicted prediction pred",
    "yhat plan planned budget rank type tax factor limit",
)
"""Words that make a name something else, though it has one of the above: `sales_lag_1`."""

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


def words_of(name: str) -> list[str]:
    """Return the words of a name in lower case, without accents: daily, sales of `DailySales`."""
    plain = "".join(
        c for c in unicodedata.normalize("NFKD", name.replace("ß", "ss")) if not _is_accent(c)
    )
    plain = unicodedata.normalize("NFC", plain)  # the syllables of Hangul are letters again
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", plain)
    return re.findall(r"[^\W\d_]+|\d+", plain.lower())


def first_named(names: Iterable[str]) -> str | None:
    """Return the name that most likely is of the quantity to predict; None where none is.

    Args:
        names: in the order of the file, which decides between equals.
    """
    ranked = [(rank, at, name) for at, name in enumerate(names) if (rank := _rank(name))]
    return min(ranked)[2] if ranked else None


def is_id_name(name: str) -> bool:
    """Say whether a name is of a column that tells series, or sequences, apart."""
    return _has(words_of(name), _IDS) and not is_class_name(name)


def is_class_name(name: str) -> bool:
    """Say whether a name is of a column of classes."""
    return _has(words_of(name), _CLASSES)


def is_calendar_name(name: str) -> bool:
    """Say whether a name is of a part of the date, or of a count of the rows."""
    return set(words_of(name)) <= _CALENDAR


def _is_accent(character: str) -> bool:
    return "\u0300" <= character <= "\u036f"


def _rank(name: str) -> tuple[int, bool] | None:
    words = words_of(name)
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
    """Say whether one of the words is known; a script without blanks has words within words."""
    return any(
        word in known
        or (not word.isascii() and any(not k.isascii() and len(k) > 1 and k in word for k in known))
        for word in words
    )
