"""A small file, and an experiment on it that a service trains within seconds."""

import hashlib

ROWS = "y\n" + "".join(f"{10 + i % 7}\n" for i in range(90))
SHA256 = hashlib.sha256(ROWS.encode()).hexdigest()
EXPERIMENT = {
    "name": "small",
    "data": {"path": f"dataset:{SHA256}", "target": "y"},
    "task": {"window": 6},
    "hyperparameters": {"hidden_size": 4},
    "search_space": {"learning_rate": {"type": "float", "low": 0.001, "high": 0.1}},
    "strategy": {"name": "random"},
    "budget": {"trials": 4, "epochs": 2},
    "pruner": {"name": "none"},
    "finalists": {"top": 0},
}
