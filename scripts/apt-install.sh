#!/bin/sh
# Installs Debian or Ubuntu packages without starting the services that they bring: apt-install.sh PACKAGE...
# Tests start their own Redis and PostgreSQL on free ports; nobody who runs them wants system services as well.
set -eu
. "$(dirname "$0")/lib.sh"

POLICY=/usr/sbin/policy-rc.d # asked by every package before it starts its service; 101 says no
SERVICES="redis-server postgresql nginx docker containerd"

can_install_packages || die "installing $* needs root and apt-get"

present_units() {
    for service in $SERVICES; do
        if [ -e "/lib/systemd/system/$service.service" ]; then echo "$service"; fi
    done
}

work=$(mktemp -d)
restore() {
    if [ -e "$work/policy" ]; then mv -f "$work/policy" "$POLICY"; else rm -f "$POLICY"; fi
    rm -rf "$work"
}
trap restore EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
if [ -e "$POLICY" ]; then mv "$POLICY" "$work/policy"; fi
printf '#!/bin/sh\nexit 101\n' >"$POLICY"
chmod 755 "$POLICY"

say "installing $* (apt-get)"
present_units >"$work/before"
export DEBIAN_FRONTEND=noninteractive
log="$work/log"
{
    apt-get update -q && apt-get install -y -q --no-install-recommends "$@"
} </dev/null >"$log" 2>&1 || {
    tail -n 15 "$log" >&2
    die "apt-get could not install $*"
}

# A service that came just now must not start with the machine either.
if [ -d /run/systemd/system ]; then
    present_units | grep -vxFf "$work/before" | while read -r service; do
        systemctl disable --quiet "$service.service" || true
    done
fi
