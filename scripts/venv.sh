#!/bin/sh
# Make or mend a virtual environment and install into it, with uv when it is there and plain pip when not.
#
#   sh scripts/venv.sh VENV -e '.[test]'     install; whatever is half-made or broken is made anew
#   sh scripts/venv.sh --stale VENV          print why VENV has to be made anew, or nothing
#
# Environment: PYTHON, the interpreter to use (default: the first Python >= 3.10 found);
#              UV, the uv command (default: uv; empty: use pip).
set -eu

# What an installation in progress leaves behind when it is cut short; its content says for which folder.
unfinished=.unfinished
made_for=.made-for
# Disk space below which a failure is likely: PyTorch for Linux brings its CUDA libraries, 6 GB unpacked.
roomy_kb=8000000

say() { printf 'erfattr: %s\n' "$*" >&2; }
fail() {
    say "$1"
    shift
    for line in "$@"; do printf '         %s\n' "$line" >&2; done
    exit 1
}

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }
new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; }

stale() {
    [ -d "$1" ] || return 0
    [ -e "$1/$unfinished" ] && { echo "its installation was cut short"; return 0; }
    # Scripts and the editable installation hold absolute paths: in a moved or copied folder they mislead.
    if [ -e "$1/$made_for" ] && [ "$(cat "$1/$made_for")" != "$(pwd -P)" ]; then
        echo "it was made for another folder"
        return 0
    fi
    new_enough "$1/bin/python" || { echo "no Python >= 3.10 runs in it"; return 0; }
    if [ -n "${PYTHON:-}" ] && [ "$(version_of "$PYTHON")" != "$(version_of "$1/bin/python")" ]; then
        echo "it is not of the Python that PYTHON=$PYTHON names"
    fi
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        version=$(version_of "$PYTHON") || fail "PYTHON=$PYTHON does not run." \
            "Give a command or a path, such as PYTHON=python3.12, or leave it out."
        new_enough "$PYTHON" || fail "PYTHON=$PYTHON is Python $version; 3.10 or newer is needed."
        printf '%s\n' "$PYTHON"
        return
    fi
    for candidate in python3 python python3.13 python3.12 python3.11 python3.10 python3.14; do
        if new_enough "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
}

remove() {
    # Only what is a virtual environment, or the start of one, is ever removed.
    if [ ! -e "$1/pyvenv.cfg" ]; then
        for entry in "$1"/* "$1"/.[!.]*; do
            case ${entry##*/} in
            bin | include | lib | lib64 | share | CACHEDIR.TAG | .gitignore | .lock) ;;
            "$made_for" | "$unfinished" | '*' | '.[!.]*') ;;
            *) fail "$1 is there and is not a virtual environment." \
                "Move it away, or choose another name: make VENV=another-name ..." ;;
            esac
        done
    fi
    rm -rf "$1"
}

explain() { # LOG VENV: turn the installer's own message into what to do about it
    version=$(version_of "$2/bin/python" || echo unknown)
    if grep -qiE 'no space left|disk quota|os error 28|errno 28' "$1"; then
        fail "the disk is full ($(($(free_kb "$2") / 1000)) MB free at $2)." \
            "With CUDA, as Linux gets PyTorch, the packages take about 6 GB." \
            "Free some space (uv cache clean, pip cache purge) and run the same command again."
    elif grep -qiE 'name resolution|getaddrinfo|dns error|failed to lookup|NewConnectionError|connection (refused|reset|error)|error sending request|could not connect|failed to connect|network is unreachable|timed out|max retries|network connectivity|proxyerror|tunnel' "$1"; then
        fail "the package index could not be reached." \
            "The first installation needs a network connection: check it, and the proxy and index settings" \
            "of uv or pip if you have any, then run the same command again. What was fetched is kept."
    elif grep -qiE 'no matching distribution|no solution found|requires-python|no wheels with a matching' "$1"; then
        fail "some package has no release for Python $version on this system (see above)." \
            "A Python that is very new is the usual reason: name an older one, such as PYTHON=python3.12."
    elif grep -qiE 'permission denied|read-only file system|errno 13|os error 13' "$1"; then
        fail "some file could not be written (see above); the folder must belong to you: $(pwd -P)"
    fi
    fail "the installation failed; the installer's own message stands above."
}

free_kb() { df -Pk "$(dirname "$1")" 2>/dev/null | awk 'NR == 2 { print $4 }'; }

if [ "${1:-}" = --stale ]; then
    stale "$2"
    exit 0
fi
[ $# -ge 2 ] || fail "usage: sh scripts/venv.sh VENV REQUIREMENT..."
venv=$1
shift

uv=${UV-uv}
[ -z "$uv" ] || "$uv" --version >/dev/null 2>&1 || uv=

python=$(find_python)
if [ -z "$python" ] && [ -z "$uv" ]; then
    fail "no Python 3.10 or newer was found (python3 is $(version_of python3 || echo missing))." \
        "Install one, or install uv, which brings its own; or name one: PYTHON=/path/to/python3.12"
fi

reason=$(stale "$venv")
if [ -n "$reason" ]; then
    remove "$venv"
    say "$venv is made anew: $reason."
fi

log=$(mktemp "${TMPDIR:-/tmp}/erfattr-install.XXXXXX") || fail "no temporary file could be made; is the disk full?"
trap 'rm -f "$log" "$log.status"' EXIT
trap 'exit 130' INT TERM

# Shows everything as it comes and keeps the error output for explain(); a pipe alone would lose the status.
logged() {
    { { "$@" 2>&1 1>&3 && echo 0 >"$log.status" || echo 1 >"$log.status"; } | tee -a "$log" >&2; } 3>&1
    [ "$(cat "$log.status")" = 0 ]
}

# Settings of the user's that would lead the installation out of the virtual environment.
unset PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV PYTHONHOME || :

fresh=
if [ ! -d "$venv" ]; then
    fresh=yes
    free=$(free_kb "$venv")
    if [ "${free:-$roomy_kb}" -lt "$roomy_kb" ]; then
        say "only $((free / 1000)) MB are free here; with CUDA the packages take about 6000 MB."
    fi
    mkdir -p "$venv" 2>/dev/null || fail "the folder $venv cannot be made in $(pwd -P); it must be writable."
    : >"$venv/$unfinished" || fail "nothing can be written into $venv; is the disk full, or not yours to write?"
    if [ -n "$uv" ]; then
        say "making $venv with uv"
        logged "$uv" venv --quiet --allow-existing --python "${python:->=3.10}" "$venv" || explain "$log" "$venv"
    else
        say "making $venv with $python (Python $(version_of "$python")); uv, if installed, is quicker"
        if ! logged "$python" -m venv "$venv"; then
            grep -qiE 'no space left|permission denied' "$log" && explain "$log" "$venv"
            fail "$python cannot make virtual environments." \
                "On Debian and Ubuntu the package python3-venv is missing: sudo apt install python3-venv"
        fi
    fi
fi

if [ -z "$uv" ] && ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    say "adding pip, which $venv lacks (uv made it)"
    logged "$venv/bin/python" -m ensurepip --default-pip || explain "$log" "$venv"
fi

: >"$venv/$unfinished" || fail "nothing can be written into $venv; is the disk full, or not yours to write?"
say "installing $* (the first time takes minutes: PyTorch is large)"
install() {
    if [ -n "$uv" ]; then
        logged "$uv" pip install --python "$venv/bin/python" "$@"
        return
    fi
    # The pip that an old Python brings may not know editable installs of a pyproject.toml.
    [ -z "$fresh" ] || logged "$venv/bin/python" -m pip install --quiet --upgrade pip || return 1
    logged "$venv/bin/python" -m pip install "$@"
}
if ! install "$@"; then
    # An environment that was whole before is kept: a lost network connection does not break it.
    [ -n "$fresh" ] || rm -f "$venv/$unfinished"
    explain "$log" "$venv"
fi

case $venv in /*) python=$venv/bin/python ;; *) python=$PWD/$venv/bin/python ;; esac
# From another folder, so that it is the installed package that is imported.
if ! message=$(cd / && "$python" -c 'import erfattr, torch, torchvision' 2>&1); then
    printf '%s\n' "$message" | tail -n 5 >&2
    fail "everything was installed, and yet erfattr, torch and torchvision cannot be imported (see above)." \
        "Running the same command again makes the environment anew."
fi
pwd -P >"$venv/$made_for"
rm -f "$venv/$unfinished"
