"""A private Slurm on this machine: munged, slurmctld, some slurmd, MariaDB and slurmdbd, on the loopback address.

In a test, take the fixture::

    def test_x(cluster, tmp_path):
        site = cluster.site(tmp_path / "partitions.yaml")         # what `fewscans cluster-setup` would write
        done = cluster.run(["sbatch", "--parsable", "--wrap", "true"])
        subprocess.run(command, env=cluster.environment(FEWSCANS_SITE=str(site)))

By hand, ``python -m tests.slurm.cluster COMMAND...`` runs a command (or a shell) beside a cluster that ends with it.

Nodes n1..nN (the last two and ``pre`` have two fake GPUs each) are for everybody: partitions ``cpu`` (default),
``gpu`` and ``short`` (one minute). The node ``pre`` is for preemption: a job in ``urgent`` that needs its CPUs pushes
out one in ``preempt`` (requeued) or ``cancel``. The node ``frail`` (partition ``frail``) may be taken down. Node names
do not resolve, and ``hostname`` is the same on all: ask SLURMD_NODENAME.

It works as root and as a plain user, and several run side by side. All files are below one directory of /tmp, which
is removed at the end.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from tests.slurm.configuration import Layout, write_configuration
from tests.slurm.processes import Daemons, job_processes, kill_all, wait_until

NEEDED = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client"}
NEEDED_ACCOUNTING = {
    "slurmdbd": "slurmdbd slurm-wlm-mysql-plugin",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
}
READY = {"idle", "mixed", "allocated", "completing"}


def program(name: str) -> str:
    """Path of a program; daemons are not in everybody's PATH."""
    return shutil.which(name, path=f"/usr/sbin:/usr/bin:{os.environ.get('PATH', '')}") or ""


def missing(accounting: bool = True) -> list[str]:
    """Packages that must be installed before a cluster can be started."""
    needed = {**NEEDED, **(NEEDED_ACCOUNTING if accounting else {})}
    return sorted({package for name, package in needed.items() if not program(name)})


def reserve_ports(n: int) -> socket.socket:
    """A socket bound to the port before `n` free ones, below those that the system gives out itself.

    While it is open no other cluster takes them, also if their daemons have not started yet.
    """
    for base in random.sample(range(20000, 30000, 50), 200):
        made = socket.socket()
        try:
            made.bind(("127.0.0.1", base))
            for port in range(base + 1, base + 1 + n):
                with socket.socket() as tried:
                    tried.bind(("127.0.0.1", port))
        except OSError:
            made.close()
            continue
        return made
    raise OSError("no free ports")


class Cluster:
    """A cluster that lives inside a ``with`` block, or between `start` and `stop`."""

    def __init__(
        self,
        nodes: int = 4,
        cpus: int = 8,
        mem_mb: int = 16000,
        accounting: bool = True,
        gpu_nodes: int = 2,
    ) -> None:
        # Short: a unix socket's path has at most 107 bytes.
        self.state = Path(tempfile.mkdtemp(prefix="fsl-", dir="/tmp"))
        self.state.chmod(0o755)
        user = pwd.getpwuid(os.getuid()).pw_name
        self._ports = reserve_ports(nodes + 4)
        port = self._ports.getsockname()[1] + 1
        self.layout = Layout(self.state, user, port, nodes, cpus, mem_mb, accounting, gpu_nodes)
        self.conf = write_configuration(self.layout)
        self.daemons = Daemons(self.state / "log")

    def __enter__(self) -> Cluster:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.stop()

    # ---- using it

    def environment(self, **more: str) -> dict[str, str]:
        """Variables for a process that is to use this cluster, `more` added."""
        path = f"{self.state}/bin:{os.environ.get('PATH', '/usr/bin:/bin')}"
        return {**os.environ, "PATH": path, "SLURM_CONF": str(self.conf), **more}

    def run(
        self, command: Sequence[str], check: bool = True, timeout: float = 300, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command beside this cluster; its texts are in `stdout` and `stderr`."""
        return subprocess.run(
            list(command), env=self.environment(), check=check, timeout=timeout,
            capture_output=True, text=True, **more,
        )  # fmt: skip

    def submit(self, script: str, *options: str) -> int:
        """Id of a job that runs a line of shell; its output goes to /dev/null."""
        command = ["sbatch", "--parsable", "-o", "/dev/null", *options, "--wrap", script]
        return int(self.run(command).stdout)

    def queue(self, folder: Path | None = None, states: str = "all") -> list[dict[str, str]]:
        """Jobs that have not ended: ``id, state, name, comment, folder, node``; of one work directory if given."""
        names = ["id", "state", "name", "comment", "folder", "node"]
        command = ["squeue", "-h", "-r", "-o", "%i|%T|%j|%k|%Z|%N", "-t", states]
        rows = [line.split("|") for line in self.run(command).stdout.splitlines()]
        jobs = [dict(zip(names, row, strict=True)) for row in rows]
        ended = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED"}
        return [
            job
            for job in jobs
            if job["state"] not in ended
            and (folder is None or Path(job["folder"]).resolve() == folder.resolve())
        ]

    def state_of(self, job: int | str) -> str:
        """State of a job, ended ones too (from the accounting, else the controller); empty where it is unknown."""
        found = self.run(["squeue", "-h", "-t", "all", "-j", str(job), "-o", "%T"], check=False)
        if found.stdout.strip():
            return found.stdout.split()[0]
        if not self.layout.accounting:
            return ""
        asked = self.run(["sacct", "-X", "-n", "-P", "-j", str(job), "-o", "State"], check=False)
        return (asked.stdout.split() or [""])[0]

    def starts_of(self, job: int | str) -> int:
        """How often a job began, by the accounts."""
        command = ["sacct", "-X", "-n", "-P", "--duplicates", "-j", str(job), "-o", "Start"]
        return len(self.run(command).stdout.split())

    def push_out(self) -> None:
        """An urgent job needs the whole node for preemption, for a moment."""
        urgent = self.submit("true", "-p", "urgent", "-n1", f"-c{self.layout.cpus}")
        wait_until("the urgent job", lambda: self.state_of(urgent) == "COMPLETED")

    def processes(self, node: str | None = None) -> set[int]:
        """Processes of jobs and steps, on one node or all."""
        return job_processes(self.conf, self.state / "log", node)

    def site(self, path: Path, **changes: Any) -> Path:
        """Write the ``partitions.yaml`` of this cluster (see fewscans/cluster/site.py); `changes` by top-level key."""
        text = {
            "cluster": {
                "name": "fewscans", "accounting": self.layout.accounting, "min_job_age_s": 300,
                "job_requeue": True, "kill_wait_s": 2,
            },
            "account": "proj" if self.layout.accounting else None,
            "classes": {kind: {"partition": kind} for kind in ("cpu", "gpu")},
            "partitions": {name: self._limits(name) for name in self.layout.partitions()},
            **changes,
        }  # fmt: skip
        text["classes"].setdefault("light", {"partition": "cpu"})
        path.write_text(yaml.safe_dump(text, sort_keys=False))
        return path

    def _limits(self, name: str) -> dict[str, Any]:
        found = self.layout.partitions()[name]
        nodes = found["Nodes"]
        assert isinstance(nodes, list)
        gpus = 2 if set(nodes) <= set(self.layout.with_gpu) else 0
        return {
            "max_runtime": found["MaxTime"], "max_threads": self.layout.cpus,
            "max_mem_mb": self.layout.mem_mb, "max_gpu": gpus, "total_gpu": gpus * len(nodes),
            "gpu_models": ["fake"] if gpus else [], "nodes": len(nodes),
            "preempt": str(found["PreemptMode"]).lower(), "default": "Default" in found,
        }  # fmt: skip

    # ---- starting and stopping

    def start(self) -> None:
        """Start every daemon and wait until all nodes are ready."""
        self._start_munge()
        if self.layout.accounting:
            self._start_accounting()
        self.start_ctld(wait_for_nodes=False)
        for node in self.layout.all_nodes:
            self._start_node(node)
        self._wait_for_nodes()
        if self.layout.accounting:
            for words in ("account proj", "user {} account=proj", "qos high priority=100"):
                self.run(["sacctmgr", "-iQ", "add", *words.format(self.layout.user).split()])
            self.run(["sacctmgr", "-iQ", "modify", "user", self.layout.user, "set", "qos+=high"])

    def stop(self) -> None:
        """Cancel every job, end every process of this cluster and remove its files; harmless if repeated."""
        if self.daemons.alive("slurmctld"):
            with contextlib.suppress(subprocess.SubprocessError):
                self.run(["scancel", "--user", self.layout.user], check=False, timeout=30)
        for node in self.layout.all_nodes:
            self.daemons.end(node, patience_s=3)
        for name in ("slurmctld", "slurmdbd", "mariadbd", "munged"):
            self.daemons.end(name, patience_s=10)
        with contextlib.suppress(TimeoutError):
            kill_all(self.processes)
        shutil.rmtree(self.state, ignore_errors=True)
        self._ports.close()

    def start_ctld(self, wait_for_nodes: bool = True) -> None:
        """Start the controller and wait until it answers and, as a rule, sees its nodes again."""
        command = [program("slurmctld"), "-D", "-f", str(self.conf)]
        self.daemons.start("slurmctld", command, self.environment())
        wait_until("slurmctld", lambda: self._answers("slurmctld"))
        if wait_for_nodes:
            self._wait_for_nodes()

    def stop_ctld(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop the controller; with SIGTERM it saves its state, with SIGKILL the last seconds are lost."""
        self.daemons.end("slurmctld", how)

    def restart_ctld(self, how: signal.Signals = signal.SIGTERM, away_s: float = 0) -> None:
        """Stop the controller, leave it away for some seconds, start it again."""
        self.stop_ctld(how)
        time.sleep(away_s)
        self.start_ctld()

    def node_down(self, node: str) -> None:
        """A node dies at once: daemon, steps, processes of jobs; the controller is told."""
        self.daemons.end(node, signal.SIGKILL)
        kill_all(lambda: self.processes(node))
        self.run(["scontrol", "update", f"nodename={node}", "state=down", "reason=test"])

    def node_up(self, node: str) -> None:
        """The node is back and takes jobs."""
        if not self.daemons.alive(node):
            self._start_node(node)
        resume = ["scontrol", "update", f"nodename={node}", "state=resume"]

        def back() -> bool:
            # Once its daemon has told the controller, a node is back by itself, and cannot be resumed any more.
            return self._are_ready(node) or self.run(resume, check=False).returncode == 0

        wait_until(f"{node} resumed", back)
        self._wait_for_nodes(node)

    # ---- the parts

    def _start_munge(self) -> None:
        key, at = self.state / "munge.key", self.state / "munge.socket"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        command = [
            program("munged"), "-F", "--force", f"--key-file={key}", f"--socket={at}",
            f"--pid-file={self.state}/munge.pid", f"--seed-file={self.state}/munge.seed",
            "--num-threads=2",
        ]  # fmt: skip
        self.daemons.start("munged", command, self.environment())
        wait_until("munged", at.exists)

    def _start_accounting(self) -> None:
        data, at = self.state / "db", self.state / "db.socket"
        user = f"--user={self.layout.user}"
        # A database removes temporary tables from its folder when it starts, also another one's.
        temporary = self.state / "tmp"
        temporary.mkdir()
        # Native AIO has a limit for the whole machine, which other databases may have used up.
        engine = [
            f"--tmpdir={temporary}", "--innodb-use-native-aio=0", "--innodb-buffer-pool-size=64M",
        ]  # fmt: skip
        command = [
            program("mariadb-install-db"), "--no-defaults", user, f"--datadir={data}", *engine,
            "--auth-root-authentication-method=normal", "--skip-test-db",
        ]  # fmt: skip
        done = self.run(command, check=False)
        if done.returncode:
            raise RuntimeError(f"mariadb-install-db: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        command = [
            program("mariadbd"), "--no-defaults", user, f"--datadir={data}", f"--socket={at}",
            f"--pid-file={self.state}/db.pid", "--skip-networking", *engine,
            "--innodb-flush-log-at-trx-commit=0",
        ]  # fmt: skip
        self.daemons.start("mariadbd", command, self.environment())
        sql = [program("mariadb"), "--no-defaults", "-uroot", "-S", str(at), "-e"]
        wait_until("MariaDB", lambda: self.run([*sql, "select 1"], check=False).returncode == 0)
        self.run([*sql, "create database slurm; create user slurm@localhost"])
        self.run([*sql, "grant all on slurm.* to slurm@localhost"])
        # slurmdbd.conf has no setting for the socket; libmariadb takes it from this variable.
        variables = self.environment(MYSQL_UNIX_PORT=str(at))
        self.daemons.start("slurmdbd", [program("slurmdbd"), "-D"], variables)
        wait_until("slurmdbd", lambda: self._answers("slurmdbd"))

    def _start_node(self, node: str) -> None:
        command = [program("slurmd"), "-D", "-N", node, "-f", str(self.conf)]
        self.daemons.start(node, command, self.environment())

    def _answers(self, name: str) -> bool:
        if not self.daemons.alive(name):
            raise RuntimeError(f"{name} ended: {self.daemons.said(name)}")
        if name == "slurmctld":
            return "is UP" in self.run(["scontrol", "ping"], check=False).stdout
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.layout.dbd_port), 1).close()
            return True
        return False

    def _wait_for_nodes(self, *nodes: str) -> None:
        wanted = {n for n in nodes or self.layout.all_nodes if self.daemons.alive(n)}
        wait_until("nodes", lambda: self._are_ready(*wanted))

    def _are_ready(self, *nodes: str) -> bool:
        lines = self.run(["sinfo", "-h", "-N", "-o", "%N %T"], check=False).stdout.splitlines()
        states = dict(line.split() for line in lines)
        return all(states.get(node) in READY for node in nodes)


def main(command: list[str]) -> int:
    """Run `command`, or a shell, beside a new cluster."""
    absent = missing()
    if absent:
        print(f"not installed: apt install {' '.join(absent)}", file=sys.stderr)
        return 2
    with Cluster() as cluster:
        print(f"a cluster for {getpass.getuser()} in {cluster.state}", file=sys.stderr)
        shell = [os.environ.get("SHELL", "/bin/sh")]
        return subprocess.run(command or shell, env=cluster.environment(), check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
