#!/usr/bin/env bash
# Runs a command block of README.md, found by the comment `# main-job` or `# tests` on its first line.
# With a second argument the block's environment (.venv/bin) is replaced by that folder and set-up lines are left out.
set -euo pipefail
block=$(awk -v tag="# $1" '/^```/{inside=0} inside{print} $0==tag{inside=1}' README.md)
[ -n "$block" ] || { echo "README.md has no block '# $1'" >&2; exit 1; }
if [ $# -gt 1 ]; then
    block=$(printf '%s\n' "$block" | sed "s#^.*&& \.venv/bin/ptwalk#$2/ptwalk#; s#\.venv/bin#$2#g")
fi
printf '%s\n' "$block" | sed 's/^/+ /'
bash -euo pipefail -c "$block"
