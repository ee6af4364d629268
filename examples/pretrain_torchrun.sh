#!/usr/bin/env bash
# Pre-train CellLM in several processes of one machine, started by torchrun.
#
#   examples/pretrain_torchrun.sh CORPUS OUTPUT [options of cellingua pretrain ...]
#
# CORPUS is a folder of h5ad, zarr or 10x files, or a corpus that was prepared before. Environment: PROCESSES (default
# 2), DEVICE (default cpu; cuda gives each process a GPU), PYTHON (default python). The same call resumes a run that was
# stopped; Ctrl-C finishes the step and saves it.
set -euo pipefail

corpus=$1
output=$2
shift 2
processes=${PROCESSES:-2}

exec "${PYTHON:-python}" -m torch.distributed.run --standalone --nproc-per-node "$processes" \
	-m cellingua.cli.main pretrain cellm --corpus "$corpus" -o "$output" \
	--device "${DEVICE:-cpu}" --devices "$processes" --strategy "${STRATEGY:-ddp}" "$@"
