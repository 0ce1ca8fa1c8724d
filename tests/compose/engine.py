"""Docker for the proof: the engine that runs here, or one that is started for it and taken away without a trace."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "compose"
_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_START_S = 60


class UnavailableError(Exception):
    """Why there is no engine here; the proof is skipped with this sentence."""


@dataclass(frozen=True)
class Engine:
    """How to speak to it."""

    docker: str
    compose: tuple[str, ...]
    environment: dict[str, str]
    own: bool
    """Started for the proof: all that is in it belongs to the proof."""

    def run(self, *arguments: str, **more: str) -> str:
        """A docker command's standard output; raises RuntimeError with what it said when it fails."""
        return call(self.docker, *arguments, environment={**self.environment, **more})


def call(*command: str, environment: dict[str, str], cwd: Path = ROOT, stdin: str = "") -> str:
    """A command's standard output; raises RuntimeError with the end of what it said when it fails."""
    done = subprocess.run(
        command, cwd=cwd, env=environment, input=stdin, capture_output=True, text=True, check=False, timeout=1800
    )
    if done.returncode != 0:
        said = (done.stderr + done.stdout).strip()[-3000:]
        raise RuntimeError(f"`{' '.join(command[:4])} ...` ended with {done.returncode}: {said}")
    return done.stdout


@contextmanager
def engine() -> Iterator[Engine]:
    """The engine that answers, else one of our own; raises UnavailableError where neither can be."""
    docker, compose = _client(), _compose()
    environment = dict(os.environ)
    # The first client on the PATH is the one that compose builds with.
    environment["PATH"] = f"{Path(docker).parent}:{environment['PATH']}"
    environment |= {"DOCKER_BUILDKIT": "1", "COMPOSE_DOCKER_CLI_BUILD": "1"}
    if _answers(docker, environment):
        yield Engine(docker, compose, environment, own=False)
        return
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        raise UnavailableError("no Docker engine answers, and starting one takes root and dockerd")
    with _daemon(docker, environment) as host:
        yield Engine(docker, compose, {**environment, "DOCKER_HOST": host}, own=True)


def _client() -> str:
    """A docker that can build with BuildKit: by itself up to 22, with the plugin buildx from 23 on."""
    for folder in os.environ.get("PATH", "").split(":"):
        found = shutil.which("docker", path=folder)
        if found is None:
            continue
        said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
        major = said.removeprefix("Docker version ").partition(".")[0]
        has_plugin = subprocess.run([found, "buildx", "version"], capture_output=True, check=False).returncode == 0
        if has_plugin or (major.isdigit() and int(major) < 23):
            return found
    raise UnavailableError("no docker client that builds with BuildKit is on the PATH; install Docker's buildx plugin")


def _compose() -> tuple[str, ...]:
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
        return ("docker", "compose")
    found = shutil.which("docker-compose")
    if found is None:
        raise UnavailableError("neither `docker compose` nor docker-compose is installed")
    return (found,)


def _answers(docker: str, environment: dict[str, str]) -> bool:
    asked = subprocess.run([docker, "info"], env=environment, capture_output=True, check=False, timeout=60)
    return asked.returncode == 0


@contextmanager
def _daemon(docker: str, environment: dict[str, str]) -> Iterator[str]:
    """A daemon of our own: images stay in build/compose/docker, everything else goes. Gives its address."""
    folder = Path(tempfile.mkdtemp(prefix="octollm-docker-"))  # not below build/: socket paths are short
    host = f"unix://{folder}/docker.sock"
    (BUILD / "docker").mkdir(parents=True, exist_ok=True)
    log = BUILD / "dockerd.log"
    forward, tables = _FORWARD.read_text(), _firewall()
    arguments = ["--data-root", BUILD / "docker", "--exec-root", folder / "exec", "--pidfile", folder / "pid"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["dockerd", "--host", host, *map(str, arguments)], stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + _START_S
        while not _answers(docker, {**environment, "DOCKER_HOST": host}):
            if process.poll() is not None or time.monotonic() > deadline:
                raise UnavailableError(f"dockerd does not run here: {log.read_text().strip()[-1000:]}")
            time.sleep(0.2)
        yield host
    finally:
        process.terminate()
        process.wait(120)
        _unmount_below(folder, BUILD / "docker")
        subprocess.run(["ip", "link", "delete", "docker0"], capture_output=True, check=False)
        subprocess.run(["iptables-restore"], input=tables, text=True, capture_output=True, check=False)
        _FORWARD.write_text(forward)
        shutil.rmtree(folder)


def _firewall() -> str:
    """The rules as they are, for iptables-restore; tables that are not there yet become empty ones."""
    saved = subprocess.run(["iptables-save"], capture_output=True, text=True, check=False).stdout
    empty = {
        "*filter": ":INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT",
        "*nat": ":PREROUTING ACCEPT\n:INPUT ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT",
    }
    return saved + "".join(f"{name}\n{chains}\nCOMMIT\n" for name, chains in empty.items() if name not in saved)


def _unmount_below(*folders: Path) -> None:
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in reversed(mounts):
        if any(Path(mount).is_relative_to(folder) for folder in folders):
            subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)
