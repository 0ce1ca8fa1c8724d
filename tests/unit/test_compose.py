"""compose.yaml: a service for every role, and none that may more than it needs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from octollm.runtime.roles import program_roles, python_roles
from octollm.topology import load_topology

ROOT = Path(__file__).resolve().parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
# What a sandbox is built with; everything else on the list below is for administrators, debuggers and attackers.
BUILDING = {"mount", "mount_setattr", "pivot_root", "sethostname", "umount2", "unshare"}
DANGEROUS = {
    *("bpf", "perf_event_open", "ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd"),
    *("keyctl", "add_key", "request_key", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "reboot", "swapon", "acct"),
    *("open_by_handle_at", "name_to_handle_at", "setns", "chroot", "mknod", "mknodat", "move_mount", "open_tree"),
    *("fsopen", "fsmount", "clock_settime", "settimeofday", "quotactl", "syslog", "iopl", "ioperm", "socket"),
}


def test_every_role_of_the_topology_has_its_service():
    topology = load_topology(ROOT / "streams.yaml", ROOT / "schemas" / "events")
    for role in python_roles(topology):
        assert SERVICES[role]["command"] == ["worker", role]
    assert set(program_roles(topology)) <= set(OURS)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_limited_and_starts_again(name):
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["mem_limit"]
    assert service["cpus"]
    assert service["pids_limit"]
    assert not {"privileged", "cap_add", "devices", "network_mode", "pid", "container_name"} & set(service)


@pytest.mark.parametrize("name", OURS)
def test_ours_cannot_write_their_files_and_know_whether_they_are_healthy(name):
    target = OURS[name]["build"]["target"]
    stage = re.search(
        rf"^FROM \S+ AS {target}\n(.*?)(?=^FROM |\Z)", (ROOT / "deploy/Dockerfile").read_text(), re.M | re.S
    )
    assert stage is not None
    # The executor has a user of its own: limits on processes count all of a user.
    user = 10002 if name == "executor" else 10001
    assert f"\nUSER {user}:{user}\n" in stage[1]
    assert "\nHEALTHCHECK " in stage[1]
    assert OURS[name]["read_only"] is True


def test_ports_are_published_on_loopback_only_and_where_services_cannot_be_many():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert "judge" not in published
    ports = [port for ports in published.values() for port in ports]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_no_password_is_in_the_file():
    secrets = [
        value
        for service in SERVICES.values()
        for name, value in service.get("environment", {}).items()
        if "PASSWORD" in name
    ]
    assert secrets
    assert all(value.startswith("${POSTGRES_PASSWORD:?") for value in secrets)


def test_redis_loses_nothing_that_it_need_not_lose():
    command = SERVICES["redis"]["command"]
    for option in ("--appendonly yes", "--appendfsync everysec", "--maxmemory-policy noeviction"):
        assert option in command


def test_the_executor_has_a_profile_of_its_own_that_lets_it_build_sandboxes_and_little_else():
    executor = SERVICES["executor"]
    path = next(one.removeprefix("seccomp:") for one in executor["security_opt"] if one.startswith("seccomp:"))
    profile = json.loads((ROOT / path).read_text())
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    unconditional = {name for rule in profile["syscalls"] if "args" not in rule for name in rule["names"]}
    assert unconditional >= BUILDING
    assert not unconditional & DANGEROUS
    families = {rule["args"][0]["value"] for rule in profile["syscalls"] if rule["names"] == ["socket"]}
    assert families == {1, 2, 10, 16}  # local, IPv4, IPv6, netlink
    assert executor["environment"]["OCTOLLM_EXECUTOR_MIN_ISOLATION"] == "${MIN_ISOLATION:-namespaces}"
