"""Who calls: owners, their tokens, and the dependencies of routes that ask for one.

An owner is a namespace. A token belongs to one owner, and reads or also writes. Tokens are random,
256 bits; the file of tokens has their SHA-256 alone, so a slow hash would add nothing.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from tuner.errors import InputError
from tuner.experiment.messages import first_problem
from tuner.experiment.yaml_files import dump_yaml, read_mapping
from tuner.outputs import exclusive_lock, written_whole
from tuner.service.problems import Problem
from tuner.service.settings import Limits, Settings

Role = Literal["read", "write", "worker"]
"""What a token may do: look; change things too; run the trials of all owners and nothing else."""

OWNER = r"[a-z0-9][a-z0-9_-]{0,62}"
"""Names of owners; they are names of folders too."""

PREFIX = "tuner_"
"""How a token begins: people and scanners of secrets recognize it."""

_CHECKED_EVERY_S = 1.0
_DIGITS = 3  # of a hash, by which tokens are indexed
_log = logging.getLogger("tuner.service")


@dataclass(frozen=True)
class Owner:
    """Who calls."""

    name: str
    """The namespace."""

    role: Role = "write"
    limits: Limits = field(default_factory=Limits)


LOCAL = "local"
"""The only owner of a service without tokens."""

ANYBODY = Owner("", "read")
"""Who sends requests that need no token; no owner has this name."""

_Whole = Annotated[int, Field(ge=1, strict=True)]


class _Limits(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    trials: _Whole | None = None
    studies_queued: _Whole | None = None
    studies_open: _Whole | None = None
    streams: _Whole | None = None
    requests: _Whole | None = None
    workers: _Whole | None = None
    upload_bytes: _Whole | None = None
    dataset_bytes: _Whole | None = None


class _Token(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    owner: Annotated[str, StringConstraints(pattern=rf"^{OWNER}$")]
    role: Role
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    created: str | None = None
    limits: _Limits = _Limits()


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: list[_Token]


def hash_of(token: str) -> str:
    """Return what the file of tokens has of a token: its SHA-256, in hexadecimal digits."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


class TokenFile:
    """The file of tokens, read again when it changes.

    Args:
        path: the file, in YAML.
        limits: of owners for whom the file sets none.

    Raises:
        InputError: it is missing, breaks a rule, or others may write to it.
    """

    def __init__(self, path: Path, limits: Limits | None = None) -> None:
        self._path, self._default = path, limits or Limits()
        self._checked = time.monotonic()
        self._facts = _check_rights(path)
        self._owners = dict[str, list[tuple[str, Owner]]]()  # by the first digits of the hash
        self._limits = dict[str, Limits]()  # by owner
        self._read()

    def owner(self, token: str) -> Owner | None:
        """Return whose token it is; None for an unknown one. Compares in constant time.

        The time depends on the first digits of the SHA-256 alone, which nobody can aim at.
        """
        self._reread()
        hashed, found = hash_of(token), None
        for known, owner in self._owners.get(hashed[:_DIGITS], ()):
            if hmac.compare_digest(known, hashed):
                found = owner
        return found

    def limits_of(self, owner: str) -> Limits:
        """Return the limits of an owner, of the first of its tokens in the file."""
        self._reread()
        return self._limits.get(owner, self._default)

    def _reread(self) -> None:
        if time.monotonic() - self._checked < _CHECKED_EVERY_S:
            return
        self._checked = time.monotonic()
        try:
            if (facts := _check_rights(self._path)) != self._facts:
                self._read()
                self._facts = facts
                _log.info("the file of tokens has changed, and is read again")
        except InputError as error:  # an editor writes it right now, say
            _log.error("the tokens stay as they were: %s", error)

    def _read(self) -> None:
        owners, limits = dict[str, list[tuple[str, Owner]]](), dict[str, Limits]()
        for token in _parse(self._path).tokens:
            given = token.limits.model_dump(exclude_none=True)
            owner = Owner(token.owner, token.role, dataclasses.replace(self._default, **given))
            owners.setdefault(token.sha256[:_DIGITS], []).append((token.sha256, owner))
            limits.setdefault(owner.name, owner.limits)
        self._owners, self._limits = owners, limits


def _check_rights(path: Path) -> tuple[int, ...]:
    """Return facts that change with the file; refuse one that another user may change."""
    try:
        facts = path.stat()
    except OSError as error:
        rule = f"cannot be read: {error.strerror}"
        remedy = f"create it with tuner token NAME --tokens {path}"
        raise InputError(rule, where=path, remedy=remedy) from None
    if not stat.S_ISREG(facts.st_mode):
        raise InputError("must be a file", where=path, remedy="check --tokens")
    if facts.st_uid not in (0, os.getuid()):
        raise InputError("belongs to another user", where=path, remedy="chown it to yourself")
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        rule = "others may write to it"
        raise InputError(rule, where=path, remedy=f"run chmod 600 {path}")
    return (facts.st_ino, facts.st_mtime_ns, facts.st_size)


def _parse(path: Path) -> _File:
    raw = read_mapping(path, "file of tokens")
    try:
        return _File.model_validate(raw)
    except ValidationError as error:
        raise first_problem(error).with_(where=str(path)) from None


def new_token(path: Path, owner: str, role: Role) -> str:
    """Add a token to a file, which is created with mode 0600 if necessary; return the token.

    Raises:
        InputError: the name of the owner breaks a rule, or the file does.
        RunError: the file cannot be written.
    """
    if not re.fullmatch(OWNER, owner):
        rule = "must be a-z, 0-9, _ and -, at most 63 characters, a letter or digit first"
        raise InputError(rule, where="OWNER", got=repr(owner))
    token = PREFIX + secrets.token_urlsafe(32)
    if not path.parent.is_dir():
        remedy = "create the folder first"
        raise InputError("must be in an existing folder", where="--tokens", got=path, remedy=remedy)
    with exclusive_lock(path.with_name(f".{path.name}.lock")):
        tokens: list[object] = []
        if path.exists():
            _check_rights(path)
            tokens = _parse(path).model_dump(exclude_unset=True)["tokens"]
        created = dt.datetime.now(dt.UTC).date().isoformat()
        row = {"owner": owner, "role": role, "sha256": hash_of(token), "created": created}
        _write(path, dump_yaml({"tokens": [*tokens, row]}))
    return token


def roles_of(path: Path, owner: str) -> set[Role]:
    """Return the roles of an owner's tokens in a file; raises as `new_token` does."""
    return {token.role for token in _parse(path).tokens if token.owner == owner}


def _write(path: Path, text: str) -> None:
    with written_whole(path) as new:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())


class Access:
    """Who may call the service.

    Args:
        tokens: None where everybody who reaches the service is the owner `local`.
        limits: of the owner `local`.
    """

    def __init__(self, tokens: TokenFile | None = None, limits: Limits | None = None) -> None:
        self._tokens = tokens
        self._local = Owner(LOCAL, "write", limits or Limits())

    @classmethod
    def of(cls, settings: Settings) -> Access:
        """Return who may call a service with these settings; raises as `TokenFile` does."""
        limits = settings.limits
        return cls(TokenFile(settings.tokens, limits) if settings.tokens else None, limits)

    def limits_of(self, owner: str) -> Limits:
        """Return the limits of an owner, as `TokenFile.limits_of` does. Any thread may ask."""
        return self._local.limits if self._tokens is None else self._tokens.limits_of(owner)

    @property
    def needs_token(self) -> bool:
        """Whether a request needs a token."""
        return self._tokens is not None

    def owner(self, authorization: str | None) -> Owner:
        """Return who calls, from the header `Authorization`.

        Raises:
            Problem: 401 where a token is needed and a known one is missing.
        """
        if self._tokens is None:
            return self._local
        scheme, _, token = (authorization or "").partition(" ")
        if not token:
            raise _unauthorized("a token is missing; send the header Authorization: Bearer TOKEN")
        if scheme.lower() != "bearer":
            raise _unauthorized("the header Authorization must be Bearer TOKEN")
        if (owner := self._tokens.owner(token.strip())) is None:
            raise _unauthorized("the token is unknown; tuner token makes one")
        return owner


def _unauthorized(detail: str) -> Problem:
    return Problem(401, detail, headers={"WWW-Authenticate": 'Bearer realm="tuner"'})


def caller(request: Request) -> Owner:
    """Return who sent a request, and may read.

    Raises:
        Problem: 401, see `Access.owner`; 403 for the token of a worker.
    """
    owner = _authenticated(request)
    if owner.role == "worker":
        raise Problem(403, "this token is for tuner worker; use one with --role read or write")
    return owner


def _authenticated(request: Request) -> Owner:
    known = request.scope.get("tuner.owner")
    if isinstance(known, Owner):  # the guard has authenticated the request
        return known
    access: Access = request.app.state.access
    return access.owner(request.headers.get("authorization"))


_bearer = HTTPBearer(auto_error=False, description="A token of `tuner token`.")
_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


async def anyone(request: Request, _: _Credentials) -> Owner:
    """Return the caller, with any role: for routes that show nothing of an owner's."""
    return _authenticated(request)


async def reader(request: Request, _: _Credentials) -> Owner:
    """Return the caller, who may read: a dependency of every route but those without a token."""
    return caller(request)


async def writer(request: Request, _: _Credentials) -> Owner:
    """Return the caller, who may change something: a dependency of routes that do.

    Raises:
        Problem: 403 where the token may not.
    """
    owner = caller(request)
    if owner.role != "write":
        raise Problem(403, "this token may only read; use one with --role write")
    return owner


async def worker(request: Request, _: _Credentials) -> Owner:
    """Return the caller, who runs trials: of all owners with the role worker, else of its own.

    Raises:
        Problem: 403 where the token may only read.
    """
    owner = _authenticated(request)
    if owner.role == "read":
        raise Problem(403, "this token may only read; use one with --role worker")
    return owner


Anyone = Annotated[Owner, Depends(anyone)]
Reader = Annotated[Owner, Depends(reader)]
Writer = Annotated[Owner, Depends(writer)]
WorkerCaller = Annotated[Owner, Depends(worker)]
