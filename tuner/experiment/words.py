"""What articles call things, and the key that each of them is here: see docs/articles.md."""

from __future__ import annotations

import re

__all__ = ["GENERATIONS", "WORDS", "key_meant"]

WORDS: dict[str, tuple[str, ...]] = {
    "budget.epochs": ("epochs", "n_epochs", "num_epochs", "max_epochs", "training_epochs"),
    "budget.trials": ("trials", "n_trials", "evaluations", "max_evals"),
    "budget.patience": ("patience", "early_stopping", "early_stopping_patience"),
    "strategy.population": (
        *("population_size", "pop_size", "swarm_size", "swarm", "particles", "n_particles"),
        *("num_particles", "whales", "n_whales", "search_agents", "agents", "individuals"),
    ),
    "strategy.inertia": ("inertia_weight", "w", "omega"),
    "strategy.c1": ("cognitive", "cognitive_coefficient", "phi_p"),
    "strategy.c2": ("social", "social_coefficient", "phi_g"),
    "strategy.velocity_clamp": ("v_max", "vmax", "max_velocity"),
    "hyperparameters.hidden_size": (
        *("neurons", "units", "n_units", "num_units", "lstm_units", "hidden_units", "nodes"),
        *("hidden_nodes", "hidden_neurons", "hidden_dim"),
    ),
    "hyperparameters.num_layers": ("layers", "n_layers", "hidden_layers", "lstm_layers", "depth"),
    "hyperparameters.dropout": ("dropout_rate", "drop_rate"),
    "hyperparameters.learning_rate": ("lr", "alpha", "eta", "step_size", "initial_learning_rate"),
    "hyperparameters.batch_size": ("batch", "mini_batch", "minibatch_size"),
    "hyperparameters.weight_decay": ("l2", "regularization", "lambda"),
    "hyperparameters.gradient_clip": ("clipnorm", "gradient_threshold", "clip"),
    "task.window": (
        *("look_back", "lookback", "timesteps", "time_steps", "n_steps", "sequence_length"),
        *("seq_len", "window_size", "input_length", "lag", "history"),
    ),
    "task.horizon": ("forecast_horizon", "steps_ahead", "n_ahead", "prediction_length", "pred_len"),
    "data.scale": ("normalization", "scaler", "scaling", "standardize"),
    "data.split.test": ("test_size", "test_split", "test_ratio"),
    "data.split.validation": ("validation_split", "val_split", "validation_size", "val_size"),
    "objective.metric": ("fitness", "fitness_function", "objective_function"),
}
"""Words of articles by the dotted key that says the same."""

GENERATIONS = ("iterations", "n_iterations", "max_iter", "max_iterations", "generations")
"""These are not written: trials are as many as generations times population."""


def key_meant(word: str) -> str | None:
    """Return what a word of articles is here, in a remedy's words; None where it is none."""
    plain = re.sub(r"[\s-]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", word)).lower()
    if plain in GENERATIONS:
        return "write budget.trials: as many as generations times strategy.population"
    found = next((key for key, words in WORDS.items() if plain in words), None)
    return None if found is None else f"did you mean {found}?"
