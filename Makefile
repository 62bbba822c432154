# `make` or `make help` lists what there is. Everything is installed into .venv and nowhere else.
#
# Variables: OPERATORS=compiled (mmcv's own operators; needs a C++ compiler), SEED=1 (data of the demos),
# EXTRAS=export,tests (of setup.py), TORCH="torch==2.10.0 torchvision==0.25.0", PYTHON=python3.11, MAX_JOBS=4
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
STAMPS := $(VENV)/.stamps
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# The versions that .venv was made with, if it is there; and compiled operators, if it has them.
TORCH ?= $(or $(shell cat $(STAMPS)/torch-wanted 2>/dev/null),torch==2.11.0 torchvision==0.26.0)
COMPILED := $(VENV)/lib/python3*/site-packages/mmcv/_ext*.so
OPERATORS ?= $(if $(wildcard $(COMPILED)),compiled,pure)
ifeq ($(filter pure compiled,$(OPERATORS)),)
$(error OPERATORS is pure or compiled, not '$(OPERATORS)')
endif
SEED ?= 0
# What the tests need of setup.py's extras; docs, notebooks and demo are for those who want them.
EXTRAS ?= export,openvino,data,report,serve,hub,tests
PY := $(VENV)/bin/python
CORES := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
# The demos' tensors are small: more than four threads only wait for each other.
export OMP_NUM_THREADS ?= $(shell echo $$(( $(CORES) < 4 ? $(CORES) : 4 )))
# A compiler of mmcv's operators wants about 2 GB.
export MAX_JOBS ?= $(shell awk -v cores=$(CORES) '/MemAvailable/ { jobs = int($$2 / 2000000) } END { if (!jobs || jobs > cores) jobs = cores; print jobs }' /proc/meminfo 2>/dev/null || echo 1)
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
export PIP_DISABLE_PIP_VERSION_CHECK := 1
CACHES := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)

.PHONY: help install demo demo-detection demo-classification demo-segmentation demo-all test test-package test-slow test-page test-demo test-reliability test-notebooks lint docs clean FORCE

help: ## This list
	@echo 'usage: make TARGET [OPERATORS=compiled] [SEED=1] [TORCH="torch==2.10.0 torchvision==0.25.0"] [PYTHON=python3.11]'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-22s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# -- installation -----------------------------------------------------------------------------------------------------
# Each step leaves a stamp and is repeated only when what it installs from has changed.
install: $(STAMPS)/installed ## Everything into .venv; no compiler is needed, but for OPERATORS=compiled

$(STAMPS)/venv: requirements/build.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'error: Python 3.11 or later is needed; name one with make PYTHON=...' >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip -r requirements/build.txt
	@mkdir -p $(STAMPS) && touch $@

# What is wanted; rewritten only when it changes, so that the steps behind it are repeated then.
$(STAMPS)/torch-wanted: WANTED = $(TORCH)
$(STAMPS)/operators-wanted: WANTED = $(OPERATORS)
$(STAMPS)/torch-wanted $(STAMPS)/operators-wanted: FORCE | $(STAMPS)/venv
	@[[ -f $@ && "$$(cat $@)" == '$(WANTED)' ]] || echo '$(WANTED)' > $@

# The package, PyTorch, and what the toolboxes need but themselves. Twenty thousand modules are not compiled to bytecode
# beforehand, which takes longer than the rest; what is imported is then.
$(STAMPS)/package: setup.py pyproject.toml $(STAMPS)/venv $(STAMPS)/torch-wanted
	$(PY) -m pip install --no-compile --no-build-isolation $(TORCH) -e '.[train,$(EXTRAS)]'
	@touch $@

# The toolboxes, as bytecode: what Python has to say of two files of theirs is not for the first who imports them.
# mmcv has one version with operators and without, so each kind of wheel has a cache of its own, compiled
# ones one for each PyTorch; and what is installed of another kind goes first, or pip would be content with it.
install_toolboxes = $(PY) -m pip install --no-deps -r requirements/toolboxes.txt --cache-dir
remove_mmcv = $(PY) -m pip uninstall --quiet --yes onedl-mmcv

# mmcv builds its operators where its build finds a torch, as on a PYTHONPATH.
$(STAMPS)/pure: requirements/toolboxes.txt $(STAMPS)/operators-wanted $(STAMPS)/package
	@if compgen -G '$(COMPILED)' > /dev/null; then $(remove_mmcv); fi
	PYTHONPATH= $(install_toolboxes) '$(CACHES)/pip-pure'
	@rm -f $(STAMPS)/compiled $(STAMPS)/compiled-for-torch && touch $@

$(STAMPS)/compiled: requirements/toolboxes.txt $(STAMPS)/operators-wanted $(STAMPS)/package
	@echo
	@echo 'Installing the OpenMMLab toolboxes. mmcv compiles its operators from source now, with $(MAX_JOBS) jobs: about'
	@echo '16 minutes on two cores, while pip only says "Building wheel ... still running". The next time it is there.'
	@echo
	version="$$($(PY) -c 'import torch; print(torch.__version__)')"; \
	cache='$(CACHES)'/pip-torch-$$version; \
	built=$(STAMPS)/compiled-for-torch; \
	if ! $(PY) -c 'import torch, mmcv._ext' 2> /dev/null || [[ -f $$built && "$$(cat $$built)" != "$$version" ]]; then \
		$(remove_mmcv); \
	fi; \
	$(install_toolboxes) "$$cache" --no-build-isolation; \
	echo "$$version" > $$built; \
	wheel="$$($(PY) -m pip cache list --format=abspath --cache-dir "$$cache" onedl_mmcv | head -1)"; \
	if [[ -n $$wheel ]]; then \
		echo "mmcv as compiled here: $$wheel ($$(du -h "$$wheel" | cut -f1)); another machine of this kind takes it with pip install"; \
	fi
	@rm -f $(STAMPS)/pure && touch $@

$(STAMPS)/installed: $(STAMPS)/$(OPERATORS)
	$(PY) -m mmlightvit doctor
	@touch $@

# -- demos ------------------------------------------------------------------------------------------------------------
# $(call run_demo,TASK,CONFIG,CHECKPOINT): data, training, test, pictures; each step is a command of its own.
define run_demo
	$(PY) tools/demo/prepare_digits.py $(1) data/digits/$(1) --seed $(SEED)
	$(PY) tools/train.py configs/demo/$(2).py --work-dir work_dirs/demo/$(1)
	$(PY) tools/test.py configs/demo/$(2).py work_dirs/demo/$(1)/$(3) --work-dir work_dirs/demo/$(1)
	$(PY) tools/demo/draw_results.py configs/demo/$(2).py work_dirs/demo/$(1)/$(3) work_dirs/demo/$(1)
	@echo 'checkpoint: work_dirs/demo/$(1)/$(3)'
endef

demo: demo-detection ## Mask R-CNN on handwritten digits: train, COCO AP, pictures; meant to stay under 10 minutes on two cores, see docs/demo.md

demo-detection: $(STAMPS)/installed
	$(call run_demo,detection,mask_rcnn_lightvit_digits,epoch_3.pth)

demo-classification: $(STAMPS)/installed ## A classifier of handwritten digits, the same way
	$(call run_demo,classification,lightvit_digits,epoch_8.pth)

demo-segmentation: $(STAMPS)/installed ## A Semantic FPN on handwritten digits, the same way
	$(call run_demo,segmentation,semantic_fpn_lightvit_digits,iter_1000.pth)

demo-all: demo-detection demo-classification demo-segmentation ## All three

# What lint looks at: the project's files, and none that a user has put beside them.
TRACKED = $(or $(wildcard $(shell git ls-files '*.py' '*.md' '*.toml' 2>/dev/null)),.)

# -- checks -----------------------------------------------------------------------------------------------------------
lint: $(STAMPS)/installed ## Lint, format and types
	$(VENV)/bin/ruff check --force-exclude $(TRACKED)
	$(VENV)/bin/ruff format --check --force-exclude $(TRACKED)
	$(VENV)/bin/mypy

test: lint ## Lint, then the tests
	OMP_NUM_THREADS=1 $(PY) -m pytest -m 'not slow' -n $(CORES) --dist loadfile --timeout 300 --ignore=tests/packaging

test-package: $(STAMPS)/installed ## The wheel, the installation, the Dockerfiles and the workflows
	$(PY) -m pytest -m 'not slow' tests/packaging

test-slow: $(STAMPS)/installed ## The tests that need minutes each
	$(PY) -m pytest -m slow --ignore=tests/reliability

build/onnxruntime-web-1.30.0.tgz:
	@mkdir -p build
	cd build && npm pack onnxruntime-web@1.30.0

test-page: $(STAMPS)/installed build/onnxruntime-web-1.30.0.tgz ## The page of an exported model in headless Chromium; needs chromium and npm
	$(PY) -m pytest -m 'slow or not slow' tests/deploy/test_page.py

.venv-demo/done: setup.py $(STAMPS)/installed
	$(PY) -m venv .venv-demo
	$(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$(.venv-demo/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/zz-shared.pth"
	.venv-demo/bin/python -m pip install --no-build-isolation -e '.[demo]'
	@touch $@

test-demo: .venv-demo/done ## `mmlightvit demo` in headless Chromium; Gradio goes into .venv-demo, which shares the rest with .venv
	.venv-demo/bin/python -m pytest -m 'slow or not slow' tests/deploy/test_demo_page.py

test-reliability: $(STAMPS)/installed ## Runs that are killed and resumed, in full; meant to stay under 40 minutes on two cores
	OMP_NUM_THREADS=1 $(PY) -m pytest tests/reliability -m "slow or not slow"

# -- site -------------------------------------------------------------------------------------------------------------
$(STAMPS)/docs: setup.py $(STAMPS)/installed
	$(PY) -m pip install --no-build-isolation -e '.[docs]'
	@touch $@

docs: $(STAMPS)/docs ## The site, in build/docs; it opens from disk and needs no network
	$(PY) -m sphinx -q -b html -W --keep-going docs build/docs
	@echo build/docs/index.html

$(STAMPS)/notebooks: setup.py $(STAMPS)/installed
	$(PY) -m pip install --no-build-isolation -e '.[notebooks]'
	@touch $@

# Not by the tests' settings: what other people's notebooks warn of is nobody's error.
test-notebooks: $(STAMPS)/notebooks ## The notebooks, run: build/notebooks/*.ipynb, which hold what they show
	rm -rf build/notebooks && mkdir -p build/notebooks
	cp docs/notebooks/* build/notebooks
	$(PY) -m jupytext --quiet --to ipynb --set-kernel python3 build/notebooks/*.md
	$(PY) -m pytest -c /dev/null --nbmake --overwrite --nbmake-timeout 600 build/notebooks

clean: ## Remove the demos' data and results, and caches; .venv stays
	rm -rf data/digits work_dirs/demo build *.egg-info .pytest_cache .ruff_cache .mypy_cache
