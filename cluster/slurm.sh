#!/usr/bin/env bash
# A search on Slurm: a Ray head and workers that run as long as the job.
#
#   sbatch --nodes=5 --gpus-per-node=4 cluster/slurm.sh --family gru --tracks /scratch/music \
#       --trials 200 --refit-folds 5 --results /scratch/mgc_ray/results --name gru-200
#
# The arguments after the script's name are those of mgc_ray.search. The first node is the head and
# runs no trials. --results must be on a file system that all nodes share (or give --storage). After a
# job has reached its time limit: the same with --resume NAME --results DIR.
#SBATCH --job-name=mgc_ray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --exclusive
#SBATCH --time=24:00:00
set -euo pipefail

: "${MGC_RAY_VENV:=.venv}" # with the versions of requirements.lock, on a file system that all nodes share
# shellcheck source=/dev/null
source "$MGC_RAY_VENV/bin/activate"

# since Slurm 22.05 srun does not take it from sbatch, and a step would have one CPU
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"

# Only processes with this job's token can use its Ray; only this user can read the file.
token=$(mktemp -p "${HOME}" .mgc_ray-token.XXXXXXXX)
python -c 'import secrets; print(secrets.token_hex(32), end="")' > "$token"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$token"
trap 'rm -f "$token"; kill $(jobs -p) 2> /dev/null || true; wait' EXIT

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 20000)) # different for jobs that share a node

step=(srun --nodes=1 --ntasks=1 --exact)

"${step[@]}" --nodelist="$head" ray start --head --node-ip-address="$address" --port="$port" \
  --num-cpus=0 --num-gpus=0 --include-dashboard=false --disable-usage-stats --block &
python - "$address" "$port" << 'PYTHON'
import socket, sys, time
deadline = time.monotonic() + 120
while True:
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5).close()
        break
    except OSError:
        if time.monotonic() > deadline:
            sys.exit("the head of the Ray cluster did not come up within 120 s")
        time.sleep(1)
PYTHON
for node in "${nodes[@]:1}"; do
  "${step[@]}" --nodelist="$node" ray start --address="$address:$port" --num-cpus="${SLURM_CPUS_PER_TASK:-1}" \
    --disable-usage-stats --block &
done
sleep 20 # a worker that starts later joins while the search runs

# --overlap: together with the head's own step
srun --nodes=1 --ntasks=1 --overlap --nodelist="$head" \
  python -m mgc_ray.search "$@" --address "$address:$port"
