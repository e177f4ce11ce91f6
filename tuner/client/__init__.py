"""The client of a service: searches on its machine, and models that train elsewhere.

It talks to `tuner serve` over HTTP and imports nothing of the service.
"""

from tuner.client.client import Client, Dataset
from tuner.client.connection import RefusedError, ServiceError
from tuner.client.external import ExternalStudy, ExternalTrial, ObjectiveError, Pruned
from tuner.client.study import RemoteStudy

__all__ = [
    "Client",
    "Dataset",
    "ExternalStudy",
    "ExternalTrial",
    "ObjectiveError",
    "Pruned",
    "RefusedError",
    "RemoteStudy",
    "ServiceError",
]
