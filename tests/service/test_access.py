"""Tokens: made once, kept as hashes, asked for by every route but a few."""

import os
import re
import stat

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from tuner.cli.app import run
from tuner.errors import InputError
from tuner.service import access
from tuner.service.access import Access, Owner, TokenFile, hash_of, new_token
from tuner.service.problems import Problem, add_handlers
from tuner.service.settings import Limits


def test_a_file_of_tokens_holds_hashes_alone(tokens):
    path, given = tokens
    text = path.read_text()
    assert len(set(given.values())) == 4
    for token in given.values():
        assert re.fullmatch(r"tuner_[\w-]{43}", token)  # 32 random bytes
        assert token not in text
        assert token.removeprefix("tuner_") not in text
        assert hash_of(token) in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_token_is_known_by_owner_and_role(tokens):
    path, given = tokens
    file = TokenFile(path)
    for (owner, role), token in given.items():
        assert file.owner(token) == Owner(owner, role)
    for wrong in ("", "tuner_", token[:-1], token + "x", token.lower(), hash_of(token)):
        assert file.owner(wrong) is None


def test_tokens_are_compared_in_constant_time(tokens, monkeypatch):
    path, given = tokens
    monkeypatch.setattr(access, "_DIGITS", 0)  # as if all began alike
    compared = []
    same = access.hmac.compare_digest
    monkeypatch.setattr(
        access.hmac, "compare_digest", lambda a, b: compared.append(a) or same(a, b)
    )
    file = TokenFile(path)
    for token in (*given.values(), "unknown"):
        compared.clear()
        file.owner(token)
        assert len(compared) == len(given)  # the first that fits does not end it


def test_a_token_has_the_limits_that_the_file_sets(tokens):
    path, given = tokens
    text = path.read_text().replace("role: read", "role: read\n  limits: {workers: 2}", 1)
    path.write_text(text)
    file = TokenFile(path, Limits(streams=7))
    assert file.owner(given["ana", "read"]).limits == Limits(streams=7, workers=2)
    assert file.owner(given["ana", "write"]).limits == Limits(streams=7)
    assert file.limits_of("ana") == Limits(streams=7, workers=2)
    assert file.limits_of("ben") == file.limits_of("nobody") == Limits(streams=7)
    new_token(path, "eve", "read")
    assert TokenFile(path).owner(given["ana", "read"]).limits == Limits(workers=2)


def test_a_changed_file_of_tokens_is_read_again(tokens, monkeypatch, caplog):
    monkeypatch.setattr(access, "_CHECKED_EVERY_S", 0)
    path, given = tokens
    file = TokenFile(path)
    added = new_token(path, "eve", "read")
    assert file.owner(added) == Owner("eve", "read")
    rows = path.read_text()
    path.write_text("tokens: [")  # half written
    assert file.owner(added) == Owner("eve", "read")
    assert "the tokens stay as they were" in caplog.text
    path.write_text(rows.replace(hash_of(added), "ab" * 32))
    assert file.owner(added) is None
    assert file.owner(given["ana", "read"]) is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; write `key: value` lines"),
        ("tokens: 3", "tokens: must be a list, got 3; change it"),
        ("tokens: [{owner: a/b, role: read, sha256: SHA}]", "tokens.0.owner: "),
        ("tokens: [{owner: .., role: read, sha256: SHA}]", "tokens.0.owner: "),
        ("tokens: [{owner: a, role: admin, sha256: SHA}]", "tokens.0.role: "),
        ("tokens: [{owner: a, role: read, sha256: a}]", "tokens.0.sha256: "),
        ("tokens: [{owner: a, role: read, token: a}]", "tokens.0."),
        ("tokens: [{owner: a, role: read, sha256: SHA, limits: {workers: 0}}]", "limits.workers"),
        ("tokens: [{owner: a, role: read, sha256: SHA, limits: {cpus: 1}}]", "limits.cpus"),
    ],
)
def test_a_file_of_tokens_that_breaks_a_rule_is_refused(text, message, tmp_path):
    path = tmp_path / "tokens.yaml"
    path.write_text(text.replace("SHA", "ab" * 32))
    with pytest.raises(InputError) as refused:
        TokenFile(path)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "tokens.yaml" in str(refused.value)


def test_a_file_of_tokens_that_others_may_change_is_refused(tokens, tmp_path):
    path, _ = tokens
    for mode in (0o620, 0o602):
        path.chmod(mode)
        with pytest.raises(InputError, match="others may write to it; run chmod 600"):
            TokenFile(path)
    path.chmod(0o440)  # as a cluster mounts a secret
    TokenFile(path)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        TokenFile(tmp_path / "other.yaml")
    with pytest.raises(InputError, match="must be a file"):
        TokenFile(tmp_path)


def test_a_file_of_tokens_of_another_user_is_refused(tokens, monkeypatch):
    path, _ = tokens
    me = os.getuid()
    if me == 0:
        os.chown(path, 1234, -1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: me + 1)
    with pytest.raises(InputError, match="belongs to another user"):
        TokenFile(path)


@pytest.mark.parametrize("owner", ["", "A", "a b", "../x", "a/b", "-a", "a" * 64, "a\n", "ä", "."])
def test_a_token_needs_an_owner_that_can_name_a_folder(owner, tmp_path):
    with pytest.raises(InputError, match="OWNER"):
        new_token(tmp_path / "tokens.yaml", owner, "read")
    assert list(tmp_path.iterdir()) == []


def test_a_header_without_a_known_token_is_refused(tokens):
    path, given = tokens
    access_ = Access(TokenFile(path))
    token = given["ana", "write"]
    assert access_.owner(f"Bearer {token}") == Owner("ana", "write")
    assert access_.owner(f"bearer {token}") == Owner("ana", "write")
    for header in (
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        token,
        f"Basic {token}",
        "Bearer ä",
    ):
        with pytest.raises(Problem) as refused:
            access_.owner(header)
        assert refused.value.status == 401
        assert refused.value.headers["WWW-Authenticate"].startswith("Bearer")
    assert Access().owner(None) == Owner("local", "write")


def test_a_role_has_its_routes_and_no_others(tokens):
    path, given = tokens
    given["ana", "worker"] = new_token(path, "ana", "worker")
    app = FastAPI()
    app.state.access = Access(TokenFile(path))
    add_handlers(app)
    for name in ("Anyone", "Reader", "Writer", "WorkerCaller"):

        def route(owner: getattr(access, name)) -> str:
            return owner.name

        app.get(f"/{name}")(route)
    client = TestClient(app)
    allowed = {
        role: [
            name
            for name in ("Anyone", "Reader", "Writer", "WorkerCaller")
            if client.get(
                f"/{name}", headers={"Authorization": f"Bearer {given['ana', role]}"}
            ).status_code
            == 200
        ]
        for role in ("read", "write", "worker")
    }
    assert allowed == {
        "read": ["Anyone", "Reader"],
        "write": ["Anyone", "Reader", "Writer", "WorkerCaller"],
        "worker": ["Anyone", "WorkerCaller"],
    }
    refused = client.get("/Writer", headers={"Authorization": f"Bearer {given['ana', 'read']}"})
    assert (refused.status_code, refused.json()["detail"]) == (
        403,
        "this token may only read; use one with --role write",
    )


def test_a_caller_is_shown_whose_token_it_has(guarded, as_):
    answer = guarded.get("/v1/me", headers=as_("ana", "read"))
    assert answer.status_code == 200
    assert (answer.json()["owner"], answer.json()["role"]) == ("ana", "read")
    assert answer.json()["limits"]["body_bytes"] == 262144
    assert guarded.get("/v1/me").status_code == 401
    assert guarded.get("/health").json() == {"status": "ok"}


def test_a_token_that_sees_nothing_is_noted(tmp_path, capsys):
    path = tmp_path / "tokens.yaml"
    asked = ["token", "bob", "--tokens", str(path), "--role"]
    said = []
    for role in ("read", "write", "read"):
        assert run([*asked, role]) == 0
        said.append(capsys.readouterr().err)
    assert "bob has no token that may write, so there is nothing to read" in said[0]
    assert "note" not in said[1] + said[2]
    assert path.read_text().count("role: read") == 2
