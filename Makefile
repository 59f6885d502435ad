# The few verbs of this repository. `sudo make demo` is all a newcomer needs.
PYTHON := .venv/bin/python
.PHONY: setup torch tools demo test soak check lab bench lock

setup: ## system packages (as root), virtual environment, llama.cpp built for this machine
	@provisioning/setup.sh

torch: setup ## PyTorch, to train the shipped model; without it the tests of the training are skipped and named
	@$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["torch-extra"])' \
		| xargs $(PYTHON) -m pip install --quiet --disable-pip-version-check

tools: ## what only tests need: a browser with its driver, PostgreSQL, age; without them their tests are skipped and named
	@provisioning/setup.sh chromium chromium-driver postgresql age

demo: setup ## the whole product, for real, on this machine
	@$(PYTHON) -m appliance demo

test: setup check ## everything; as root the lab tests run for real, without root they are skipped and named
	@$(PYTHON) -m pytest

soak: setup ## a thousand kills of notary and control, twenty thousand simulated crashes (hours)
	@KILLS=1000 CRASH_POINTS=20000 PLACES=10000 $(PYTHON) -m pytest tests/unit/notary/test_killed.py \
		tests/unit/notary/test_crash_points.py tests/unit/control/test_control_killed.py tests/unit/receipt/test_attacks.py

check: setup ## formatting, lint, types, import direction
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m mypy
	@.venv/bin/lint-imports

lab: setup ## bring the lab up and leave it up (end it with: appliance lab down)
	@$(PYTHON) -m appliance lab up

bench: setup ## what the product's parts cost
	@$(PYTHON) -m appliance bench

lock: ## pin every dependency anew, with hashes
	@provisioning/lock.sh
