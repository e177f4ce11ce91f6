"""Rules of cells of one's own: which hyperparameters they have, and which ranges they declare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuner.errors import nearest
from tuner.experiment.cells import Cell, Key, cell_of
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.experiment.space import Domain

if TYPE_CHECKING:
    from tuner.experiment.schema import Experiment

__all__ = ["check_own_cells", "check_own_domain", "own_keys"]

_OF_THE_MODEL = (
    "nonlinearity", "hidden_size", "num_layers", "dropout", "bidirectional", "bias", "proj_size",
    "pooling", "decoder", "linear_path", "segment", "conv_channels", "conv_kernel",
    "embedding_size",
)  # fmt: skip
_NOT_OF_A_LAYER = {
    "decoder": ("direct", "a decoder begins with a state, and a layer of one's own puts out none"),
    "bias": (True, "is of tuner's own cells"),
}


def own_keys(experiment: Experiment) -> dict[str, list[Key]]:
    """Return what cells of one's own declare, by name; two cells may declare the same name."""
    found: dict[str, list[Key]] = {}
    for cell in experiment.cells:
        for name, key in cell.keys.items():
            found.setdefault(name, []).append(key)
    return found


def check_own_domain(key: str, domain: Domain, declared: list[Key]) -> None:
    """Refuse a domain of which a value lies outside of what a cell declares."""
    for value in domain.bounds():
        for each in declared:
            if value not in each.range:
                raise ValueError(
                    f"{key}: every value must lie in what its cell declares, {each.said}, got "
                    f"{value!r}; change it"
                )


def check_own_cells(experiment: Experiment) -> None:
    """Refuse keys that a cell of one's own does not declare, and what does not go with it."""
    fixed = experiment.hyperparameters
    _check_fixed(experiment, cell_of(experiment.cells, fixed.cell))
    if not experiment.cells:
        return
    domain = experiment.search_space.get("cell")
    names = domain.bounds() if domain else (fixed.cell,)
    cells = [cell_of(experiment.cells, name) for name in names]
    for cell in cells:
        if cell is not None and not cell.whole:
            for name, (only, why) in _NOT_OF_A_LAYER.items():
                _refuse(experiment, name, only, why, cell)
        elif cell is not None:
            text = "adds to tuner's own layers"
            _refuse(experiment, "linear_path", False, text, cell)
    if all(cell is not None and cell.whole for cell in cells):
        taken = {name for cell in cells if cell is not None for name in cell.takes}
        taken |= {"embedding_size"} if experiment.data.categories else set()
        for name in _OF_THE_MODEL:
            searched = [n for n in experiment.search_space if n == name or _is_width_of(n, name)]
            if name not in taken and (searched or name in fixed.model_fields_set - {"cell"}):
                where = f"search_space.{searched[0]}" if searched else f"hyperparameters.{name}"
                value = experiment.given(name)
                if searched or value != Hyperparameters.model_fields[name].default:
                    raise ValueError(
                        f"{where}: {names[0]} is a whole model and does not take it, got "
                        f"{value!r}; remove it"
                    )


def _is_width_of(searched: str, name: str) -> bool:
    return name == "hidden_size" and searched.startswith("hidden_size_")


def _check_fixed(experiment: Experiment, cell: Cell | None) -> None:
    """Check the keys that are fixed beside tuner's own."""
    declared = {} if cell is None else cell.keys
    for name, value in (experiment.hyperparameters.model_extra or {}).items():
        if name not in declared:
            known = nearest(name, [*declared, *Hyperparameters.model_fields])
            raise ValueError(f"hyperparameters.{name}: unknown key {name!r}{known}")
        if value not in declared[name].range:
            raise ValueError(
                f"hyperparameters.{name}: must lie in what its cell declares, "
                f"{declared[name].said}, got {value!r}; change it"
            )


def _refuse(experiment: Experiment, name: str, only: Any, why: str, cell: Cell) -> None:
    """Refuse any value but one of a hyperparameter, fixed or searched."""
    domain = experiment.search_space.get(name)
    for value in domain.bounds() if domain else (getattr(experiment.hyperparameters, name),):
        if value != only:
            where = "search_space" if domain else "hyperparameters"
            text = f"{why}, got {value!r} with {cell.name}; remove it"
            raise ValueError(f"{where}.{name}: {text}")
