# make demo         installs without torch and runs a shipped model on shipped images
# make demo-export  installs torch too and goes the whole way from the checkpoint
# make test         lint, types and the whole test suite
# make bench        the race: whole networks beside what would be run instead (15 minutes)

PYTHON ?= python3
VENV ?= .venv
# The torch that the tests are run with. Installed first and by itself, so that nothing pulls in
# another one.
TORCH ?= torch==2.13.0
# Each process takes files as they come, so that what a file shares is made once.
PYTEST_ARGS ?= -n auto --dist worksteal

BIN := $(VENV)/bin
DIGITS := examples/digits
SOURCES := pyproject.toml CMakeLists.txt $(wildcard cmake/*.cmake kernels/cpu/*.cpp $(addprefix kernels/cpu/*/*,.cpp .h .inc))

.PHONY: demo demo-export test lint types pytest bench clean

demo: $(VENV)/.installed-cpu
	$(BIN)/adder-run $(DIGITS)/resnet8_digits.onnx --data $(DIGITS)/test

demo-export: $(VENV)/.installed-dev
	mkdir -p build
	$(BIN)/adder-export $(DIGITS)/resnet8_digits.pth build/resnet8_digits.onnx \
	  --input-shape 1,8,8 --mean 0.3054 --std 0.3760
	$(BIN)/adder-run build/resnet8_digits.onnx --data $(DIGITS)/test

test: lint types pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy -p adder_onnx

pytest: $(VENV)/.installed-dev
	$(BIN)/pytest $(PYTEST_ARGS)

bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks.race $(RACE_ARGS)
	$(BIN)/python -m benchmarks.race.table

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.installed-cpu: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --editable '.[cpu]'
	touch $@

# adder-onnx is installed by now, from here: what is named is what else its extras need. Named as a
# folder, it would be built again.
$(VENV)/.installed-dev: $(VENV)/.installed-cpu
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	$(BIN)/python -m pip install --quiet 'adder-onnx[cpu,dev]'
	touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet 'adder-onnx[bench]'
	touch $@

clean:
	rm -rf $(VENV) build dist
