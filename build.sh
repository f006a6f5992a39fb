#!/usr/bin/env bash
# The one build script. `./build.sh` alone prints what it can do.
#
# It finds Node.js, or installs it where that needs no password, and hands over to www/tools/build/, where each verb sets up
# the rest of what it needs (toolchain.mjs). Nothing calls sudo or asks a question: what cannot be installed without root
# is named, with the line that installs it.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

MIN_NODE=20.19

have() { command -v "$1" >/dev/null 2>&1; }
# version_at_least HAVE WANT
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n1)" = "$2" ]; }

node_ok() { have node && have npm && version_at_least "$(node --version | tr -d v)" "$MIN_NODE"; }

# Installs the distribution's Node.js, if this user may and it is new enough.
apt_node() {
  have apt-get && [ "$(id -u)" = 0 ] || return 1
  printf '\n== installing nodejs npm\n'
  export DEBIAN_FRONTEND=noninteractive
  mkdir -p target/logs
  apt-get update -q >target/logs/apt-update.log 2>&1 || printf '   (some package lists could not be refreshed)\n'
  local candidate
  candidate=$(apt-cache policy nodejs | awk '/Candidate:/ { print $2 }')
  if ! version_at_least "${candidate:-0}" "$MIN_NODE"; then
    printf '   the distribution has nodejs %s, which is too old\n' "${candidate:-(none)}"
    return 1
  fi
  apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 nodejs npm >target/logs/apt-install.log 2>&1 </dev/null || {
    tail -n 5 target/logs/apt-install.log >&2
    return 1
  }
}

if ! node_ok; then
  if ! apt_node || ! node_ok; then
    printf '\nerror: Node.js %s or newer (with npm) is missing.\n' "$MIN_NODE" >&2
    printf '       Install it from the Node.js home page or your distribution (packages nodejs and npm), and run this again.\n' >&2
    exit 1
  fi
fi

exec node www/tools/build/main.mjs "$@"
