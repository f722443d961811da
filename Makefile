# Two commands for a new user:  make demo   make test.  On a machine with a GPU:  make gpu
# TORCH and TRITON name the releases to install, PYTHON the interpreter that makes .venv, JOBS how many processes share the tests.
PYTHON ?= python3
TORCH ?= torch==2.13.0
TRITON ?= triton==3.7.1
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# A file's tests stay together: they share fixtures, and memory for large tensors. Files begin in their order: C++ builds are early.
IN_PROCESSES := -n $(JOBS) --dist loadfile --no-loadscope-reorder
BUILD_INPUTS := pyproject.toml setup.py $(shell find csrc -type f)

.PHONY: demo test lint tidy coverage sanitize bench docs gpu install clean help

help:
	@echo "make demo     train the three networks of paper 1 on the digits that ship with the package; about 4 minutes"
	@echo "make test     run the whole test suite, in JOBS processes (2)"
	@echo "make lint     check the Python code with ruff and mypy, the layout of the C++ with clang-format"
	@echo "make tidy     check the C++ of the CPU kernels and of the ops with clang-tidy; about 3 minutes"
	@echo "make coverage run the whole test suite, and say which lines of the package it did not reach"
	@echo "make sanitize run the C++ tests under AddressSanitizer and UndefinedBehaviorSanitizer, in more types than the suite"
	@echo "make bench    time every algorithm and F.conv2d on one and on two threads"
	@echo "make docs     build the documentation into site/; open site/index.html"
	@echo "make gpu      with the PyTorch and nvcc that are there: build in place, test on the GPU, measure; under 8 minutes"
	@echo "make clean    remove .venv, build products, demo/ and site/"

demo: $(INSTALLED)
	@echo "== demo: three networks on noisy rotated digits; tables and pictures go to demo/"
	@$(BIN)/gconv-ext train noise --demo --out demo --resume

test: $(INSTALLED)
	@echo "== test: the whole suite"
	@$(BIN)/python -m pytest -q $(IN_PROCESSES)

lint: $(INSTALLED)
	@echo "== lint: ruff and mypy, with the rules of pyproject.toml; clang-format, with those of .clang-format"
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/clang-format --dry-run --Werror $(shell git ls-files '*.cpp' '*.h' '*.cu')

tidy: $(INSTALLED)
	@echo "== tidy: clang-tidy, with the checks of .clang-tidy"
	@$(BIN)/clang-tidy --quiet $$(awk '$$1 == "kernel" || $$1 == "binding" { print "csrc/" $$2 }' csrc/sources.txt) -- \
		-std=c++17 $$($(BIN)/python -c 'import sysconfig, torch.utils.cpp_extension as e; print(*("-isystem " + i for i in [*e.include_paths(), sysconfig.get_path("include")]))')

coverage: $(INSTALLED)
	@echo "== coverage: the whole suite; branches too; Triton's kernels, which the interpreter runs, are left out"
	@$(BIN)/python -m pytest -q $(IN_PROCESSES) --cov --cov-report=term-missing:skip-covered

sanitize: $(INSTALLED)
	@echo "== sanitize: the C++ tests of the kernels, compiled with AddressSanitizer and UndefinedBehaviorSanitizer, in build/sanitize"
	@$(BIN)/cmake -S . -B build/sanitize -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DGCONV_SANITIZE=ON
	@$(BIN)/cmake --build build/sanitize
	@$(BIN)/ctest --test-dir build/sanitize --parallel $(JOBS) --output-on-failure

bench: $(INSTALLED)
	@echo "== bench: every algorithm and F.conv2d on one and on two threads; results go to runs/bench/"
	@$(BIN)/gconv-ext bench --threads 1 2 --out runs/bench

docs: $(INSTALLED)
	@echo "== docs: pictures, then the site into site/"
	@$(BIN)/python docs/make_pictures.py
	@$(BIN)/python -m mkdocs build --strict -q
	@echo "open site/index.html"

gpu:
	@PYTHON=$(PYTHON) bench/gpu.sh

install: $(INSTALLED)

# Made again only when the C++ sources or the package's own declarations have changed.
$(INSTALLED): $(BUILD_INPUTS)
	@echo "== install: $(VENV) with $(TORCH) and $(TRITON), then gconv_ext with its compiled ops (once; a few minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check "$(TORCH)" "$(TRITON)" numpy "setuptools>=68" wheel ninja pybind11
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation -e ".[train,test,lint]"
	@touch $@
	@$(BIN)/gconv-ext info

clean:
	rm -rf $(VENV) build demo site *.egg-info gconv_ext/*.so gconv_ext/bench
