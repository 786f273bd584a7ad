# Two commands for a fresh machine with Python 3.11 or newer: `make demo` and `make test`.
# Everything is installed into .venv, at the versions of requirements.lock.

# As fingerprint/__init__.py has it; here too, since the tests import NumPy first.
export OPENBLAS_NUM_THREADS ?= 1
export OMP_NUM_THREADS ?= 1

PYTHON ?= python3
BIN := .venv/bin
# Files of hashes, which look like secrets.
HASHES := ^requirements\.lock$$|^benchmarks/results/|^index/calibration\.json$$

.PHONY: demo test check described benchmark benchmark-full lock clean

demo: .venv/ready  ## Compose works, ingest them, damage them, find them. AUDIO=folder adds your own.
	$(BIN)/python -m benchmarks.demo $(if $(AUDIO),--audio "$(AUDIO)")

test: .venv/ready  ## Everything that must hold.
	$(BIN)/python tests/forked.py  # compiles the kernels, which tests side by side would each do
	$(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal

check: .venv/ready  ## Style and types, known vulnerabilities, secrets that were left in a file.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/audit.py
	git ls-files -z | xargs -0 $(BIN)/detect-secrets-hook --no-verify --exclude-files '$(HASHES)' \
		--exclude-lines 'bytes\.fromhex'

described: .venv/ready  ## Whether all answers are as described, over CASES made-up requests for each route.
	CASES=$(or $(CASES),1000) $(BIN)/pytest -s tests/test_described.py

benchmark: .venv/ready  ## How good, how fast, beside its peers: a sample, in minutes.
	$(BIN)/python -m benchmarks.run --size sample

benchmark-full: .venv/ready  ## The same in full: hours; can be stopped and resumed.
	$(BIN)/python -m benchmarks.run --size full

lock: .venv/ready  ## Pin the newest versions that pyproject.toml allows.
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
		--extra dev pyproject.toml --output-file requirements.lock

clean:
	rm -rf .venv demo-output

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Earmark needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "Python's venv module is incomplete; on Debian: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@
