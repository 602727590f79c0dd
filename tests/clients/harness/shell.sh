#!/usr/bin/env bash
# For the `setup` and `run` of the tests with real clients; sourced by them. Their working directory is that of their part.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
NODE_WANTED=20

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
fail() {
    printf '%s: %s\n' "${PWD#"$ROOT/"}" "$*" >&2
    exit 1
}

# Node.js, from Debian where it is missing; one that is too old is left alone.
node_js() {
    if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
        "$ROOT/dev" packages nodejs npm
    fi
    local major
    major=$(node --version 2>/dev/null | sed -n 's/^v\([0-9]*\)\..*/\1/p')
    if ((${major:-0} < NODE_WANTED)) || ! command -v npm >/dev/null; then
        fail "Node.js $NODE_WANTED or newer with npm is needed, this is $(node --version 2>/dev/null || echo none): please install it, from https://nodejs.org/en/download or with \`nvm install $NODE_WANTED\`"
    fi
}

# The packages of package-lock.json, unless they are there.
npm_packages() {
    node_js
    [[ node_modules/.package-lock.json -nt package-lock.json ]] && return
    say "installing npm packages for ${PWD#"$ROOT/"}"
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error ||
        fail "the packages could not be installed; please run: npm ci"
    touch node_modules/.package-lock.json
}

# The virtual environment of requirements.txt, outside of the clone: a new one when what it is made of changes.
python_environment() {
    local name
    name=$({ python3 --version && cat requirements.txt; } | sha256sum | cut -c1-16)
    echo "${XDG_CACHE_HOME:-$HOME/.cache}/tidings/python-$name"
}

python_packages() {
    if ! python3 -c 'import ensurepip' 2>/dev/null; then
        "$ROOT/dev" packages python3 python3-venv
    fi
    local environment
    environment=$(python_environment)
    [[ -e $environment/complete ]] && return
    say "installing Python packages for ${PWD#"$ROOT/"}"
    rm -rf "$environment"
    if ! python3 -m venv "$environment" ||
        ! "$environment/bin/pip" install --quiet --disable-pip-version-check --requirement requirements.txt; then
        fail "the packages could not be installed; Python 3.10 or newer with venv is needed, this is $(python3 --version 2>&1)"
    fi
    touch "$environment/complete"
}

# Runs what is given, keeps count in PASSED and FAILED of what `count` says of its output, and goes on whatever comes of it.
PASSED=0 FAILED=0
counted() {
    local count=$1 output status=0 passed failed
    shift
    output=$(mktemp)
    "$@" | tee "$output" || status=$?
    read -r passed failed < <("$count" <"$output")
    rm -f "$output"
    # What failed without a word of any test failed all the same.
    if ((status != 0 && failed == 0)); then failed=1; fi
    ((PASSED += passed, FAILED += failed)) || true
}

node_count() { awk '/^ℹ pass /{ passed += $3 } /^ℹ (fail|cancelled) /{ failed += $3 } END { print passed + 0, failed + 0 }'; }

node_tests() { FORCE_COLOR=0 counted node_count node --test --test-reporter=spec ./*.test.mjs; }

# Of the last line: `1 failed, 8 passed, 2 errors in 15.75s`.
pytest_count() {
    tail -n 1 | awk '{ for (i = 1; i < NF; i++) { if ($(i + 1) ~ /^passed/) passed = $i; if ($(i + 1) ~ /^(failed|error)/) failed += $i } } END { print passed + 0, failed + 0 }'
}

python_tests() {
    PYTHONDONTWRITEBYTECODE=1 counted pytest_count "$(python_environment)/bin/python" -m pytest --color=no "$@"
}

# The closing line.
closing() {
    printf '%d passed, %d failed\n' "$PASSED" "$FAILED"
    ((FAILED == 0 && PASSED > 0))
}
