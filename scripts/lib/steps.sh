# shellcheck shell=bash disable=SC2154 # cache and log are the sourcing script's
# Sourced by scripts that take minutes: one line of progress a step, its output in a log, nothing left behind when stopped.
# The caller sets `log` (a file, emptied by the caller).
job=

stop_job() {
  [ -z "$job" ] || { kill -- "-$job" && wait "$job"; } 2>/dev/null || true
  job=
}
trap stop_job EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

say() { printf '%-26s %s\n' "$1" "$2"; }

die() { # die WHAT ADVICE
  [ ! -t 1 ] || printf '\r\033[K'
  {
    printf '%s failed: %s\n' "$(basename "$0")" "$1"
    [ ! -s "$log" ] || tail -n 15 "$log" | sed 's/^/    | /'
    printf 'what to do: %s (whole log: %s)\n' "$2" "$log"
  } >&2
  exit 1
}

show_elapsed() { # show_elapsed LABEL ELAPSED_S ESTIMATE_S; on a terminal a line that moves, elsewhere one every 15 s
  if [ -t 1 ]; then
    printf '\r\033[K%-26s %d s of about %d s' "$@"
  elif (($2 >= ${next_line:-15})); then
    printf '%-26s %d s of about %d s so far\n' "$@"
    next_line=$(($2 + 15))
  fi
}

step() { # step LABEL ESTIMATE_S ADVICE COMMAND...: run it with its output in the log, or die with the advice
  local label=$1 estimate=$2 advice=$3 began=$SECONDS next_line=15
  shift 3
  echo "+ $label: $*" >>"$log"
  set -m # a process group of its own, so that stopping us stops all of it
  "$@" </dev/null >>"$log" 2>&1 9>&- &
  job=$!
  set +m
  while kill -0 "$job" 2>/dev/null; do
    show_elapsed "$label" $((SECONDS - began)) "$estimate"
    sleep 0.2
  done
  wait "$job" || { job= && die "$label" "$advice"; }
  job=
  [ ! -t 1 ] || printf '\r\033[K'
  say "$label" "$((SECONDS - began)) s"
}
