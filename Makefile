# Everything a fresh machine with Python 3.11+ and make needs: `make repro`, `make test`.
PYTHON ?= python3
BIN := .venv/bin
# The stages and tools of the environment first, so that dvc's `python` is ours. GX and Feast phone nobody.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export GX_ANALYTICS_ENABLED := false
export FEAST_USAGE := False
export HF_HUB_OFFLINE ?= 1

.PHONY: help setup repro materialize serve paper plan test test-all lint check-data lock clean
help:
	@echo "make repro       environment, then the whole pipeline (dvc repro)"
	@echo "make serve       the ranker at http://127.0.0.1:8080 (python -m serving serve --help)"
	@echo "make materialize the features online again, and the proof that online is offline: after going back to other parameters"
	@echo "make paper       the paper's sixty trainings, its tables, and results/report.html: which model is better, and by how much"
	@echo "make plan        what language models would be asked, and what that would cost; nothing is spent"
	@echo "make test        environment, then lint and the fast tests (three to six minutes)"
	@echo "make test-all    what takes longer: real data, faults, servers (30 minutes at most)"
	@echo "make check-data  the Great Expectations suites over the tables that stand in data/"
	@echo "make lock        resolve requirements.in anew into requirements.lock"

setup: $(BIN)/.ready

# Remade when the lock changes. uv comes at the lock's own version; the lock's hashes guard every file.
$(BIN)/.ready: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "error: $(PYTHON) is %d.%d; this needs Python 3.11 or newer: make PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.lock)"
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	@# `feast -c feature_repo` imports our offline store by its flat name, from wherever it is called
	@echo "$(CURDIR)/feature_repo" > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/mmrec_feature_repo.pth"
	@touch $@

repro: setup
	dvc repro

# DVC restores files when parameters go back to what they were, but not what an online store holds
materialize: setup
	dvc repro --force --single-item materialize parity

serve: setup
	python -m serving serve

paper: setup
	dvc repro pipelines/paper/dvc.yaml

# What it reads is made first: nothing up to `split` asks a model
plan: setup
	dvc repro --quiet split
	python -m pipelines.plan --reviews data/tables/reviews.parquet --split data/split.parquet \
		--photos-table data/tables/photos.parquet

lint: setup
	ruff check . && ruff format --check . && mypy && lint-imports

test: lint
	pytest -n 2 --dist loadfile

test-all: setup
	pytest -n 2 --dist loadfile -m slow

check-data: setup
	python -m pipelines.validate tables --data data --report results/validation/tables.json
	python -m pipelines.validate features --data data --report results/validation/features.json
	python -m pipelines.validate training_set --data data --report results/validation/training_set.json

lock:
	$(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --universal --python-version 3.11 requirements.in -o requirements.lock

clean:
	rm -rf .venv data .pytest_cache .mypy_cache .ruff_cache
