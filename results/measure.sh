#!/usr/bin/env bash
# Measures what the README tells of the shipped weights, one document after the other: some six hours on one core. Not in here: durability (tests/durability.py),
# Mem0's protocol, the sweep of learning rates (rates.json) and the GPU's speed.
# Usage: results/measure.sh FOLDER [DATA]: documents go into FOLDER; DATA holds locomo10.json and PersonaMem's files (`lpm bench fetch`), and
# locomo_audit_errors.json if it is to be reported. What is in FOLDER already is not measured again, so an interrupted run goes on.
set -euo pipefail
OUT="$(mkdir -p "${1:?name a folder for the documents}" && cd "$1" && pwd)"
DATA="${2:+$(cd "$2" && pwd)}"
LPM="$(cd "$(dirname "$0")/.." && pwd)/.venv/bin/lpm"
CHANGES=(--people 60 --questions 8 --updates 0.5 --joins 3 --stories 1)

measure() { # a document, and the command that makes it
  local document="$OUT/$1"
  shift
  if [ -e "$document" ]; then
    echo "$document is there"
  else
    echo "$document: lpm bench $*"
    "$LPM" bench "$@" --json "$document.new"
    mv "$document.new" "$document"
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
  measure "changes_seed$seed.json" probes "${CHANGES[@]}" --seed "$seed" --arms full,rag@2,rag,rag@10,lpm
done
measure dates.json probes --people 60 --facts 6 --questions 8 --dates 3 --seed 0
measure handwritten.json handwritten --arms none,shuffled,full,rag,lpm,lpm+consolidated
measure preferences.json preferences --people 100
measure agents.json agents
measure cold.json probes --people 100 --questions 6 --seed 0 --memory cold --arms rag@1,lpm
measure starts.json starts --steps 30
measure training.json probes --people 10 --questions 6 --seed 0 --arms full,lpm,lpm+consolidated@1e-2x4,lpm+consolidated@1e-2x12,lpm+consolidated@1e-2x30,lora@3e-3x12,lora@3e-3x30,lora@3e-3x100,prompt_tuning@3e-2x12,prompt_tuning@3e-2x30,prompt_tuning@3e-2x100
measure ablation.json probes --people 50 --questions 6 --seed 0 --arms lpm,lpm@1,lpm@4,lpm@8,lpm@16,lpm@32,lpm_slots@4,lpm_slots@8,lpm_slots@16,lpm_static,lpm_window,lpm_message
measure scaling.json scaling --people 4
measure write.json write
measure cost.json cost --shape embedded,0.6b --lengths 256,896,4096 --repeats 7
measure kv.json cost --shape 1.7b --lengths 4112 --arms none,full,lpm --repeats 1 --tokens 2
measure wrappers.json wrappers
measure consolidation_time.json probes --people 16 --questions 1 --seed 0 --arms lpm+consolidated
if [ -e "$DATA/locomo10.json" ]; then
  AUDIT=()
  [ -e "$DATA/locomo_audit_errors.json" ] && AUDIT=(--audit "$DATA/locomo_audit_errors.json")
  measure locomo.json locomo --data "$DATA/locomo10.json" "${AUDIT[@]}" --arms none,shuffled,rag,lpm,hybrid
fi
if [ -e "$DATA/questions_32k.csv" ]; then
  measure personamem.json personamem --data "$DATA/questions_32k.csv" --arms none,shuffled,full,rag,lpm,hybrid
fi
for figure in scaling ablation training starts; do
  "$LPM" plot "$figure" "$OUT/$figure.json" --png "$OUT/$figure.png"
done
