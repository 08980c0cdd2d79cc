#!/usr/bin/env bash
# A search on Slurm: a head and workers for as long as the job runs.
#
#   sbatch --nodes=5 --gpus-per-node=4 cluster/slurm.sh --family gru --tracks /scratch/music \
#       --trials 200 --refit-folds 5 --results /scratch/mgc_ray/results --name gru-200
#
# What follows the script's name goes to mgc_ray.search. The first node is the head and runs no
# trials. --results must lie on a file system of all nodes (or give --storage). A job that ran into
# its time limit: the same with --resume NAME --results DIR.
#SBATCH --job-name=mgc_ray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --exclusive
#SBATCH --time=24:00:00
set -euo pipefail

: "${MGC_RAY_VENV:=.venv}" # with the versions of requirements.lock, on a file system of all nodes
# shellcheck source=/dev/null
source "$MGC_RAY_VENV/bin/activate"

# Only who has this job's token may use its Ray; the file is the user's alone.
token=$(mktemp -p "${HOME}" .mgc_ray-token.XXXXXXXX)
python -c 'import secrets; print(secrets.token_hex(32), end="")' > "$token"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$token"
trap 'rm -f "$token"; kill $(jobs -p) 2> /dev/null || true; wait' EXIT

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 20000)) # so that jobs that share a node do not meet

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
sleep 20 # a worker that comes later joins while the search runs

# --overlap: beside the head's own step
srun --nodes=1 --ntasks=1 --overlap --nodelist="$head" \
  python -m mgc_ray.search "$@" --address "$address:$port"
