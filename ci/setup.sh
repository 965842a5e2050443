#!/usr/bin/env bash
# Makes .venv with everything in requirements.txt, and installs missing system packages where it may.
# make calls it before each command; it installs when requirements.txt changed or this folder was moved, and a repeated
# call continues where an interrupted one stopped.
#   PYTHON       interpreter to use (default: python3, then python3.14 ... python3.11)
#   TORCH_INDEX  index with CPU builds of PyTorch, empty for PyPI's own build
set -euo pipefail
CDPATH= cd -P -- "$(dirname -- "$0")/.."
venv=.venv
torch_index=${TORCH_INDEX-https://download.pytorch.org/whl/cpu}

die() { echo "setup: $*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# The stamp holds the path of the environment, which its scripts hold too: elsewhere they do not run.
where() { (cd "$venv" && pwd -P); }
moved() { [ -s "$venv/.stamp" ] && [ "$(<"$venv/.stamp")" != "$(where)" ]; }

# An update of the system's Python leaves them to the version before.
has_packages() {
    local found='import os, sys; sys.exit(not os.path.isdir("%s/lib/python%d.%d" % (sys.argv[1], *sys.version_info[:2])))'
    "$venv/bin/python" -ISc "$found" "$venv" 2>/dev/null
}

up_to_date() {
    local source
    for source in requirements.txt ci/setup.sh ci/verilator-shim.sh; do
        [ "$venv/.stamp" -nt "$source" ] || return 1
    done
    ! moved && has_packages
}
if up_to_date; then exit 0; fi

# Of the characters of a path, these are the ones with which Verilator's makefiles work.
case $PWD in
    *[!A-Za-z0-9/._+@%~^!{}*?[\]-]*) die "Verilator cannot build in $PWD; move this folder to a path of letters A-Z and a-z, digits, . _ -" ;;
esac

# One setup at a time in this folder; who had to wait for another one finds its work done. This very file is the lock: one that is made
# and removed would be another file to whoever comes after the removal than to whoever waited before it.
if have flock; then
    exec 9<ci/setup.sh
    if ! flock -n 9; then
        flock 9
        up_to_date && exit 0
    fi
fi

usable_python() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    local candidate candidates=(python3 python3.14 python3.13 python3.12 python3.11)
    [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        if have "$candidate" && usable_python "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    die "Python 3.11 or newer is needed (PYTHON=... names one)"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then echo env; elif have sudo && sudo -n true 2>/dev/null; then echo sudo; fi
}

# Install system packages if there are any to install; says what to type where that is not allowed.
apt_install() {
    local root
    [ $# -gt 0 ] || return 0
    root=$(as_root)
    if have apt-get && [ -n "$root" ]; then
        echo "setup: installing $*"
        timeout 300 "$root" apt-get update -qq </dev/null >/dev/null 2>&1 || true
        timeout 600 "$root" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" </dev/null >/dev/null \
            || echo "setup: apt-get could not install $*" >&2
    else
        echo "setup: not installed: $*; to add: sudo apt-get install $*" >&2
    fi
}

install_system_packages() {
    local packages=()
    have iverilog || packages+=(iverilog)
    have g++ || packages+=(g++)
    have perl || packages+=(perl)
    have git || packages+=(git)
    [ -e /usr/include/lz4.h ] && [ -e /usr/include/zlib.h ] || packages+=(liblz4-dev zlib1g-dev)  # for waves
    "$python" -c 'import venv, ensurepip' 2>/dev/null || packages+=(python3-venv)
    apt_install ${packages[@]+"${packages[@]}"}
    have iverilog || echo "setup: no Icarus Verilog; the tests run on Verilator only" >&2
}

require_tools() {
    have g++ || die "g++ is needed to build simulations: sudo apt-get install g++"
    have make || die "GNU make is needed: sudo apt-get install make"
    have perl || die "perl is needed by Verilator: sudo apt-get install perl"
    have git || die "git is needed: sudo apt-get install git"
    "$python" -c 'import venv, ensurepip' 2>/dev/null || die "Python's venv is needed: sudo apt-get install python3-venv"
}

# cocotb loads Python into the simulator, from the shared library that some distributions leave out.
require_libpython() {
    local found='import find_libpython, sys; sys.exit(not find_libpython.find_libpython())' package
    "$venv/bin/python" -c "$found" && return
    package=$("$venv/bin/python" -c 'import sys; print("libpython%d.%d" % sys.version_info[:2])')
    apt_install "$package"
    "$venv/bin/python" -c "$found" || die "Python's shared library is needed by cocotb: sudo apt-get install $package"
}

# Of pip's settings in the environment only those count that say where packages are and how to get there.
keep_pip_sources() {
    local name
    for name in ${!PIP_@}; do
        case ${name#PIP_} in
            INDEX_URL | EXTRA_INDEX_URL | NO_INDEX | FIND_LINKS | CONFIG_FILE | CACHE_DIR | PROXY | CERT | CLIENT_CERT) ;;
            TRUSTED_HOST | KEYRING_PROVIDER | TIMEOUT | DEFAULT_TIMEOUT | RETRIES) ;;
            *) unset "$name" ;;
        esac
    done
}

pip_install() {
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-compile --no-warn-script-location "$@" </dev/null \
        | sed -u '/^Requirement already satisfied/d; /^Ignoring .* markers/d; /^Looking in/d'
}

# PyPI's PyTorch for Linux brings gigabytes of CUDA; the CPU index has a small build. It is asked for this one package
# only, and where it cannot be reached the plain build is taken.
install_torch() {
    local pin
    pin=$(grep '^torch==' requirements.txt)
    "$venv/bin/python" -c "import importlib.metadata as m; assert m.version('torch').split('+')[0] == '${pin#torch==}'" \
        2>/dev/null && return
    [ "$(uname -s)" = Linux ] && [ -n "$torch_index" ] || return 0
    pip_install --no-deps --retries 0 --timeout 15 --extra-index-url "$torch_index" "$pin" || true
}

python=$(find_python)
install_system_packages
require_tools
keep_pip_sources
if moved || ! has_packages || ! usable_python "$venv/bin/python" || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    echo "setup: creating $venv with $("$python" --version)"
    rm -rf "$venv"
    hash -r
    "$python" -m venv "$venv"
fi
echo "setup: installing Python packages (a few minutes the first time)"
install_torch
pip_install -r requirements.txt
require_libpython
install -m 755 ci/verilator-shim.sh "$venv/bin/verilator"
where >"$venv/.stamp"
echo "setup: done"
