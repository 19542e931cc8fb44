# shellcheck shell=bash disable=SC2154 # cache and log are the sourcing script's
# Sourced by scripts/kind and scripts/images: the Docker engine: the user's where it starts privileged containers, else one
# of our own on a private socket. Ours touches neither the firewall nor forwarding of this machine, and has no default bridge.
run=/run/market-data-runner
socket=unix://$run/docker.sock
group=/market-data-runner

engine_answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

use_engine() { # the one that is running: ours before the user's
  if [ -S $run/docker.sock ] && DOCKER_HOST=$socket engine_answers; then export DOCKER_HOST=$socket; else engine_answers; fi
}

engine_is_ours() { [ "${DOCKER_HOST:-}" = $socket ]; }

privileged_works() { # tried with an image made of one static program, so that no registry is asked
  local name=runner-probe
  engine_answers || return 1
  docker image inspect $name >/dev/null 2>&1 ||
    tar --create --directory "$cache/kind-$KIND" kind | docker import - $name >/dev/null 2>&1 || return 1
  docker run --rm --privileged --network none $name /kind version >/dev/null 2>&1
}

start_engine() {
  mkdir -p $run "$cache/engine"
  rm -f $run/docker.pid $run/docker.sock # an engine that was killed leaves both, and its number may be another's by now
  PATH=$cache/engine-$ENGINE:$cache/containerd-$CONTAINERD:$cache/runc-$RUNC:$PATH setsid --fork dockerd \
    --host $socket --data-root "$cache/engine" --exec-root $run/exec --pidfile $run/docker.pid \
    --bridge none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false \
    --cgroup-parent $group --feature containerd-snapshotter=false --storage-driver overlay2 \
    >"$cache/engine.log" 2>&1 </dev/null 9>&-
  for _ in $(seq 300); do
    ! DOCKER_HOST=$socket engine_answers || return 0
    sleep 0.2
    [ -n "$(engine_processes)" ] || break
  done
  tail -n 20 "$cache/engine.log"
  return 1
}

engine_processes() { # our engine and what it started, known by our private folder in their command lines
  pgrep -f "^([^ ]*/)?(dockerd|containerd|containerd-shim-runc-v2) .*$run/" || true
}

signal_engine() { # signal_engine SIGNAL TRIES: until none of its processes is left
  local pids
  for _ in $(seq "$2"); do
    mapfile -t pids < <(engine_processes)
    [ ${#pids[@]} -gt 0 ] || return 0
    kill "-$1" "${pids[@]}" 2>/dev/null || true
    sleep 0.2
  done
  return 1
}

contained_processes() { # what runs in our engine's control groups: also containers whose engine was killed
  find /sys/fs/cgroup -path "*$group/*" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -un
}

stop_engine() { # asked first, then killed; also what an engine that died has left
  local mount pids
  signal_engine TERM 100 || signal_engine KILL 25 || return 1
  mapfile -t pids < <(contained_processes)
  [ ${#pids[@]} = 0 ] || { kill -KILL "${pids[@]}" 2>/dev/null && sleep 1; } || true
  while read -r mount; do umount --lazy "$mount" || true; done < <(
    awk '{print $5}' /proc/self/mountinfo | grep -E "^($run|$cache/engine)(/|$)" | sort -r
  )
  rm -rf --one-file-system $run
  # Empty groups of containers that are gone; a group in use refuses to be removed.
  find /sys/fs/cgroup -depth -mindepth 2 -type d -path "*$group*" -exec rmdir {} + 2>/dev/null || true
}
