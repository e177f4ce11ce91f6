"""What the service is started with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """What an owner may use. A file of tokens may set it for each token."""

    body_bytes: int = 256 * 1024
    """Bytes of a JSON body, as sent."""

    upload_bytes: int = 1 << 30
    """Bytes of an uploaded data file."""

    dataset_bytes: int = 20 << 30
    """Bytes of an owner's data files together."""

    rows: int = 10_000_000
    """Rows of a data file."""

    columns: int = 2_000
    """Columns of a data file."""

    trials: int = 100_000
    """Trials of a study."""

    studies_queued: int = 1_000
    """Studies of an owner that have not ended."""

    studies_open: int = 256
    """External studies of an owner that are open at a time: each has a thread and two files."""

    streams: int = 250
    """Event streams that an owner has open at a time."""

    requests: int = 2_000
    """Requests that an owner has open at a time, event streams included."""

    workers: int | None = None
    """Workers that an owner's studies may use at a time; None: all of them."""


@dataclass(frozen=True)
class Settings:
    """The options of `tuner serve`, checked."""

    root: Path = Path("tuner-service")
    """The folder in which the service keeps everything, mode 0700."""

    host: str = "127.0.0.1"
    """The address that the service binds."""

    port: int = 8080
    """The TCP port; 0: any free one."""

    workers: int | None = None
    """Trials at a time in this process's workers; None: one per core; 0: pull workers alone."""

    executor: str = "local"
    """Where trials run: local, ray or ray://HOST:PORT."""

    journal: str | None = None
    """URL of the database with all journals; None: files in `root`."""

    tokens: Path | None = None
    """The file of tokens; None: one owner, `local`, who needs none."""

    allow_code: bool = False
    """Whether experiments may name cells and metrics in the server's folder."""

    allow_hosts: tuple[str, ...] = ()
    """Names of this server in a Host header, besides those of loopback and `host`."""

    public_url: str | None = None
    """URL of the reverse proxy that clients use."""

    limits: Limits = field(default_factory=Limits)
