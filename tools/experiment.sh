#!/usr/bin/env bash
# Runs the whole pipeline with other params, beside the workspace: tools/experiment.sh NAME "TITLE" PARAM=VALUE...
# The leaderboard goes into docs/NAME.md, and the runs into MLflow with the tag dvc_experiment. Then the experiment is
# removed.
set -euo pipefail
name=$1 title=$2
shift 2
changes=()
for change in "$@"; do changes+=(--set-param "$change"); done
if ! git diff --quiet HEAD -- dvc.yaml params.yaml pipeline serving; then
    echo "error: commit the changes first (git status): the page says that nothing but the params was changed" >&2
    exit 1
fi
forget() {
    rm -f "docs/$name.md.part"
    git branch --quiet -D "$name-results" 2> /dev/null || true
    dvc exp remove --quiet "$name" 2> /dev/null || true
}
forget  # an interrupted run leaves these
trap forget EXIT
dvc exp run --temp --name "$name" "${changes[@]}"
dvc exp branch "$name" "$name-results"
{
    printf '# %s\n\nMade by `make %s`: this repository with `%s`, and nothing else changed.\n\n' "$title" "$name" "$*"
    git show "$name-results:reports/leaderboard.md"
} > "docs/$name.md.part"
mv "docs/$name.md.part" "docs/$name.md"
