"""The manifests of deploy/kubernetes against the schemas of Kubernetes, and against what the server does."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from pounce.config import ServerConfig

yaml = pytest.importorskip("yaml", reason="install the group dev: `make setup`")
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="install the group dev: `make setup`")
FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
OWN = ("autoscaler", "deployment", "disruption-budget", "service")
ELSEWHERE = {
    "gateway": ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    "service-monitor": ("monitoring.coreos.com/v1", "ServiceMonitor"),
    "kustomization": ("kustomize.config.k8s.io/v1beta1", "Kustomization"),
}
"""Kinds that are no part of Kubernetes itself."""
DRAIN_AFTER_CANCEL = 2


def manifest(name: str) -> Any:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def container() -> Any:
    [found] = manifest("deployment")["spec"]["template"]["spec"]["containers"]
    return found


@pytest.fixture
def config() -> ServerConfig:
    settings = tomllib.loads((FOLDER / "pounce.toml").read_text())
    assert settings.pop("app") == "main:app"
    return ServerConfig.from_mapping(settings)


def test_every_manifest_is_known() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {*OWN, *ELSEWHERE}


@pytest.mark.parametrize("name", OWN)
def test_kubernetes_understands(name: str) -> None:
    kubernetes_validate.validate(manifest(name), kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_kinds_of_others_are_named_as_they_call_them(name: str) -> None:
    found = manifest(name)
    assert (found["apiVersion"], found["kind"]) == ELSEWHERE[name]


def test_the_customization_names_files_that_exist() -> None:
    found = manifest("kustomization")
    names = [*found["resources"], *found["configMapGenerator"][0]["files"]]
    assert [name for name in names if not (FOLDER / name).is_file()] == []


def test_a_pod_has_time_to_end(config: ServerConfig) -> None:
    pod = manifest("deployment")["spec"]["template"]["spec"]
    before = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed = before + config.drain_delay + 2 * config.shutdown_timeout + DRAIN_AFTER_CANCEL
    assert pod["terminationGracePeriodSeconds"] >= needed
    # Nodes hear of the end after the next probe at the latest.
    assert config.drain_delay > container()["readinessProbe"]["periodSeconds"]


def test_ports_and_probes_are_the_servers(config: ServerConfig) -> None:
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert ports == {"http": config.port, "metrics": int(str(config.metrics_bind).rpartition(":")[2])}
    assert config.probes
    paths = {container()[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert paths == {"/readyz", "/livez"}
    assert manifest("service-monitor")["spec"]["endpoints"][0]["path"] == config.metrics_path


def test_objects_find_each_other() -> None:
    labels = manifest("deployment")["spec"]["template"]["metadata"]["labels"]
    assert manifest("deployment")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("service")["spec"]["selector"] == labels
    assert manifest("disruption-budget")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("service-monitor")["spec"]["selector"]["matchLabels"] == manifest("service")["metadata"]["labels"]
    assert manifest("autoscaler")["spec"]["scaleTargetRef"]["name"] == manifest("deployment")["metadata"]["name"]
    assert manifest("gateway")["spec"]["rules"][0]["backendRefs"][0]["name"] == manifest("service")["metadata"]["name"]
    volumes = {volume["name"] for volume in manifest("deployment")["spec"]["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container()["volumeMounts"]} == volumes
