"""`navarch status` and `navarch ls`: what runs, since when, and whether it is well."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from navarch.api.time import human_duration
from navarch.cli.options import cluster_options, load_cluster, output_option
from navarch.cli.steps import say
from navarch.cluster.config import ClusterConfig, flags_of, known_clusters
from navarch.cluster.lifecycle import current
from navarch.cluster.readiness import Probe, last_words
from navarch.cluster.state import FAILED, ComponentState, alive
from navarch.world import MACHINE


@click.command()
@cluster_options
@output_option
def status(name: str, data_dir: str | None, output: str) -> None:
    """Show a cluster's processes and health; the exit status is 0 if it is ready, else 1."""
    config = load_cluster(name, data_dir)
    report = _report(config)
    if output == "json":
        click.echo(json.dumps(report, indent=2))
    else:
        _print(config, report)
        again = "agent" if config.is_agent else "up"
        for process in report["processes"]:
            if process["state"] == FAILED:
                say(f"{process['name']} cannot start; its last words in {last_words(config, process['name'])}")
                say(f"It is not tried again before `navarch {again}{flags_of(config)}`.")
        if not report["running"]:
            say(f"It is not running; `navarch {again}{flags_of(config)}` starts it.")
        elif not report["supervised"]:
            flags = flags_of(config)
            say(f"Nobody watches its processes; `navarch up{flags}` does so, `navarch down{flags}` ends them.")
        elif not report["ready"]:
            say(f"`navarch logs{flags_of(config)}` shows what its processes say.")
    sys.exit(0 if report["ready"] else 1)


@click.command()
@output_option
def ls(output: str) -> None:
    """List the clusters of this machine."""
    rows: list[dict[str, Any]] = []
    for config in known_clusters():
        state = current(config)
        running = state.supervisor_alive or bool(state.living)
        rows.append({"name": config.name, "running": running, "server": config.server_url, "runtime": config.runtime})
    if output == "json":
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo("There are no clusters; `navarch up` makes one.", err=True)
        return
    _table(
        ["NAME", "STATE", "SERVER", "RUNTIME"],
        [[row["name"], "running" if row["running"] else "stopped", row["server"], row["runtime"]] for row in rows],
    )


def _report(config: ClusterConfig) -> dict[str, Any]:
    state = current(config)
    probe = Probe(config)
    running = state.supervisor_alive or bool(state.living)
    healthy = running and probe.healthy()
    nodes_ready = nodes = 0
    if healthy:
        nodes_ready, nodes = probe.nodes()
    supervisor = ComponentState(
        state.supervisor_pid, state.supervisor_ticks, "running" if state.supervisor_alive else "stopped",
        since=state.started,
    )  # fmt: skip
    processes = {"supervisor": supervisor, **state.components}
    return {
        "name": config.name,
        "role": config.role,
        "running": running,
        "supervised": state.supervisor_alive,
        "ready": healthy and nodes_ready == nodes and (nodes > 0 or not config.is_agent),
        "server": config.server_url,
        "kubernetesVersion": config.kubernetes_version,
        "runtime": config.runtime,
        "store": config.store,
        "dataDir": config.data_dir,
        "nodes": {"ready": nodes_ready, "total": nodes},
        "processes": [_process(name, component, state.supervisor_alive) for name, component in processes.items()],
    }


def _process(name: str, component: ComponentState, supervised: bool) -> dict[str, Any]:
    running = alive(component)
    known = supervised and component.state in ("backoff", FAILED)
    return {
        "name": name,
        "state": component.state if running or known else "stopped",
        "pid": component.pid if running else None,
        "restarts": component.restarts,
        "ageSeconds": round(MACHINE.now().timestamp() - component.since) if running else None,
        "memoryMB": _memory_mb(component.pid) if running else None,
        "lastExit": component.last_exit or None,
    }


def _memory_mb(pid: int) -> float | None:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return round(int(line.split()[1]) / 1024, 1)
    except OSError:
        return None
    return None


def _print(config: ClusterConfig, report: dict[str, Any]) -> None:
    word = click.style("ready", fg="green") if report["ready"] else click.style("not ready", fg="red")
    what = f"Node {config.node_name!r}" if config.is_agent else f"Cluster {config.name!r}"
    click.echo(f"{what} is {word}")
    click.echo(f"  server   {report['server']}   Kubernetes v{report['kubernetesVersion']}")
    click.echo(f"  runtime  {report['runtime']}   store {report['store']}")
    nodes = report["nodes"]
    # Without an API server there is nobody to say how many there are.
    click.echo(f"  nodes    {nodes['ready']} of {nodes['total']} ready" if nodes["total"] else "  nodes    unknown")
    click.echo(f"  data     {report['dataDir']}\n")
    rows = []
    for entry in report["processes"]:
        age = human_duration(timedelta(seconds=entry["ageSeconds"])) if entry["ageSeconds"] is not None else "-"
        rows.append(
            [
                entry["name"],
                entry["state"],
                str(entry["pid"] or "-"),
                age,
                str(entry["restarts"]),
                f"{entry['memoryMB']} MB" if entry["memoryMB"] else "-",
                entry["lastExit"] or "-",
            ]
        )
    _table(["PROCESS", "STATE", "PID", "AGE", "RESTARTS", "MEMORY", "LAST EXIT"], rows)


def _table(header: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        click.echo("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
