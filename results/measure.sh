#!/usr/bin/env bash
# Measures anew what the README tells, into this folder, one after the other: some eight hours on one core, half of it the baselines and LoCoMo.
# Usage: results/measure.sh [FOLDER], a folder with what `lpm bench fetch locomo` and `lpm bench fetch personamem` bring; without it these two are left out.
# An interrupted run goes on where it stopped: a document that is there is not measured again.
set -euo pipefail
cd "$(dirname "$0")"
LPM="$PWD/../.venv/bin/lpm"
DATA="${1:+$(cd "$OLDPWD" && cd "$1" && pwd)}"
CHANGES=(--people 60 --questions 8 --updates 0.5 --joins 3 --stories 1)

measure() { # a document, and the command that makes it
  local document="$1"
  shift
  if [ -e "$document" ]; then
    echo "$document is there"
  else
    echo "$document: lpm bench $*"
    "$LPM" bench "$@" --json "$document"
  fi
}

measure probes.json probes --people 200 --questions 6 --seed 0
for seed in 1 2; do
  measure "probes_seed$seed.json" probes --people 200 --questions 6 --seed "$seed" --arms full,rag,lpm
done
for seed in 0 1 2; do
  measure "consolidated_seed$seed.json" probes --people 67 --questions 6 --seed "$seed" --arms full,lpm,lpm+consolidated
done
measure changes_seed0.json probes "${CHANGES[@]}" --seed 0 --arms none,shuffled,full,rag@2,rag,rag@10,lpm,lpm+consolidated
for seed in 1 2; do
  measure "changes_seed$seed.json" probes "${CHANGES[@]}" --seed "$seed" --arms full,rag@2,rag,rag@10,lpm,lpm+consolidated
done
measure handwritten.json handwritten --arms none,shuffled,full,rag,lpm,lpm+consolidated
measure preferences.json preferences --people 100
measure agents.json agents
measure cold.json probes --people 100 --questions 6 --seed 0 --memory cold --arms rag@1,lpm
measure starts.json starts --steps 60
measure training.json probes --people 10 --questions 6 --seed 0 --arms full,lpm,lpm+consolidated@1e-2x4,lpm+consolidated@1e-2x12,lpm+consolidated@1e-2x30,lora@3e-3x12,lora@3e-3x30,lora@3e-3x100,prompt_tuning@3e-2x12,prompt_tuning@3e-2x30,prompt_tuning@3e-2x100
measure ablation.json probes --people 50 --questions 6 --seed 0 --arms lpm,lpm@1,lpm@8,lpm@16,lpm@32,lpm@48,lpm_slots@4,lpm_slots@8,lpm_slots@16,lpm_static,lpm_window,lpm_message
measure scaling.json scaling --people 8
measure write.json write
measure cost.json cost --shape embedded,0.6b --lengths 256,896,4112 --repeats 7
measure wrappers.json wrappers
measure consolidation_time.json probes --people 16 --questions 1 --seed 0 --arms lpm+consolidated
if [ -n "$DATA" ]; then
  measure locomo.json locomo --data "$DATA/locomo10.json" --audit "$DATA/locomo_audit_errors.json" --arms none,shuffled,full,rag,lpm,hybrid
  measure personamem.json personamem --data "$DATA/questions_32k.csv" --arms none,shuffled,full,rag,lpm,hybrid
fi
for figure in scaling ablation training; do
  "$LPM" plot "$figure" "$figure.json" --png "$figure.png"
done
