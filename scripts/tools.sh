#!/bin/sh
# Sees to the programs that the tests (tools.sh test) or the benchmarks (tools.sh bench) run: as root on Debian or
# Ubuntu it installs what is missing, elsewhere it says what is. Only a missing C compiler is an error: it makes the
# functions that are called; a test whose service is missing is skipped.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

has_postgres() { has postgres || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; }

has_compiler() { has gcc && [ -e "$(gcc -print-file-name=libc.a)" ]; }

has_nginx() { has nginx || [ -x /usr/sbin/nginx ]; }

# Only the profile needs it, which is left out without.
add_profiler() {
    [ -x .venv/bin/py-spy ] && return
    .venv/bin/python -m pip install -qq --disable-pip-version-check --no-input "py-spy>=0.4" ||
        say "py-spy could not be installed: there will be no profile"
}

missing=
has_compiler || missing="$missing gcc libc6-dev"
case "${1:-}" in
test)
    has redis-server || missing="$missing redis-server"
    has_postgres || missing="$missing postgresql"
    ;;
bench)
    has_nginx || missing="$missing nginx-light"
    has wrk || missing="$missing wrk"
    add_profiler
    ;;
*) die "usage: $0 test|bench" ;;
esac

[ -n "$missing" ] || exit 0
if can_install_packages; then
    # shellcheck disable=SC2086  # a list of package names
    exec scripts/apt-install.sh $missing
fi
has_compiler || die "a C compiler with a static C library is needed: install the packages gcc and libc6-dev"
[ "$1" = test ] || die "the benchmarks need these packages installed:$missing"
say "not installed, so their tests will be skipped:$missing"
