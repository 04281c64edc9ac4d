#!/usr/bin/env bash
# Makes .venv hold exactly what requirements.lock says; does nothing, fast, when it already does.
set -euo pipefail
cd -P "$(dirname "$0")/.."
PATH=${PATH//"$PWD/.venv/bin:"/}  # a half-made .venv must not make the next one

# Without git (an unpacked archive) DVC needs this setting. It belongs to this copy and is not committed.
if [ ! -e .git ] && ! grep -qs 'no_scm = true' .dvc/config.local; then
    printf '[core]\n    no_scm = true\n' >> .dvc/config.local
elif [ -e .git ] && [ -e .dvc/config.local ]; then
    sed -i '/^ *no_scm = true$/d' .dvc/config.local
fi

# If two set-ups run at once, the second one waits and then finds everything done.
if command -v flock > /dev/null; then
    mkdir -p .cache
    exec 9> .cache/setup.lock
    flock 9
fi

# The stamp is written last: an interrupted set-up starts over. A moved folder too: a .venv knows its own path.
stamp="$(cat requirements.lock tools/setup.sh tools/environment.pth tools/plots_page.py | sha256sum | cut -c1-64) $PWD"
same_python() {  # the one that PYTHON names, if it names one
    [ -z "${PYTHON:-}" ] || [ "$("$PYTHON" --version 2>&1)" = "$(.venv/bin/python --version 2>&1)" ]
}
if [ "$(cat .venv/.stamp 2>/dev/null || true)" = "$stamp" ] && same_python; then
    [ -e .cache/plots.html ] || .venv/bin/python tools/plots_page.py
    exit 0
fi

python=""
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    found=$(${PYTHON:-python3} --version 2>&1 | head -n 1 || true)
    echo "error: Python 3.11, 3.12 or 3.13 with venv is needed, found: ${found:-none}; name one with PYTHON=/path/to/python3" >&2
    exit 1
fi

echo "setting up .venv with $("$python" --version) (some minutes on a slow line: torch brings its GPU libraries)"
"$python" -m venv --clear .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check "$(grep -o '^uv==[0-9.]*' requirements.lock)"
# A package mirror that pip is set up for serves uv too.
mirror=$(.venv/bin/python -m pip config get global.index-url 2>/dev/null || true)
mirror=${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-$mirror}}
[ -z "$mirror" ] || export UV_DEFAULT_INDEX=$mirror
# Bytecode is compiled here once, on all cores: some systems forbid Python to write it, and every import would compile.
UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-300} .venv/bin/uv pip sync --quiet --compile-bytecode --python .venv/bin/python --require-hashes requirements.lock
cp tools/environment.pth "$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/car_or_truck.pth"
.venv/bin/python tools/plots_page.py
echo "$stamp" > .venv/.stamp
