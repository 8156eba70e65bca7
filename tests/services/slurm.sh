#!/usr/bin/env bash
# Run tests/services/test_slurm.py on a Slurm of its own: this machine is its only node,
# and nothing of it is left afterwards. Needs root and, for missing packages, Debian's apt.
#
#   tests/services/slurm.sh [pytest arguments]
#   tests/services/slurm.sh -- COMMAND...
#   SLURM_SLOTS=4            tasks at a time; 2 if not given
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

slots=${SLURM_SLOTS:-2}
python=${PYTHON:-.venv/bin/python}
packages=()
command -v munged >/dev/null || packages+=(munge)
command -v slurmctld >/dev/null || packages+=(slurmctld)
command -v slurmd >/dev/null || packages+=(slurmd)
command -v sbatch >/dev/null || packages+=(slurm-client)
if ((${#packages[@]})); then
  apt-get update --quiet
  DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends "${packages[@]}"
fi

folder=$(mktemp --directory)
chmod 755 "$folder"
mkdir "$folder/munge" "$folder/state" "$folder/spool"
chmod 700 "$folder/state" "$folder/spool"
export SLURM_CONF=$folder/slurm.conf

stop() {
  status=$?
  trap - EXIT INT TERM
  scancel --quiet --user="$(id -un)" 2>/dev/null || true
  for _ in {1..200}; do
    [[ $(squeue --noheader 2>/dev/null) ]] || break
    sleep 0.2
  done
  for name in slurmd slurmctld munged; do
    [[ -s $folder/$name.pid ]] || continue
    pid=$(<"$folder/$name.pid")
    kill "$pid" 2>/dev/null || continue
    for _ in {1..100}; do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
  done
  if ((status)); then
    tail -n 20 "$folder"/*.log >&2 || true
  fi
  rm -rf "$folder"
  exit "$status"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

free_port() {
  "$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Ports of its own: two of these may run side by side.
host=$(hostname --short)
cat >"$SLURM_CONF" <<CONF
ClusterName=private
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
KillWait=30
NodeName=$host NodeAddr=127.0.0.1 CPUs=$slots State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF

"$python" -c 'import os, sys; sys.stdout.buffer.write(os.urandom(1024))' >"$folder/munge.key"
chmod 600 "$folder/munge.key"
munged --force --socket="$folder/munge/socket" --key-file="$folder/munge.key" \
  --pid-file="$folder/munged.pid" --seed-file="$folder/munged.seed" --log-file="$folder/munged.log"
slurmctld -f "$SLURM_CONF"
slurmd -f "$SLURM_CONF"
for _ in {1..100}; do
  if [[ $(sinfo --noheader --format=%T 2>/dev/null) == idle ]]; then
    ready=yes
    break
  fi
  sleep 0.2
done
[[ ${ready:-} ]] || { echo 'slurm.sh: the node did not come up' >&2; exit 1; }

if [[ ${1:-} == -- ]]; then
  "${@:2}"
else
  "$python" -m pytest tests/services/test_slurm.py "$@"
fi
