"""The files in `deploy/`: valid by their schemas, and of options that exist."""

from pathlib import Path

import kubernetes_validate
import pytest
import typer
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema import validate
from ruamel.yaml import YAML

from tuner.cli.app import app

DEPLOY = Path(__file__).parents[2] / "deploy"
COMMANDS = typer.main.get_command(app).commands


def documents(name):
    return [doc for doc in YAML(typ="safe").load_all((DEPLOY / name).read_text()) if doc]


@pytest.fixture(scope="module")
def manifest():
    """The objects for Kubernetes by kind and name."""
    return {(d["kind"], d["metadata"]["name"]): d for d in documents("kubernetes.yaml")}


@pytest.fixture(scope="module")
def compose():
    (document,) = documents("compose.yaml")
    return document


def container_of(deployment):
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return container


def check_command(words):
    """Check that a command of `tuner` has the options that it is given."""
    name, *options = words
    known = {option for param in COMMANDS[name].params for option in param.opts}
    given = {option.partition("=")[0] for option in options if option.startswith("--")}
    assert given <= known, name


def test_the_manifest_is_valid_for_kubernetes(manifest):
    for document in manifest.values():
        kubernetes_validate.validate(document, "1.37", strict=True)
    broken = {**manifest["Deployment", "tuner"], "spec": {"replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.37", strict=True)


def test_the_compose_file_is_valid(compose):
    schema = get_builtin_schema("vendor.compose-spec")
    validate(compose, schema)
    with pytest.raises(Exception, match="'imagine' was unexpected"):
        validate({"services": {"a": {"imagine": "x"}}}, schema)


def test_one_service_at_a_time_writes_the_journals(manifest):
    spec = manifest["Deployment", "tuner"]["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}


def test_the_workloads_run_without_rights(manifest, compose):
    for name in ("tuner", "tuner-worker"):
        pod = manifest["Deployment", name]["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert not pod["automountServiceAccountToken"]
        context = container_of(manifest["Deployment", name])["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
    for name in ("tuner", "worker"):
        assert compose["services"][name]["cap_drop"] == ["ALL"]
        assert compose["services"][name]["read_only"]


def test_the_parts_of_the_manifest_fit_each_other(manifest):
    deployment = manifest["Deployment", "tuner"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert manifest["Service", "tuner"]["spec"]["selector"] == labels
    for name in ("tuner", "tuner-worker"):
        spec = manifest["Deployment", name]["spec"]
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
        volumes = {v["name"] for v in spec["template"]["spec"]["volumes"]}
        mounted = {m["name"] for m in container_of(manifest["Deployment", name])["volumeMounts"]}
        assert mounted == volumes
    volumes = deployment["spec"]["template"]["spec"]["volumes"]
    (claim,) = (v["persistentVolumeClaim"] for v in volumes if "persistentVolumeClaim" in v)
    assert ("PersistentVolumeClaim", claim["claimName"]) in manifest
    (secret,) = (v["secret"] for v in volumes if "secret" in v)
    assert secret["defaultMode"] == 0o440


def test_what_is_public_is_on_loopback_alone(compose):
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_parts_of_the_compose_file_fit_each_other(compose):
    services = compose["services"]
    for service in services.values():
        assert service.get("depends_on", {}).keys() <= services.keys()
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in compose["volumes"]
    assert services["worker"]["deploy"]["replicas"] == 2
    assert services["tuner"]["environment"]["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert "mlflow:5000" in " ".join(services["mlflow"]["command"])


@pytest.mark.parametrize("name", ["serve", "worker"])
def test_the_commands_have_the_options_that_they_are_given(manifest, compose, name):
    containers = [container_of(d) for (kind, _), d in manifest.items() if kind == "Deployment"]
    given = [c["args"] for c in containers]
    given += [compose["services"][part]["command"] for part in ("tuner", "worker")]
    of_this_name = [words for words in given if words[0] == name]
    assert len(of_this_name) == 2
    for words in of_this_name:
        check_command(words)
        if name == "worker":
            assert "http://tuner:8080" in words
        else:  # the workers reach it by this name
            assert "--allow-host=tuner" in words
