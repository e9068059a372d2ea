#!/bin/sh
# Makes .venv with the package (editable) and the tools for working on it. Does nothing when that has been done for
# this pyproject.toml in this folder. PYTHON=... chooses the interpreter.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

OLDEST="3.11"
STAMP=.venv/installed-for

is_recent() {
    has "$1" && "$1" -c "import sys; sys.exit(sys.version_info < tuple(map(int, '$OLDEST'.split('.'))))" 2>/dev/null
}

can_make_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# The distribution's own interpreter first: it is built with profile-guided optimisation, and runs a call in four
# fifths of the time that one compiled without needs (pyenv's default).
find_python() {
    for python in ${PYTHON:-/usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11}; do
        if is_recent "$python" && { can_make_venv "$python" || can_install_packages; }; then
            echo "$python"
            return
        fi
    done
    die "Python $OLDEST or newer with venv is needed: install it (on Debian 12 or newer: apt-get install python3 python3-venv) or say where it is with PYTHON=/path/to/python3"
}

# Debian and Ubuntu ship Python without the part that makes virtual environments.
need_venv() {
    can_make_venv "$1" && return
    scripts/apt-install.sh "$("$1" -c 'import sys; print(f"python{sys.version_info.major}.{sys.version_info.minor}-venv")')"
}

works() { .venv/bin/python -m pip --version >/dev/null 2>&1; }

# A moved virtual environment still runs the programs of where it was: the folder is part of the stamp.
wanted="$PWD $(sha256sum pyproject.toml | cut -d' ' -f1)"
made=$(cat "$STAMP" 2>/dev/null || true)
if [ "$made" = "$wanted" ] && .venv/bin/python -c '' 2>/dev/null; then exit 0; fi

if ! works || { [ -n "$made" ] && [ "${made% *}" != "$PWD" ]; }; then
    python=$(find_python)
    need_venv "$python"
    say "making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
fi
rm -f "$STAMP"

say "installing the package and its tools into .venv"
# `pip install --group` would need a newer pip than most machines have.
.venv/bin/python - >.venv/dev-tools.txt <<'PYTHON'
import tomllib
with open("pyproject.toml", "rb") as file:
    print("\n".join(tomllib.load(file)["dependency-groups"]["dev"]))
PYTHON
.venv/bin/python -m pip install -qq --disable-pip-version-check --no-input \
    --requirement .venv/dev-tools.txt --editable . || die "pip could not install what pyproject.toml asks for (see above)"
printf '%s\n' "$wanted" >"$STAMP"
