"""The configurations of proxies in `deploy/`, run with TLS in front of a service."""

import contextlib
import datetime as dt
import hashlib
import ipaddress
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from helpers.ports import free_port
from helpers.postgresql import skip_without

DEPLOY = Path(__file__).parents[2] / "deploy"
NAME = "tuner.example.com"
SOON_S = 60

pytestmark = [pytest.mark.slow, pytest.mark.real_processes]


@contextlib.contextmanager
def running(command, **keys):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **keys)
    try:
        yield process
    finally:
        process.terminate()
        out, _ = process.communicate(timeout=20)
        print(out.decode(errors="replace"))


def binary(name):
    path = shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/bin")
    if path is None:
        skip_without(name, f"{name} is not installed")
    return path


def certificate(folder):
    """Write a certificate of its own for the name, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    written, private = folder / "certificate.pem", folder / "key.pem"
    written.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    encoding = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(*encoding, serialization.NoEncryption()))
    return written, private


def changed(text, *changes):
    """Change what a test must: ports, and where the certificate is."""
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def caddy(folder, port, behind):
    certificate_, key = certificate(folder)
    text = changed(
        (DEPLOY / "Caddyfile").read_text(),
        (f"{NAME} {{", f"https://{NAME}:{port} {{\n\ttls {certificate_} {key}"),
        ("127.0.0.1:8080", f"127.0.0.1:{behind}"),
    )
    options = "{\n\tadmin off\n\tauto_https off\n\tskip_install_trust\n}\n"
    (folder / "Caddyfile").write_text(options + text)
    command = [
        binary("caddy"),
        "run",
        "--config",
        str(folder / "Caddyfile"),
        "--adapter",
        "caddyfile",
    ]
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with running(command, env=home):
        yield certificate_


@contextlib.contextmanager
def nginx(folder, port, behind):
    certificate_, key = certificate(folder)
    site = changed(
        (DEPLOY / "nginx.conf").read_text(),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        (f"/etc/letsencrypt/live/{NAME}/fullchain.pem", str(certificate_)),
        (f"/etc/letsencrypt/live/{NAME}/privkey.pem", str(key)),
        ("127.0.0.1:8080", f"127.0.0.1:{behind}"),
    )
    places = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    folder.chmod(0o755)
    text = (
        f"pid {folder}/pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{places}{site}\n}}\n"
    )
    if Path("/proc/self").stat().st_uid == 0:
        text = f"user root;\n{text}"
    (folder / "nginx.conf").write_text(text)
    command = [binary("nginx"), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
    with running(command):
        yield certificate_


def until_answered(session, url):
    deadline = time.monotonic() + SOON_S
    while True:
        with contextlib.suppress(requests.ConnectionError):
            if (answer := session.get(url)).status_code == 200:
                return answer
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def names(monkeypatch):
    """Have the public name lead to loopback, as a name server would."""
    connect = urllib3.util.connection.create_connection

    def connect_here(address, *rest, **keys):
        assert address[0] == NAME
        return connect(("127.0.0.1", address[1]), *rest, **keys)

    monkeypatch.setattr(urllib3.util.connection, "create_connection", connect_here)


@pytest.mark.parametrize("proxy", [caddy, nginx])
def test_a_service_works_behind_a_proxy(proxy, names, tmp_path):
    tokens, port, behind = tmp_path / "tokens.yaml", free_port(), free_port()
    (tmp_path / "proxy").mkdir()
    url, tuner = f"https://{NAME}:{port}", [sys.executable, "-m", "tuner"]
    token = subprocess.check_output([*tuner, "token", "ana", "--tokens", tokens], text=True).strip()
    options = ["--port", str(behind), "--tokens", tokens, "--public-url", url, "--workers", "1"]
    with (
        running([*tuner, "serve", "--root", tmp_path / "root", *options]),
        proxy(tmp_path / "proxy", port, behind) as trusted,
        requests.Session() as session,
    ):
        session.trust_env, session.verify = False, str(trusted)
        session.headers["Authorization"] = f"Bearer {token}"
        until_answered(session, f"{url}/ready")

        page = {"Origin": url, "Sec-Fetch-Site": "same-origin"}
        rows = "y\n" + "".join(f"{10 + i % 7}\n" for i in range(200_000))
        dataset = hashlib.sha256(rows.encode()).hexdigest()
        parts = (rows[i : i + 65536].encode() for i in range(0, len(rows), 65536))
        uploaded = session.put(f"{url}/v1/datasets/{dataset}?name=y.csv", data=parts, headers=page)
        assert uploaded.status_code == 201, uploaded.text
        other = session.post(f"{url}/v1/datasets", headers={"Origin": "https://evil.example.com"})
        assert other.status_code == 403

        small = "y\n" + "".join(f"{10 + i % 7}\n" for i in range(90))
        dataset = hashlib.sha256(small.encode()).hexdigest()
        assert session.put(f"{url}/v1/datasets/{dataset}?name=y.csv", data=small).ok
        experiment = {
            "name": "x",
            "data": {"path": f"dataset:{dataset}", "target": "y"},
            "task": {"window": 6},
            "hyperparameters": {"hidden_size": 4},
            "search_space": {"learning_rate": {"type": "float", "low": 0.001, "high": 0.1}},
            "strategy": {"name": "random"},
            "budget": {"trials": 2, "epochs": 2},
        }
        body = {"experiment": experiment, "name": "x", "tracking": False}
        submitted = session.post(f"{url}/v1/studies", json=body)
        assert submitted.status_code == 201, submitted.text
        arrived = {}
        with session.get(f"{url}/v1/studies/x/events", stream=True, timeout=SOON_S) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            for line in stream.iter_lines():
                if line.startswith(b"data: "):
                    event = json.loads(line[6:])
                    arrived.setdefault(event["event"], time.time() - event["time"])
        assert {"begun", "asked", "epoch", "finished", "result", "ended"} <= arrived.keys()
        assert arrived["epoch"] < 2  # it did not wait for the end of the stream
        audit = [json.loads(x) for x in (tmp_path / "root" / "audit.log").read_text().splitlines()]
        assert {entry["client"] for entry in audit} == {"127.0.0.1"}
        assert {entry["owner"] for entry in audit} == {"ana", None}
        assert not re.search(r"tuner_[\w-]{43}", json.dumps(audit))
