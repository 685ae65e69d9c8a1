#!/bin/bash
# A Ray cluster inside one SLURM job, and one command on its head:
#   sbatch docs/clusters/slurm.sh dsfedmed run experiment=embedded runtime=cluster \
#     'runtime.autoscaling.node_types=[]'
# Submit it where the project is installed, in a folder that every node sees.
#SBATCH --job-name=dsfedmed
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --mem=32G
#SBATCH --exclusive
#SBATCH --time=04:00:00
#SBATCH --output=dsfedmed-%j.log
set -euo pipefail

if [[ $# -eq 0 ]]; then
  echo "usage: sbatch $0 COMMAND [ARGUMENT...]" >&2
  exit 2
fi

# One token for this job: only its owner can read it, and it goes when the job does.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN_PATH="$PWD/.ray_auth_token.$SLURM_JOB_ID"
export RAY_AUTH_TOKEN_PATH
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT
(umask 077 && python3 -c 'import secrets; print(secrets.token_hex(32), end="")' > "$RAY_AUTH_TOKEN_PATH")

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export RAY_ADDRESS="${nodes[0]}:6379"

# Every node runs the same line: Ray starts the head on the first node, waits for the others, runs
# the command there and, when it ends, stops every Ray of this user on the node, which is why the
# nodes are exclusive. Node 0 alone has the resource `foundation`.
# shellcheck disable=SC2016 # expanded on each node
srun --kill-on-bad-exit=1 bash -c '
  if [[ "$SLURM_NODEID" == 0 ]]; then resources="{\"foundation\": 1}"; else resources="{\"client_gpu\": 1}"; fi
  exec ray symmetric-run --address "$RAY_ADDRESS" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus="$SLURM_CPUS_PER_TASK" --resources="$resources" --object-store-memory=4000000000 \
    --disable-usage-stats -- "$@"
' node "$@"
