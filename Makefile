# Two commands for a fresh machine with Python 3.11 or newer: `make demo` and `make test`.
# Everything is installed into .venv, at the versions of requirements.lock.

# As fingerprint/__init__.py has it; here too, since the tests import NumPy first.
export OPENBLAS_NUM_THREADS ?= 1
export OMP_NUM_THREADS ?= 1

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install -qq --disable-pip-version-check --root-user-action=ignore \
	--no-compile --require-hashes
INSTALL_EARMARK := $(BIN)/pip install -qq --disable-pip-version-check --root-user-action=ignore \
	--no-deps --no-build-isolation --editable .
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes pyproject.toml
# Files of hashes, which look like secrets.
HASHES := ^requirements(-demo)?\.lock$$|^benchmarks/results/|^index/calibration\.json$$

.PHONY: demo test test-all check audit reference described benchmark benchmark-full lock clean

demo: $(or $(wildcard .venv/ready),.venv/demo)  ## Compose works, ingest them, damage them, find them. AUDIO=folder adds your own.
	@$(BIN)/python -m benchmarks.demo $(if $(AUDIO),--audio "$(AUDIO)")

test: .venv/ready  ## What must hold, in minutes: all but the tests marked slow.
	$(BIN)/python tests/forked.py  # compiles the kernels, which tests side by side would each do
	$(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal -m "not slow"

test-all: .venv/training  ## Everything that must hold: also kills, clusters, made-up requests, browsers in every size.
	$(BIN)/python tests/forked.py
	$(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal

check: .venv/ready  ## Style, types, imports, secrets that were left in a file.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	git ls-files -z | xargs -0 $(BIN)/detect-secrets-hook --no-verify --exclude-files '$(HASHES)' \
		--exclude-lines 'bytes\.fromhex'

audit: .venv/ready  ## Known vulnerabilities of what is installed; exit status 2: nothing could be audited.
	@$(BIN)/python .ci/audit.py

described: .venv/ready  ## Whether all answers are as described, over CASES made-up requests for each route.
	CASES=$(or $(CASES),1000) $(BIN)/pytest -s tests/test_described.py

benchmark: .venv/ready  ## How good, how fast, beside its peers: a sample, in minutes.
	$(BIN)/python -m benchmarks.run --size sample

benchmark-full: .venv/ready  ## The same in full: hours; can be stopped and resumed.
	$(BIN)/python -m benchmarks.run --size full

reference: .venv/ready  ## Write docs/reference/ from the code.
	$(BIN)/python .ci/reference.py

lock: .venv/ready  ## Pin the newest versions that pyproject.toml allows.
	$(BIN)/pip install --quiet uv
	$(LOCK) --upgrade --extra datasets --extra server --extra postgresql --extra cluster \
		--group build --group test --group benchmark --group lint --output-file requirements.lock
	$(LOCK) --constraint requirements.lock --extra server --group demo --output-file requirements-demo.lock

clean:
	rm -rf .venv demo-output

# What `make demo` needs, in seconds; then what everything else needs. Both at pinned versions.
.venv/demo: requirements-demo.lock pyproject.toml | .venv/bin/pip
	@echo "Installing what the demo needs."
	@$(INSTALL) --requirement requirements-demo.lock
	@$(INSTALL_EARMARK)
	@touch $@

.venv/ready: requirements.lock pyproject.toml | .venv/bin/pip
	@echo "Installing what the tests, the benchmarks and the checks need. This takes some minutes."
	@$(INSTALL) --requirement requirements.lock
	@$(INSTALL_EARMARK)
	@touch $@

.venv/training: .venv/ready
	@echo "Installing what training needs, for its tests."
	@$(BIN)/pip install -qq --disable-pip-version-check --root-user-action=ignore \
		--no-build-isolation --editable '.[training]'
	@touch $@

.venv/bin/pip:
	@$(PYTHON) -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Earmark needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -I -c 'import ensurepip' 2>/dev/null || \
		{ echo "Python's venv module is incomplete; on Debian: apt-get install python3-venv"; exit 1; }
	@echo "Making a virtual environment in .venv."
	@$(PYTHON) -m venv .venv
