# Each target makes its own environment when there is none. PYTHON=python3.11 make test chooses the interpreter.
PYTHON ?= python3
BIN := .venv/bin
# the second environment of the tests: the same packages, but dgl 2.1.0
DGL2 := .venv-dgl2/bin

.PHONY: compare test fuzz kill scale lint docs clean

compare: .venv/ready
	$(BIN)/mer-zoo compare --output runs

# a worker per processor, one thread each; a file's tests stay together, for they share what is costly to make; the
# longest files begin (tests/conftest.py)
TESTS := OMP_NUM_THREADS=1
SPREAD := --numprocesses auto --dist loadfile --no-loadscope-reorder

test: lint .venv-dgl2/ready
	$(TESTS) $(BIN)/python -m pytest $(SPREAD)
	$(TESTS) $(DGL2)/python -m pytest $(SPREAD) -k "not test_parity.py or DGL" tests/test_kernels.py \
		tests/test_graphs.py tests/test_parity.py mer_zoo/graph mer_zoo/kernel

# every file that a user may be handed, valid ones mutated: make fuzz CASES=10000, or SEED=7 to see the same again
CASES ?= 1000
SEED ?= $(shell date +%s)
fuzz: .venv/ready
	$(TESTS) PYTHONPATH=tests $(BIN)/python -W ignore -m fuzzing --cases $(CASES) --seed $(SEED) --kept tests/fuzzing/corpus

# a suite whose processes are killed at random, started again until it is whole, here and on a cluster of two machines,
# of which one is lost now and then: make kill KILLS=20
KILLS ?= 20
kill: .venv/ready
	$(TESTS) $(BIN)/python tests/killing.py --kills $(KILLS)
	$(TESTS) $(BIN)/python tests/killing.py --kills $(KILLS) --ray

# six models x six seeds on a cluster of two machines give what this one gives
scale: .venv/ready
	$(TESTS) $(BIN)/python tests/scaling.py

docs: .venv/ready
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --quiet --builder html docs site
	@echo "Open site/index.html"

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $@

.venv-dgl2/ready: .venv/ready
	$(BIN)/python -m venv .venv-dgl2
	$(DGL2)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement tests/requirements-dgl2.txt
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > \
		"$$($(DGL2)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/base.pth"
	touch $@

clean:
	rm -rf .venv .venv-dgl2 site dist runs docs/api docs/catalogue docs/made docs/models \
		docs/papers.md docs/reference/commands.md docs/reference/tested.md
