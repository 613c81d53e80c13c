# make demo | test | bench | lint | sanitize: each creates .venv itself.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
TORCH := 2.13.0
# What anybit, its tests and lint need, out of pyproject.toml
REQUIREMENTS := import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	print(*p["dependencies"], *p["optional-dependencies"]["test"], *p["optional-dependencies"]["lint"], sep="\n")

.PHONY: demo test test-slow bench lint native peers sanitize clean

# Kernels compile while torch is fetched, which comes by itself and ahead of all that depends on it, so that no other package's range pulls
# a larger build
$(VENV)/install.stamp: pyproject.toml CMakeLists.txt $(shell find native -type f)
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q --upgrade pip
	$(PY) -m pip install -q "scikit-build-core>=0.10" "nanobind>=2.4" cmake ninja
	@echo "compiling kernels for every instruction set: about 7 minutes on two cores, once"
	$(PY) -m pip install -q torch==$(TORCH) & torch=$$!; failed=0; trap 'kill $$torch 2>/dev/null' INT TERM; \
	$(PY) -m pip install -q --no-deps --no-build-isolation -e . || failed=1; \
	wait $$torch && exit $$failed
	$(PY) -c '$(REQUIREMENTS)' > $(VENV)/requirements.txt
	$(PY) -m pip install -q -r $(VENV)/requirements.txt
	touch $@

demo: $(VENV)/install.stamp
	$(VENV)/bin/anybit demo

test: $(VENV)/install.stamp
	@# two workers on two cores: one thread each, and tests that need more ask for them; reordered, the longest test would come last and alone
	OMP_NUM_THREADS=1 ANYBIT_THREADS=1 $(PY) -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(VENV)/install.stamp
	$(PY) -m pytest -m slow

bench: $(VENV)/install.stamp
	$(VENV)/bin/anybit bench matmul
	$(VENV)/bin/anybit bench model --synthetic 135m

lint: $(VENV)/install.stamp
	$(VENV)/bin/ruff check src tests benchmarks
	$(VENV)/bin/ruff format --check src tests benchmarks
	$(VENV)/bin/mypy

# Other engines to measure against, in an environment of their own; llama.cpp is compiled for this machine (about ten minutes)
peers: .venv-peers/install.stamp .venv-peers-calibrated/install.stamp

.venv-peers/install.stamp: benchmarks/peers-requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install -q --upgrade pip
	@# GCC 12 takes the operand of ldtilecfg for 8 bytes and drops the other stores to it: without the flags ggml crashes on AMX
	CXXFLAGS="-fno-tree-dse -fno-dse" CMAKE_ARGS="-DGGML_NATIVE=ON -DCMAKE_BUILD_TYPE=Release" .venv-peers/bin/python -m pip install -q --no-binary llama-cpp-python -r $<
	touch $@

# llm-compressor wants other versions of transformers than the rest, and GPTQModel a build of torch for CUDA, so its packages come one by one
CALIBRATED := .venv-peers-calibrated/bin/python -m pip install -q
.venv-peers-calibrated/install.stamp: benchmarks/peers-calibrated-requirements.txt Makefile
	$(PYTHON) -m venv .venv-peers-calibrated
	$(CALIBRATED) --upgrade pip
	$(CALIBRATED) torch==$(TORCH)
	$(CALIBRATED) -r $<
	$(CALIBRATED) --no-deps --no-build-isolation gptqmodel==7.7.0 pypcre tokenicer logbar device-smi defuser dill
	touch $@

# Build the extension in place (src/anybit/_native*.so), for work on native/
native:
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q nanobind cmake ninja
	$(VENV)/bin/cmake -S . -B build/dev -G Ninja -DCMAKE_BUILD_TYPE=Release -DPython_EXECUTABLE=$(abspath $(PY)) -DCMAKE_MAKE_PROGRAM=$(abspath $(VENV)/bin/ninja)
	$(VENV)/bin/cmake --build build/dev
	cp build/dev/_native*.so src/anybit/

# The tests of native code with AddressSanitizer and UndefinedBehaviorSanitizer in it, whose reports pytest must not capture: they end it
SANITIZED := tests/ops tests/native/test_isas.py tests/native/test_pack_bytes.py tests/formats/test_native.py tests/tensors/test_fused.py tests/tensors/test_block_errors.py tests/tensors/test_decoding.py tests/runtime
sanitize: $(VENV)/install.stamp
	$(VENV)/bin/cmake -S . -B build/sanitize -G Ninja -DCMAKE_BUILD_TYPE=Release -DANYBIT_SANITIZE=ON -DPython_EXECUTABLE=$(abspath $(PY)) -DCMAKE_MAKE_PROGRAM=$(abspath $(VENV)/bin/ninja)
	$(VENV)/bin/cmake --build build/sanitize
	rm -rf build/sanitize/src && cp -r src build/sanitize/src && cp build/sanitize/_native*.so build/sanitize/src/anybit/
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \
	  PYTHONPATH=build/sanitize/src OMP_NUM_THREADS=1 ANYBIT_THREADS=1 $(PY) -m pytest -q -m "not slow" -n 2 --dist loadfile -p no:cacheprovider --capture=sys $(SANITIZED)

clean:
	rm -rf build $(VENV) .venv-peers .venv-peers-calibrated src/anybit/_native*.so
