"""The command line without a cluster: help that teaches, errors in one line that say what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from navarch.cli.checks import check_scheduler
from navarch.cli.config_file import read_config_file
from navarch.cli.main import cli
from navarch.cli.options import duration_s
from navarch.cluster.config import ClusterConfig, ConfigError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAVARCH_HOME", str(tmp_path))
    return tmp_path


def navarch(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "navarch.cli.main", *arguments]
    return subprocess.run(command, text=True, capture_output=True, check=False, timeout=60)


def test_help_lists_every_command_with_what_it_does() -> None:
    done = navarch("--help")

    assert done.returncode == 0
    for command in ("up", "down", "status", "logs", "kubectl", "image", "version"):
        assert f"\n  {command} " in done.stdout


@pytest.mark.parametrize("command", ["up", "down", "status", "ls", "logs", "image", "token", "version"])
def test_each_command_explains_itself(command: str) -> None:
    done = navarch(command, "--help")

    assert done.returncode == 0
    assert "Usage: navarch" in done.stdout


def test_a_mistyped_command_is_corrected() -> None:
    done = navarch("stat")

    assert done.returncode == 2
    assert "Did you mean 'status'?" in done.stderr


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["get", "nodes"], "kubectl get"),
        (["apply", "-f", "web.yaml"], "kubectl apply"),
        (["stop"], "down"),
        (["start"], "up"),
        (["delete"], "down --purge"),
        (["list"], "ls"),
    ],
)
def test_what_it_is_called_elsewhere_leads_to_its_name_here(typed: list[str], meant: str) -> None:
    with pytest.raises(click.UsageError, match=f"Did you mean '{meant}'"):
        cli.main(typed, prog_name="navarch", standalone_mode=False)


def test_a_machine_that_cannot_run_containers_is_not_told_to_join_with_simulated_nodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("navarch.node.containerd.why_unavailable", lambda: "running containers needs root")

    with pytest.raises(ConfigError, match="needs root") as refused:
        cli.main(["agent", "--server", "https://192.0.2.1:6443"], prog_name="navarch", standalone_mode=False)

    assert "--runtime" not in str(refused.value)


def test_help_of_a_command_may_be_asked_for_in_words() -> None:
    asked, flagged = (
        CliRunner().invoke(cli, words) for words in (["help", "snapshot", "save"], ["snapshot", "save", "-h"])
    )

    assert asked.exit_code == 0
    assert "Write a cluster's objects" in asked.output
    assert asked.output == flagged.output


def test_a_shell_completes_the_names_of_clusters_and_of_their_processes(home: Path) -> None:
    for name in ("one", "other", "two"):
        ClusterConfig(name, str(home / name)).save()
    (home / "one" / "logs").mkdir()
    (home / "one" / "logs" / "apiserver.log").touch()

    def completed(*words: str) -> list[str]:
        script = ShellComplete(cli, {}, "navarch", "_NAVARCH_COMPLETE")
        return [item.value for item in script.get_completions(list(words[:-1]), words[-1])]

    assert completed("status", "--name", "o") == ["one", "other"]
    assert completed("logs", "--name", "one", "") == ["apiserver"]
    assert completed("logs", "--name", "no-such", "") == []


@pytest.mark.parametrize("command", [["status"], ["down"], ["kubectl", "get", "pods"], ["logs"]])
def test_without_a_cluster_the_message_says_how_to_make_one(command: list[str]) -> None:
    done = navarch(*command)

    assert done.returncode == 2
    assert "there is no cluster named 'default'" in done.stderr
    assert "navarch up" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["up", "--name", "../x"], "invalid cluster name"),
        (["up", "--store", "etcd://"], "names at least one host"),
        (["up", "--store", "etcd://127.0.0.1:port"], "is no host:port"),
        (["up", "--store", "etcd://127.0.0.1?cert=a.crt"], "cert and key of an etcd URL go together"),
        (["up", "--event-ttl", "0s"], "at least a second"),
        (["up", "--runtime-config", "api/all=perhaps"], "must be true or false"),
        (["up", "--runtime-config", "nosuch.example.com/v1=true"], "unknown api groups nosuch.example.com"),
        (["up", "--runtime-config", "apps/v9=true"], "has not been registered"),
        (["up", "--store", "paper"], "unknown store 'paper'"),
        (["up", "--wait", "soon"], "invalid duration 'soon'"),
        (["up", "--kubernetes-version", "1.2"], "unknown Kubernetes version '1.2'"),
        (["up", "--nodes", "-1"], "-1 is not in the range"),
        (["up", "--nodes", "three"], "'three' is not a valid integer."),
        (["envtest", "--folder", "assets", "--kubernetes-version", "1.2"], "unknown Kubernetes version '1.2'"),
    ],
)
def test_bad_settings_are_refused_before_anything_starts(arguments: list[str], message: str, home: Path) -> None:
    done = navarch(*arguments)

    assert done.returncode == 2
    assert message in done.stderr
    assert list(home.iterdir()) == []


def test_version_needs_no_cluster() -> None:
    done = navarch("version", "-o", "json")

    assert done.returncode == 0
    assert json.loads(done.stdout)["server"] is None


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("1m30s", 90), ("2h", 7200), ("500ms", 0.5), ("15", 15)])
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


def test_a_configuration_file_gives_settings_by_the_names_of_the_flags(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "apiVersion: navarch.dev/v1\nkind: Cluster\nmetadata: {name: dev}\n"
        "spec: {nodes: 3, kubernetesVersion: '1.36'}\n"
    )

    assert read_config_file(str(file)) == {"name": "dev", "nodes": 3, "kubernetes_version": "1.36"}


def test_a_configuration_file_lists_what_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("apiVersion: navarch.dev/v1\nkind: Cluster\nspec: {disable: [load-balancer]}\n")

    assert read_config_file(str(file)) == {"disable": "load-balancer"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Deployment\n", "expected `apiVersion: navarch.dev/v1`"),
        ("kind: Cluster\napiVersion: navarch.dev/v9\n", "unknown apiVersion"),
        ("kind: Cluster\napiVersion: navarch.dev/v1\nspec: {nods: 3}\n", "unknown setting 'nods'"),
        ("{", "cannot read"),
    ],
)
def test_a_wrong_configuration_file_names_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(text)

    with pytest.raises(ConfigError, match=message):
        read_config_file(str(file))


def test_a_schedulers_configuration_is_checked_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scheduler.yaml"
    file.write_text("apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nparallelism: 0\n")
    config = ClusterConfig("one", str(tmp_path), scheduler_config=str(file))
    with pytest.raises(ConfigError, match=r"--scheduler-config: .*parallelism: Invalid value: 0: should be an integer"):
        check_scheduler(config)

    file.write_text(file.read_text().replace("parallelism: 0", "parallelism: 4"))
    check_scheduler(config)

    assert "parallelism has no effect here" in capsys.readouterr().err
