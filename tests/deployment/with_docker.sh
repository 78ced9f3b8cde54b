#!/usr/bin/env bash
# Runs a command with a Docker engine of its own, and leaves nothing behind:
#   tests/deployment/with_docker.sh .venv/bin/python -m pytest tests/deployment
# NOT beside another engine, whose network rules it would take away: it refuses then. For machines
# without an image registry: Debian, root, and its packages docker.io docker-compose iptables
# debootstrap. No image is pulled. Those that the project's files name are stand-ins under the same
# tags: Debian's Python and Redis in one small Debian, and of prometheus, prometheus-alertmanager
# and k6 what is installed here; without it, no image.
set -euo pipefail
cd "$(dirname "$0")/../.."

refuse() {
  echo "with_docker.sh: $1" >&2
  exit 1
}
[ $# -gt 0 ] || refuse "name the command to run"
if grep -q "^ *docker0:" /proc/net/dev; then
  refuse "an engine runs here, or has left its bridge docker0 behind (no engine: ip link delete docker0)"
fi
if docker --host unix:///var/run/docker.sock version >/dev/null 2>&1; then
  refuse "an engine answers at /var/run/docker.sock: run the command with that one, or stop it"
fi
[ "$(id -u)" = 0 ] || refuse "an engine can only be started by root"
for needed in dockerd docker-compose iptables-restore debootstrap; do
  command -v $needed >/dev/null ||
    refuse "no $needed: apt-get install -y --no-install-recommends docker.io docker-compose iptables debootstrap"
done

folder=$(mktemp -d)
root=$folder/root
export DOCKER_HOST=unix://$folder/docker.sock DOCKER_BUILDKIT=1
# Debian's client before others: it brings the builder that fits the engine.
PATH=/usr/bin:$PATH
ip_forward=$(cat /proc/sys/net/ipv4/ip_forward)
forward_policy=$(iptables -S FORWARD | awk '/^-P/{print $3}')

clean_up() {
  docker ps --all --quiet | xargs --no-run-if-empty docker rm --force --volumes >/dev/null
  docker network prune --force >/dev/null
  if [ -e "$folder/pid" ]; then
    engine=$(cat "$folder/pid")
    kill "$engine"
    for _ in $(seq 100); do [ -e "/proc/$engine" ] || break; sleep 0.1; done
  fi
  # The engine leaves its own rules behind; everybody else's stay as they are.
  iptables-save | grep -vi docker | iptables-restore
  iptables -P FORWARD "$forward_policy"
  echo "$ip_forward" >/proc/sys/net/ipv4/ip_forward
  ip link delete docker0
  rm -rf "$folder"
}
trap 'clean_up || true' EXIT

dockerd --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/pid" \
  --host "$DOCKER_HOST" >"$folder/log" 2>&1 &
engine_started() { docker version >/dev/null 2>&1; }
for _ in $(seq 60); do engine_started && break; sleep 0.5; done
engine_started || { tail -20 "$folder/log" >&2; refuse "the engine does not start (its log is above)"; }

# The release whose Python is 3.11. Builds may go through a proxy, and so have to trust what this
# machine trusts.
debootstrap --variant=minbase --include=ca-certificates,python3,python3-pip,redis-server \
  bookworm "$root" >"$folder/debootstrap" ||
  { tail -20 "$folder/debootstrap" >&2; refuse "debootstrap failed (its last lines are above)"; }
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
for name in python pip; do ln -s /usr/bin/${name}3 "$root/usr/local/bin/$name"; done
rm -f "$root"/usr/lib/python3.*/EXTERNALLY-MANAGED

# An image's name with the tag under which the project's files ask for it.
tagged() { grep -hoP "(image: |BASE_IMAGE=)\K$1:\S+" docker-compose.yml docker/*.Dockerfile | sort -u; }
base=$(tagged python)
tar -C "$root" -c . |
  docker import -c "ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt" - "$base" >/dev/null
rm -r "$root"
docker tag "$base" "$(tagged busybox)"

# stand_in IMAGE USER:GROUP DATA_FOLDER ENTRYPOINT [PROGRAM]: the base, which may get a program of
# this machine's, run like the real image.
stand_in() {
  local context=$folder/context program=
  rm -rf "$context"
  mkdir -p "$context/bin" "$context/share"
  if [ $# = 5 ]; then
    program=$(PATH=$PWD/.venv/bin:$PATH command -v "$5") || return 0
    cp "$program" "$context/bin/"
    # Debian's Alertmanager has its templates in there.
    [ ! -d /usr/share/prometheus ] || cp -r /usr/share/prometheus/. "$context/share/"
  fi
  docker build --quiet --tag "$(tagged "$1")" --file - "$context" >/dev/null <<DOCKERFILE
FROM $base
COPY bin /usr/local/bin/
COPY share /usr/share/prometheus/
RUN install -d -o ${2%:*} -g ${2#*:} $3
WORKDIR $3
USER $2
ENTRYPOINT $4
DOCKERFILE
}
# Redis's image, too, runs without protected mode.
stand_in redis 999:1000 /data '["sh", "-c", "exec \"$@\" --protected-mode no", "--"]'
stand_in prom/prometheus 65534:65534 /prometheus '["prometheus"]' prometheus
stand_in prom/alertmanager 65534:65534 /alertmanager '["prometheus-alertmanager"]' prometheus-alertmanager
stand_in grafana/k6 12345:12345 /home/k6 '["k6"]' k6

"$@"
