#!/usr/bin/env bash
# The tests of the remotes, against real services on loopback: a folder, SSH (OpenSSH),
# S3 (OpenStack Swift's s3api), WebDAV (WsgiDAV), and reading over HTTP.
#
#   tests/services/run.sh [pytest arguments]
#
# Needs Debian and a file system with extended attributes under TMPDIR. Missing Debian
# packages are installed (as root); Python packages come into .venv-services, which is
# built once and anew when requirements.lock or pyproject.toml changes. PYTHON and TORCH_ARGS
# mean what they mean in the Makefile. The services are stopped and their folder is removed,
# also after a failure or an interruption; a worker of DVC's queue that is met in the middle
# of a test ends by itself once its queue is empty.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

PYTHON=${PYTHON:-python3}
ENVIRONMENTS=$PWD/.venv-services
STUDY_BIN=$ENVIRONMENTS/study/bin
SERVER_BIN=$ENVIRONMENTS/servers/bin
KEY=test:tester
SECRET=testing
work=$(mktemp -d "${TMPDIR:-/tmp}/services.XXXXXX")
pids=()

say() { printf '\n== %s\n' "$*"; }

die() {
  printf 'services: %s\n' "$*" >&2
  exit 1
}

stop_services() {
  if [ ${#pids[@]} -gt 0 ]; then
    kill "${pids[@]}" 2>/dev/null || true
    wait "${pids[@]}" 2>/dev/null || true
  fi
  pids=()
}

clean_up() {
  stop_services
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

install_debian_packages() {
  local missing=()
  [ -x /usr/sbin/sshd ] || missing+=(openssh-server)
  command -v ssh-keygen >/dev/null || missing+=(openssh-client)
  command -v memcached >/dev/null || missing+=(memcached)
  if [ ${#missing[@]} -eq 0 ]; then return; fi
  say "Debian packages: ${missing[*]}"
  [ "$(id -u)" -eq 0 ] || die "missing Debian packages; as root: apt-get install ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends "${missing[@]}"
}

# The locked environment with DVC's extras, at the locked versions of what they share; the
# servers apart, since their dependencies are not the project's.
build_environments() {
  local stamp=$ENVIRONMENTS/.built pip=(-m pip --disable-pip-version-check --quiet)
  if [ "$stamp" -nt requirements.lock ] && [ "$stamp" -nt pyproject.toml ]; then return; fi
  say 'Python environments'
  rm -rf "$ENVIRONMENTS"
  "$PYTHON" -m venv "$ENVIRONMENTS/study"
  "$PYTHON" -m venv "$ENVIRONMENTS/servers"
  grep -oE '^[A-Za-z0-9._-]+==[^ ;]+' requirements.lock >"$ENVIRONMENTS/constraints.txt"
  "$STUDY_BIN/python" "${pip[@]}" install --require-hashes --no-deps -r requirements.lock
  # shellcheck disable=SC2086 # several arguments
  "$STUDY_BIN/python" "${pip[@]}" install ${TORCH_ARGS:-} \
    "$(sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)"
  "$STUDY_BIN/python" "${pip[@]}" install --constraint "$ENVIRONMENTS/constraints.txt" \
    dvc-s3 dvc-ssh dvc-webdav
  "$STUDY_BIN/python" "${pip[@]}" install --no-build-isolation --no-deps --editable .
  # As in the Makefile: pty-chi is installed without what it does not need here.
  if "$STUDY_BIN/python" "${pip[@]}" check | grep -v -e '^ptychi ' -e '^No broken requirements'; then
    die 'packages do not fit together, see above'
  fi
  "$SERVER_BIN/python" "${pip[@]}" install swift wsgidav cheroot
  touch "$stamp"
}

# Ports that are free at the moment, one per argument, assigned to the names given.
choose_ports() {
  local ports
  mapfile -t ports < <("$PYTHON" - "$#" <<'PY'
import socket
import sys

sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(held.getsockname()[1] for held in sockets), sep="\n")
PY
  )
  local name
  for name in "$@"; do
    printf -v "$name" '%s' "${ports[0]}"
    ports=("${ports[@]:1}")
  done
}

# start NAME PORT COMMAND...: run it in the background and wait until it listens.
start() {
  local name=$1 port=$2 _
  shift 2
  "$@" >"$work/$name.log" 2>&1 </dev/null &
  pids+=($!)
  for _ in {1..200}; do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return; fi
    kill -0 "${pids[-1]}" 2>/dev/null || break
    sleep 0.1
  done
  cat "$work/$name.log" >&2
  die "$name does not listen on port $port"
}

start_ssh() {
  local folder=$work/ssh
  mkdir -p "$folder/store"
  ssh-keygen -q -t ed25519 -N '' -f "$folder/host_key"
  ssh-keygen -q -t ed25519 -N '' -f "$folder/key"
  cp "$folder/key.pub" "$folder/authorized_keys"
  # Where sshd, run as root, keeps its unprivileged process; its package's service makes it.
  if [ "$(id -u)" -eq 0 ]; then mkdir -p /run/sshd; fi
  cat >"$folder/sshd_config" <<EOF
ListenAddress 127.0.0.1:$SSH_PORT
HostKey $folder/host_key
AuthorizedKeysFile $folder/authorized_keys
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
Subsystem sftp internal-sftp
EOF
  start ssh "$SSH_PORT" /usr/sbin/sshd -D -e -f "$folder/sshd_config"
}

# One proxy, which speaks S3, and one server each for accounts, containers and objects,
# with one replica on one device.
start_swift() {
  local folder=$work/swift kind port
  mkdir -p "$folder/devices/disk"
  printf '[swift-hash]\nswift_hash_path_suffix = loopback\n' >"$folder/swift.conf"
  start memcached "$MEMCACHED_PORT" \
    memcached --user="$(id -un)" --listen=127.0.0.1 --port="$MEMCACHED_PORT" --udp-port=0
  for kind in account container object; do
    port=${kind^^}_PORT
    "$SERVER_BIN/swift-ring-builder" "$folder/$kind.builder" create 2 1 0
    "$SERVER_BIN/swift-ring-builder" "$folder/$kind.builder" add "r1z1-127.0.0.1:${!port}/disk" 1
    "$SERVER_BIN/swift-ring-builder" "$folder/$kind.builder" rebalance
    cat >"$folder/$kind-server.conf" <<EOF
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = ${!port}
user = $(id -un)
swift_dir = $folder
devices = $folder/devices
mount_check = false
workers = 0
[pipeline:main]
pipeline = $kind-server
[app:$kind-server]
use = egg:swift#$kind
EOF
    start "swift-$kind" "${!port}" \
      "$SERVER_BIN/swift-$kind-server" "$folder/$kind-server.conf" --verbose
  done >"$work/rings.log"
  cat >"$folder/proxy-server.conf" <<EOF
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = $S3_PORT
user = $(id -un)
swift_dir = $folder
workers = 0
[pipeline:main]
pipeline = catch_errors cache s3api tempauth bulk slo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:$MEMCACHED_PORT
[filter:s3api]
use = egg:swift#s3api
[filter:tempauth]
use = egg:swift#tempauth
user_${KEY/:/_} = $SECRET .admin
[filter:bulk]
use = egg:swift#bulk
[filter:slo]
use = egg:swift#slo
EOF
  start swift-proxy "$S3_PORT" "$SERVER_BIN/swift-proxy-server" "$folder/proxy-server.conf" --verbose
  "$STUDY_BIN/python" - "http://127.0.0.1:$S3_PORT" "$KEY" "$SECRET" <<'PY'
import sys

from s3fs import S3FileSystem

address, key, secret = sys.argv[1:]
S3FileSystem(endpoint_url=address, key=key, secret=secret).mkdir("bucket")
PY
}

start_webdav() {
  local folder=$work/webdav
  mkdir -p "$folder/root/study"
  cat >"$folder/wsgidav.yaml" <<EOF
host: 127.0.0.1
port: $WEBDAV_PORT
provider_mapping:
  "/": $folder/root
simple_dc:
  user_mapping:
    "*":
      user:
        password: $SECRET
EOF
  start webdav "$WEBDAV_PORT" "$SERVER_BIN/wsgidav" --config "$folder/wsgidav.yaml" --server cheroot
}

start_http() {
  mkdir -p "$work/folder"
  start http "$HTTP_PORT" \
    "$PYTHON" -m http.server --bind 127.0.0.1 --directory "$work/folder" "$HTTP_PORT"
}

export_addresses() {
  export SERVICES_FOLDER=$work/folder
  export SERVICES_STUDY=$work/study
  SERVICES_SSH_URL=ssh://$(id -un)@127.0.0.1:$SSH_PORT$work/ssh/store
  export SERVICES_SSH_URL
  export SERVICES_SSH_KEY=$work/ssh/key
  export SERVICES_S3_ADDRESS=http://127.0.0.1:$S3_PORT
  export SERVICES_S3_KEY=$KEY
  export SERVICES_S3_SECRET=$SECRET
  export SERVICES_WEBDAV_URL=webdav://127.0.0.1:$WEBDAV_PORT/study
  export SERVICES_WEBDAV_USER=user
  export SERVICES_WEBDAV_PASSWORD=$SECRET
  export SERVICES_HTTP_URL=http://127.0.0.1:$HTTP_PORT
}

run_tests() {
  PATH="$STUDY_BIN:$PATH" OMP_WAIT_POLICY=PASSIVE pytest -m services "$@"
}

install_debian_packages
build_environments
choose_ports SSH_PORT S3_PORT WEBDAV_PORT HTTP_PORT MEMCACHED_PORT ACCOUNT_PORT CONTAINER_PORT OBJECT_PORT
say 'services'
start_ssh
start_swift
start_webdav
start_http
export_addresses

say 'tests'
run_tests tests/services/test_remotes.py "$@"
say 'tests, with the services stopped and the folder gone'
stop_services
mv "$work/folder" "$work/folder-away"
run_tests tests/services/test_remotes_away.py "$@"
