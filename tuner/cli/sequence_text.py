"""The experiment file of independent sequences, as `tuner init` writes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tuner.cli.sequence_plan import SequencePlan
from tuner.cli.yaml_text import commented, flow_list, flow_map, quoted

__all__ = ["SequenceColumns", "sequence_text"]


@dataclass(frozen=True)
class SequenceColumns:
    """The columns, and what of the data key is already decided."""

    title: list[str]  # of the file: comments at its head
    name: str
    path: str
    read: dict[str, Any]  # how the file is written
    time: str | None
    id: str
    why_id: str
    why_target: str
    target: str
    features: list[str]
    kind: str


def sequence_text(columns: SequenceColumns, plan: SequencePlan) -> str:
    """Return the file."""
    metrics = dict.fromkeys(("regress", "regress_steps"), "rmse, mae, mape, smape, mase, r2")
    return "\n".join(
        [
            *[f"# {line}" for line in columns.title],
            f"name: {columns.name}",
            "data:",
            f"  path: {columns.path}",
            *([f"  read: {flow_map(columns.read)}"] if columns.read else []),
            *([f"  time: {quoted(columns.time)}"] if columns.time is not None else []),
            commented(f"  id: {quoted(columns.id)}", columns.why_id),
            commented(f"  target: {quoted(columns.target)}", columns.why_target),
            f"  features: {flow_list(columns.features)}",
            commented(
                "  split: {validation: 0.2, test: 0.15, seed: 0}",
                "drawn" if columns.kind != "classify" else "drawn, each class its share",
            ),
            commented("  scale: standard", "standard, minmax, none"),
            f"task: {{kind: {columns.kind}}}",
            commented("hyperparameters:", "fixed; of what is searched, where it starts"),
            *_fixed(plan, columns.kind),
            "search_space:",
            *_space(plan),
            commented("strategy: {name: tpe}", "tuner strategies lists them"),
            f"budget: {{trials: {plan.trials}, epochs: {plan.epochs}, patience: {plan.patience}}}",
            commented(
                f"pruner: {{name: median, n_startup_trials: {plan.startup}, "
                f"n_warmup_steps: {plan.warmup}}}",
                "ends poor trials",
            ),
            commented(
                f"objective: {{metric: {plan.metric}}}",
                metrics.get(columns.kind, "accuracy, f1, auroc, cross_entropy"),
            ),
            commented(
                f"finalists: {{top: 3, repeats: {plan.repeats}}}",
                "five can tell luck from a gain, and take longer",
            ),
            "seed: 0",
            "",
        ]
    )


def _fixed(plan: SequencePlan, kind: str) -> list[str]:
    begins = "a ridge regression" if kind == "regress" else "a logistic regression"
    lines = [
        *(
            [commented("  linear_path: true", f"begins as {begins}; the layers learn the rest")]
            if plan.linear_paths
            else []
        ),
        commented("  bidirectional: true", "a sequence is known to its end"),
        commented("  optimizer: adamw", "its weight_decay is searched"),
        commented("  schedule: cosine", "the learning rate falls to 0 over budget.epochs"),
        "  learning_rate: 0.005",
        "  weight_decay: 0.01",
    ]
    for name, values, why in (
        ("segment", plan.segments, "steps that are read as one"),
        ("conv_channels", plan.channels, "a convolution sees what neighbouring steps do"),
    ):
        if values not in ((0,), (1,)):
            lines.append(commented(f"  {name}: {values[len(values) // 2]}", why))
    return lines


def _space(plan: SequencePlan) -> list[str]:
    (least, most), (slow, fast) = plan.hidden_sizes, plan.learning_rates
    lines = [
        f"  hidden_size: {{type: int, low: {least}, high: {most}, log: true}}",
        "  dropout: {type: float, low: 0.0, high: 0.5}",
        f"  learning_rate: {{type: float, low: {slow:g}, high: {fast:g}, log: true}}",
        "  weight_decay: {type: float, low: 0.0001, high: 0.3, log: true}",
        _choices("batch_size", plan.batch_sizes),
    ]
    if len(plan.linear_paths) > 1:
        lines.append(_choices("linear_path", plan.linear_paths))
    if plan.poolings:
        lines.append(_choices("pooling", plan.poolings))
    if len(plan.segments) > 1:
        lines.append(_choices("segment", plan.segments))
    if len(plan.channels) > 1:
        lines.append(_choices("conv_channels", plan.channels))
    return lines


def _choices(name: str, values: tuple[int, ...] | tuple[str, ...] | tuple[bool, ...]) -> str:
    return f"  {name}: {{type: categorical, choices: {flow_list(values)}}}"
