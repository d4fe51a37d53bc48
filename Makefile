# A thin layer over the ecosystem's own tools; every target is a line or two that you can type yourself.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

# DEMO=1 points every target below, `ui` and `serve` above all, at what `make demo` left behind.
DEMO_DIR := $(CURDIR)/data/demo$(if $(CLASSES),-$(shell file="$(CLASSES)"; name="$${file##*/}"; echo "$${name%.*}"))
ifeq ($(DEMO),1)
EMOTION_DATA_DIR := $(DEMO_DIR)
export BENTOML_HOME := $(DEMO_DIR)/bentoml
DAGSTER_HOME := $(DEMO_DIR)/dagster_home
endif
EMOTION_DATA_DIR ?= $(CURDIR)/data
DAGSTER_HOME ?= $(CURDIR)/dagster_home
# Not make's own abspath, which splits a path at spaces.
override EMOTION_DATA_DIR := $(shell d="$(EMOTION_DATA_DIR)"; case "$$d" in (/*|*://*) ;; ("~/"*) d="$$HOME/$$(printf %s "$$d" | cut -c3-)" ;; (*) d="$(CURDIR)/$$d" ;; esac; printf %s "$$d")
export EMOTION_DATA_DIR DAGSTER_HOME
export UI_PORT REPORTS_PORT SERVE_PORT
export BENTOML_DO_NOT_TRACK := True
export DO_NOT_TRACK := 1
# Files are UTF-8, whatever the locale.
export PYTHONUTF8 := 1

.DEFAULT_GOAL := help
.PHONY: help install demo demo-loop test test-faults test-cluster check ui drift-ui serve container-test audit data import models rollback clean-models backup restore retention docs docs-serve test-docs figures screenshots tensorboard profile profile-service load bench clean

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools -c constraints.txt
	@echo "Installing the pinned packages into .venv (a few minutes the first time)"
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable '.[dev]' -c constraints.txt
	@touch $(READY)

install: $(READY) ## install the pinned packages into .venv, as the other targets do by themselves

demo: $(READY) ## draw faces, run the whole pipeline, predict one over HTTP; two minutes. CLASSES=examples/…
	$(BIN)/python scripts/demo.py $(if $(CLASSES),"$(CLASSES)")

demo-loop: $(READY) ## the whole loop: drift, incident, labels, retraining, better predictions; about five minutes
	$(BIN)/python scripts/demo_loop.py $(if $(FACES),--faces "$(FACES)")

test: $(READY) ## run the tests; test-faults and test-docs have the long ones
	$(BIN)/python -m pytest

test-faults: $(READY) ## test real kills, full and read-only disks, low memory: about ten minutes, as root
	$(BIN)/python -m pytest -m faults tests/faults

test-cluster: $(READY) ## object storage, PostgreSQL and two Ray nodes on 127.0.0.1: about five minutes
	$(BIN)/python -m pip install --quiet --editable '.[cluster,cluster-test]' -c constraints.txt
	$(BIN)/python -m pytest -m cluster

check: $(READY) ## lint, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

ui: $(READY) ## the Dagster UI on port 3000 (UI_PORT=…), its reports on port 3002 (REPORTS_PORT=…)
	$(BIN)/python scripts/ui.py

drift-ui: $(READY) ## the history of drift reports, on port 3003
	$(BIN)/python -m emotion_assets.steps.drift.dashboard 3003

serve: $(READY) ## the accepted model on port 3001, or SERVE_PORT=…
	$(BIN)/python scripts/serve.py

container-test: $(READY) ## build and test the image of the demo's model (as root; buildah, podman, runc, debootstrap)
	test -e data/demo/bentoml/bentos/emotion_service/latest || $(MAKE) demo
	BENTOML_HOME="$(CURDIR)/data/demo/bentoml" $(BIN)/python -m container.try_it data/demo/question.jpg --base-from-debian $(if $(SBOM),--sbom "$(SBOM)")

audit: $(READY) ## known vulnerabilities of the pinned packages (asks the package index)
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip

data: $(READY) ## download the Kaggle data set into raw/
	$(BIN)/python -m emotion_assets.importers --kaggle $(if $(HOLD_OUT),--hold-out "$(HOLD_OUT)")

import: $(READY) ## put FILE=… (zip, tar, CSV of pixels, folder) below raw/; HOLD_OUT=test into external/
	@test -n "$(FILE)" || { echo "Name what to import: make import FILE=faces.zip"; exit 2; }
	$(BIN)/python -m emotion_assets.importers "$(FILE)" $(if $(HOLD_OUT),--hold-out "$(HOLD_OUT)")

models: $(READY) ## every model with its state, scores and reasons
	@$(BIN)/python -m emotion_assets.steps.packing.models "$(EMOTION_DATA_DIR)" list

rollback: $(READY) ## accept the previous model again, or VERSION=…
	@$(BIN)/python -m emotion_assets.steps.packing.models "$(EMOTION_DATA_DIR)" rollback $(VERSION)

clean-models: $(READY) ## remove old models; 5 accepted and 3 rejected ones stay
	@$(BIN)/python -m emotion_assets.steps.packing.models "$(EMOTION_DATA_DIR)" clean

backup: $(READY) ## the whole data root as one archive: make backup FILE=/mnt/backup.tar.gz
	@test -n "$(FILE)" || { echo "Name the archive: make backup FILE=/mnt/backup.tar.gz"; exit 2; }
	@$(BIN)/python -m emotion_assets.steps.maintenance.backup "$(EMOTION_DATA_DIR)" create "$(FILE)"

restore: $(READY) ## restore FILE=… to an empty data root
	@test -n "$(FILE)" || { echo "Name the archive: make restore FILE=/mnt/backup.tar.gz"; exit 2; }
	@$(BIN)/python -m emotion_assets.steps.maintenance.backup "$(EMOTION_DATA_DIR)" restore "$(FILE)"

retention: $(READY) ## list data older than DAYS=90 and old models; APPLY=1 removes them
	@$(BIN)/python -m emotion_assets.steps.maintenance.retention "$(EMOTION_DATA_DIR)" $(if $(DAYS),--days $(DAYS)) $(if $(filter 1,$(APPLY)),--apply)

docs: $(READY) ## the documentation site, strict, into build/site
	$(BIN)/mkdocs build --strict --quiet

docs-serve: $(READY) ## the same on port 8000, rebuilt while you write
	$(BIN)/mkdocs serve

test-docs: $(READY) ## run every command of the tutorial, as written: about six minutes
	$(BIN)/python -m pytest -m tutorial tests/test_docs.py

figures: ## draw the architecture again (needs Graphviz)
	dot -Tsvg docs/architecture.dot -o docs/images/architecture.svg

screenshots: $(READY) ## take the screenshots of the documents again (needs Chromium)
	$(BIN)/python scripts/screenshots.py

tensorboard: $(READY) ## the curves of all runs, on port 6006
	$(BIN)/tensorboard --logdir "$(EMOTION_DATA_DIR)/reports/training"

profile: $(READY) ## a flame graph of a short training: build/training.svg
	$(BIN)/python scripts/profiling.py training

profile-service: $(READY) ## a flame graph of the service under load: build/service.svg
	$(BIN)/python scripts/profiling.py service

load: $(READY) ## load-test a running service, 20 users for 30 s: build/load.html
	$(BIN)/python -m pip install --quiet --editable '.[bench]' -c constraints.txt
	@mkdir -p build
	$(BIN)/locust -f benchmarks/locustfile.py --host http://127.0.0.1:$(or $(SERVE_PORT),3001) --headless --users 20 --spawn-rate 10 --run-time 30s --html build/load.html

bench: $(READY) ## measure the data path
	$(BIN)/python -m benchmarks.data_path "$(EMOTION_DATA_DIR)/raw"

clean: ## remove the environment; data and models stay
	rm -rf .venv
