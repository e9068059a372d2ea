# shellcheck shell=sh
# Sourced by the other shell scripts: how they speak, and what they ask of the machine.

say() { printf '%s\n' "$*" >&2; }

die() {
    say "$*"
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

can_install_packages() { [ "$(id -u)" = 0 ] && has apt-get; }
