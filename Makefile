# Everything that is done with this project; `make help` lists it. CI runs only these targets.
#
# Needs GNU make, Python 3.11 or newer, and root or sudo for what changes network settings. make fetches the rest.

PYTHON ?= python3# makes the virtual environment
VENV   ?= .venv
ARGS   ?=# run: the command line; test, quick, unit, kernel, cni, e2e, browser, soak, image-test: for pytest; image, lock: for those; bare-test: a command

.DEFAULT_GOAL := help
.NOTPARALLEL: # `make -j test` would mix up the output, and the checks run in the order below
MAKEFLAGS += --no-print-directory

# Empty for root, and where there is no sudo: then the program itself says what it may not do. -E because settings
# come from the environment too. Root leaves no bytecode behind, which the user could not delete.
SUDO = $(shell [ "$$(id -u)" = 0 ] || command -v sudo)
AS_ROOT = $(if $(SUDO),$(SUDO) -E env PYTHONDONTWRITEBYTECODE=1)

# Kernel tests need root: through sudo, if it asks for no password. What root writes goes elsewhere.
TEST_AS_ROOT = $(if $(SUDO),$(shell $(SUDO) -n true 2>/dev/null && echo \
    $(SUDO) -E env PYTHONDONTWRITEBYTECODE=1 HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis-of-root))

# Tests run side by side: one more than there are processors, since some of them wait.
PYTEST = $(VENV)/bin/pytest -n $(shell expr $$(nproc 2>/dev/null || echo 1) + 1) --dist loadgroup -p no:cacheprovider
# What only `fuzz`, `mutants` and `coverage` need.
MEASURING = $(VENV)/.measuring

DOCTESTS = --doctest-modules istio_iptables

.PHONY: help run test quick lint format types unit kernel cni e2e browser fuzz mutants coverage soak faults golden man \
    pictures bench image image-test sbom dist bare-test release audit lock clean venv system system-run

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 12
	@echo "for example: make run ARGS=\"-b '*' --dry-run\"; make unit ARGS='-k cleanup'; make test PYTHON=python3.13"

run: system-run $(VENV) ## show what it does, in network namespaces of its own; with ARGS="...": run it here
	@$(if $(ARGS),$(AS_ROOT) $(VENV)/bin/istio-iptables $(ARGS),$(AS_ROOT) $(VENV)/bin/python tools/demo.py)

test: system $(VENV) lint types ## all checks and all tests
	$(TEST_AS_ROOT) $(PYTEST) tests/unit tests/kernel tests/cni tests/e2e tests/browser $(DOCTESTS) $(ARGS)

# For the time between two edits. Property tests get few examples, and tests that are marked `slow` are left out.
# Tests and what they start are compiled once, also where the environment says not to: that is a third of the time.
quick: export HYPOTHESIS_PROFILE = quick
quick: export PYTHONDONTWRITEBYTECODE =
quick: export PYTHONPYCACHEPREFIX = $(abspath $(VENV))/bytecode
quick: lint types ## lint, types, and unit tests with few examples: half a minute
	$(PYTEST) -m 'not slow' tests/unit $(ARGS)

lint: $(VENV) ## style, imports between the packages, workflow files, dependencies
	$(VENV)/bin/ruff check --quiet
	$(VENV)/bin/ruff format --quiet --check
	$(VENV)/bin/lint-imports --no-logo
	tools/check-workflows $(VENV)
	$(VENV)/bin/python -m pip --quiet check

format: $(VENV) ## put the code into the one format
	$(VENV)/bin/ruff check --quiet --fix
	$(VENV)/bin/ruff format --quiet

types: $(VENV) ## type check
	$(VENV)/bin/mypy

unit: $(VENV) ## tests and doctests that need no privilege
	$(PYTEST) tests/unit $(DOCTESTS) $(ARGS)

kernel: system $(VENV) ## tests against the kernel, in network namespaces (skipped unless root)
	$(TEST_AS_ROOT) $(PYTEST) tests/kernel $(ARGS)

cni: system $(VENV) ## tests of the CNI plugin with Debian's plugins, containerd and podman (skipped unless root)
	$(TEST_AS_ROOT) $(PYTEST) tests/cni $(ARGS)

e2e: system $(VENV) ## tests with real traffic through a real Envoy (skipped unless root)
	$(TEST_AS_ROOT) $(PYTEST) tests/e2e $(ARGS)

browser: system $(VENV) ## tests of the report in a real browser, Chromium (skipped without one)
	$(PYTEST) tests/browser $(ARGS)

FUZZ_SECONDS ?= 20# fuzz: how long each harness of tests/fuzz searches
fuzz: $(MEASURING) ## property tests with many more examples, then harnesses for atheris (FUZZ_SECONDS=20 each)
	$(VENV)/bin/python -m tests.fuzz --seconds $(FUZZ_SECONDS)
	HYPOTHESIS_PROFILE=fuzz $(PYTEST) tests/unit $(ARGS)

# Few examples of each property: they decide about thousands of mutants.
mutants: export HYPOTHESIS_PROFILE = quick
mutants: $(MEASURING) ## change the code in small ways and see unit tests fail: a sample; ARGS="--help" tells more
	$(VENV)/bin/python -m tests.mutation $(ARGS)

coverage: system $(MEASURING) ## lines and branches that the unit and kernel tests come to: a report in build/coverage
	$(TEST_AS_ROOT) $(PYTEST) --cov --cov-report=html:build/coverage --cov-report=term:skip-covered \
	    tests/unit tests/kernel $(DOCTESTS) $(ARGS)

soak: export HYPOTHESIS_PROFILE = fuzz
soak: system $(VENV) ## thousands of generated configurations, 20,000 packets, 50 runs at once; prints its figures
	$(TEST_AS_ROOT) $(PYTEST) $(addprefix tests/kernel/,test_backends_agree.py test_oracle.py \
	    test_one_verdict.py test_native_formats.py test_compact.py test_fake_kernel.py \
	    test_interpreter_truth.py test_validation_repeated.py test_trace_watch.py test_refutations.py \
	    test_many_at_once.py test_traffic.py test_traffic_foreign_programs.py) tests/unit/test_cni_node_kills.py -rP $(ARGS)

faults: system $(VENV) ## thousands of system calls fail, or end their process, one a run: an hour; ARGS="--help" tells more
	$(TEST_AS_ROOT) $(VENV)/bin/python -m tests.faults $(ARGS)

golden: $(VENV) ## write tests/golden, and the tool's parts of deploy/, again; read the difference before you commit it
	$(VENV)/bin/python -m tests.support.golden --write
	$(VENV)/bin/python -m tests.support.deploy --write

man: $(VENV) ## write the manual page, docs/istio-iptables.8, again
	$(VENV)/bin/python tools/man.py

pictures: $(VENV) ## draw the pictures of the documentation, docs/pictures/*.svg, again
	$(VENV)/bin/python tools/pictures.py

bench: system $(VENV) ## measure runs, long lists, the data path, many pods at once; ARGS="--help" tells more
	$(AS_ROOT) $(VENV)/bin/python -m tests.bench $(ARGS)

# BASE_FROM=debootstrap where no registry can be reached; tools/image.py has the other variables.
image: ## build the container image, with docker or podman
	@$(PYTHON) tools/image.py build $(ARGS)

image-test: $(VENV) ## build it and the CNI plugin's with podman, and try both (skipped unless root)
	@$(TEST_AS_ROOT) $(VENV)/bin/python tools/image.py test $(ARGS)

# Where everything is that the tests silently take from this machine, such a place shows what it was.
bare-test: ## all tests in a bare Debian that is made for them (as root; debootstrap); ARGS="sh": look around there
	@$(PYTHON) tools/bare_debian.py $(ARGS)

# The times in the archives are that of the commit, so that two builds of it give the same bytes.
dist: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 315532800)
dist: $(VENV) ## build the sdist and the wheel into dist/, and the SBOM beside them
	rm -rf build dist
	$(VENV)/bin/python -m build --no-isolation --outdir dist >$(VENV)/build.log 2>&1 || { cat $(VENV)/build.log; exit 1; }
	@$(MAKE) sbom
	@ls dist build

sbom: ## write a list of what an installation contains (SBOM, CycloneDX), into build/
	mkdir -p build && $(PYTHON) tools/sbom.py >build/istio-iptables.cdx.json

# In an environment of its own, which needs no other: it reads the lock files, and resolves nothing.
audit: ## look up known vulnerabilities of all locked dependencies (pip-audit, which asks PyPI)
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip --quiet --disable-pip-version-check install pip-audit
	$(VENV)/audit/bin/pip-audit --strict --require-hashes --disable-pip --progress-spinner off \
	    $(patsubst %,--requirement requirements/%.txt,build runtime cni dev measure)

# Its dumps are what later versions have to read, take over and clean: tests/fixtures/releases.
VERSION ?=# release: the number
release: system $(VENV) ## prepare the release of VERSION=1.2.3: number, date, and what it leaves in the kernel
	$(PYTHON) tools/release.py $(VERSION)
	$(AS_ROOT) $(VENV)/bin/python -m tests.support.releases $(VERSION)
	@$(PYTHON) tools/release.py --next $(VERSION)

# Run it with the oldest Python: what that needs, the newer ones can install too. ARGS=--upgrade for newer versions.
# The files name no package index: the hashes make the packages of any index safe.
lock: $(VENV) ## write requirements/*.txt again, from setup.cfg and pyproject.toml
	$(PIP_COMPILE) --all-build-deps --only-build-deps --output-file requirements/build.txt
	$(PIP_COMPILE) --constraint requirements/build.txt --output-file requirements/runtime.txt
	$(PIP_COMPILE) --constraint requirements/build.txt --constraint requirements/runtime.txt \
	    --extra cni-api --extra dev --extra test --output-file requirements/dev.txt
	$(PIP_COMPILE) --constraint requirements/build.txt --constraint requirements/runtime.txt \
	    --constraint requirements/dev.txt --extra cni-api --output-file requirements/cni.txt
	$(PIP_COMPILE) --constraint requirements/build.txt --constraint requirements/dev.txt \
	    --extra measure --output-file requirements/measure.txt
PIP_COMPILE = CUSTOM_COMPILE_COMMAND='make lock' $(VENV)/bin/pip-compile setup.cfg --quiet $(ARGS) \
    --generate-hashes --allow-unsafe --strip-extras --no-emit-options \
    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host

clean: ## remove everything that make has made
	rm -rf $(VENV) build dist *.egg-info .coverage* .foreign-programs .fuzz .hypothesis .import_linter_cache .mypy_cache \
	    .pytest_cache .ruff_cache mutants
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# System packages: all of them, or those that `make run` needs.
system: ## install system packages that are missing (apt-get), or say which are
	@tools/system-packages test $(PYTHON)
	@tools/foreign-programs .foreign-programs
system-run:
	@tools/system-packages run $(PYTHON)

# The virtual environment. The stamp's name holds PYTHON, so that another Python makes another environment.
# Everything is checked by its hash: build isolation would fetch the newest setuptools to install this project, so the
# locked setuptools is installed first and used. The "compat" mode puts this folder on the path instead of installing an
# import hook, which would slow down every start.
STAMP := $(VENV)/.made-with$(subst /,_,$(PYTHON))
PIP = $(VENV)/bin/python -m pip --quiet --disable-pip-version-check install
$(VENV): $(STAMP)
venv: $(STAMP) ## make the virtual environment; every target that needs it does that
$(STAMP): setup.cfg setup.py tools/launcher requirements/build.txt requirements/dev.txt
	@tools/system-packages build $(PYTHON)
	@$(PYTHON) -m venv --clear $(VENV)
	@tools/waiting 'making $(VENV), once' $(VENV)/install.log sh -c ' \
	    $(PIP) --require-hashes -r requirements/build.txt && \
	    $(PIP) --no-build-isolation --use-pep517 --require-hashes -r requirements/dev.txt && \
	    $(PIP) --no-build-isolation --no-deps --config-settings editable_mode=compat --editable .'
	@touch $@
$(MEASURING): $(STAMP) requirements/measure.txt
	@tools/waiting 'adding atheris, mutmut and coverage to $(VENV), once' $(VENV)/measuring.log \
	    $(PIP) --require-hashes -r requirements/measure.txt
	@touch $@
