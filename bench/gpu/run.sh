#!/usr/bin/env bash
# All of bench/gpu on this machine: bench/gpu/run.sh FOLDER
# The folder takes about 20 GB: Python packages, three exports of a model of Stable Diffusion 2's size, results.
# XL=1: of Stable Diffusion XL's size, which takes three times as much (SIZE=1024 is its own).
# To try the script: TINY=1 (small networks), PROVIDER=cpu (no GPU), SIZE and STEPS of the pictures, RUNS, and PYTHON
# (an interpreter that has requirements.txt already).
set -euo pipefail
folder=$(realpath -m "${1:?Name a folder that there is room in}")
cd "$(dirname "$0")/../.."
provider=${PROVIDER:-cuda}
size=${SIZE:-512} steps=${STEPS:-50} runs=${RUNS:-5}
tiny="${TINY:+--tiny} ${XL:+--xl}"
results=$folder/results
mkdir -p "$results"

node scripts/setup.js

if [[ -z ${PYTHON:-} ]]; then
  [[ -x $folder/python/bin/python ]] || python3 -m venv "$folder/python"
  "$folder/python/bin/pip" install --quiet -r bench/gpu/requirements.txt
  PYTHON=$folder/python/bin/python
fi

bench=(--provider "$provider" --size "$size" --steps "$steps" --runs "$runs" --json)
if [[ $provider == cuda ]]; then
  nvidia-smi
  # In an environment of their own: PyTorch brings CUDA libraries of its own choice.
  [[ -x $folder/cuda/bin/python ]] || python3 -m venv "$folder/cuda"
  "$folder/cuda/bin/pip" install --quiet nvidia-cudnn-cu13 'nvidia-cublas==13.*' 'nvidia-cuda-runtime==13.*' 'nvidia-cuda-nvrtc==13.*' 'nvidia-curand==10.*'
  libraries=$(echo "$folder"/cuda/lib/python3*/site-packages/nvidia)
  npm run --silent setup:cuda -- --library-path "$libraries"
  bench+=(--library-path "$libraries")
fi

[[ -e $folder/float32/model_index.json ]] || "$PYTHON" bench/gpu/export.py "$folder/float32" $tiny
[[ -e $folder/float16/model_index.json ]] || "$PYTHON" bench/gpu/export.py "$folder/float16" --half $tiny
[[ -e $folder/fused/model_index.json ]] ||
  "$PYTHON" -m onnxruntime.transformers.models.stable_diffusion.optimize_pipeline -i "$folder/float32" -o "$folder/fused" --float16 --overwrite

measure() { # NAME: prints and keeps what bench.ts says of the model of this name
  npx tsx bench/gpu/bench.ts --model "$folder/$1" --compare "$folder/float32" "${bench[@]}" | tee "$results/$1.json"
}
measure float16
# WebGPU and DirectML may lack half precision.
if [[ $provider != cuda ]]; then measure float32; fi
# Its operators have no kernels for a CPU.
if [[ $provider == cuda ]]; then measure fused; fi
"$PYTHON" bench/gpu/reference.py --size "$size" --steps "$steps" --runs "$runs" $tiny --json | tee "$results/pytorch.json"
echo "All results are in $results"
