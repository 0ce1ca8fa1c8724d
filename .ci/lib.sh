# Shared by the set-up scripts; sourced, not run.

say() { printf '==> %s\n' "$*"; }

stop() {
    printf 'make: %s\n' "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then env DEBIAN_FRONTEND=noninteractive "$@" </dev/null
    else sudo -n env DEBIAN_FRONTEND=noninteractive "$@" </dev/null; fi
}

# Whether packages can be installed without asking anybody anything.
can_apt() {
    command -v apt-get >/dev/null 2>&1 || return 1
    [ "$(id -u)" -eq 0 ] || sudo -n true >/dev/null 2>&1
}

apt_install() {
    can_apt || return 1
    as_root apt-get install -y -q --no-install-recommends "$@" && return 0
    as_root apt-get update -q && as_root apt-get install -y -q --no-install-recommends "$@"
}
