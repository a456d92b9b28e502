#!/bin/sh
# What `docker compose up` needs of this machine, checked before: each lack is one sentence that says how to mend it.
# usage: compose/check.sh [overlay ...]        as in: compose/check.sh gpu seaweedfs
# Exit status: 0 all is there, 1 something lacks, 2 wrong arguments.
set -u
cd "$(dirname "$0")" || exit 2

DOCKER=${DOCKER:-docker}
PROJECT=${COMPOSE_PROJECT_NAME:-headrace}
# Images, and room for a queue and its results.
NEEDED_GB=${NEEDED_GB:-12}
lacks=0

lack() {
    echo "error: $*" >&2
    lacks=1
}

for overlay in "$@"; do
    [ -f "$overlay.yml" ] || {
        echo "error: there is no overlay $overlay: $(ls ./*.yml | sed -n 's#^\./##; /docker-compose/d; s#\.yml$##p' | paste -sd' ')" >&2
        exit 2
    }
done

version=$("$DOCKER" version --format '{{.Server.Version}}' 2>&1) || {
    case $version in
    *"permission denied"*) lack "You may not use the Docker Engine: add yourself to the group docker (sudo usermod -aG docker \$USER), and log in again." ;;
    *) lack "The Docker Engine does not answer: start it (sudo systemctl start docker), or point DOCKER_HOST at it." ;;
    esac
    exit 1
}
[ "${version%%.*}" -ge 20 ] || lack "Docker Engine $version is too old: 20.10 or newer is needed."

if ! "$DOCKER" compose version >/dev/null 2>&1 && ! command -v docker-compose >/dev/null; then
    lack "Docker Compose is missing: install the plugin (Debian and Ubuntu: docker-compose-plugin)."
fi

# A variable of the shell or of .env, else the default.
port_of() {
    eval "value=\${$1:-}"
    [ -n "$value" ] || value=$(sed -n "s/^$1=//p" .env 2>/dev/null | tail -1)
    echo "${value:-$2}"
}

taken() {
    if command -v ss >/dev/null; then
        [ -n "$(ss -Hltn "sport = :$1" 2>/dev/null)" ]
    else
        # Hexadecimal, in the state LISTEN (0A).
        grep -qsE "^ *[0-9]+: [0-9A-F]+:$(printf %04X "$1") [0-9A-F]+:0000 0A" /proc/net/tcp /proc/net/tcp6
    fi
}

ours() {
    [ -n "$("$DOCKER" ps --quiet --filter "label=com.docker.compose.project=$PROJECT" --filter "publish=$1")" ]
}

while read -r name default what; do
    port=$(port_of "$name" "$default")
    if taken "$port" && ! ours "$port"; then
        lack "Port $port of this machine, for $what, is taken by another program: stop it, or choose another port, as in: $name=1$default docker compose up"
    fi
done <<'PORTS'
NATS_PORT 4222 NATS
NATS_MONITOR_PORT 8222 the monitoring of NATS
S3_PORT 9000 files
PROMETHEUS_PORT 9090 Prometheus
GRAFANA_PORT 3000 Grafana
PORTS

root=$("$DOCKER" info --format '{{.DockerRootDir}}')
if [ -d "$root" ]; then
    free_gb=$(df -Pk "$root" | awk 'NR == 2 { print int($4 / 1048576) }')
    [ "$free_gb" -ge "$NEEDED_GB" ] ||
        lack "$root has $free_gb GB free, and $NEEDED_GB GB are needed: make room (docker system prune), or move the Engine's data-root."
fi

for overlay in "$@"; do
    if [ "$overlay" = gpu ] && ! "$DOCKER" info --format '{{json .Runtimes}}' | grep -q nvidia; then
        lack "The Docker Engine has no NVIDIA runtime, which the gpu overlay needs: install the NVIDIA driver and the NVIDIA Container Toolkit, then nvidia-ctk runtime configure --runtime=docker; or leave the overlay out."
    fi
done

exit "$lacks"
