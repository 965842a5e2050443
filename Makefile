# Commands of the project; `make help` lists them. The first one run sets everything up in .venv.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

SIM     ?=
MODULES ?=
BACKEND ?= int
SEED    ?=
WAVES   ?=
PIXELS  ?=
JOBS    ?=
NIGHTLY ?=
N       ?=
MODULE  ?=
HAND    ?=
MUTANT  ?=
ARGS    ?=

VENV := .venv
PY   := PYTHONPATH= $(VENV)/bin/python
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

# ------------------------------------------------------------------------------------------- checks of the variables

one_of = $(if $($(1)),$(if $(filter 1,$(words $($(1)))),$(if $(filter $($(1)),$(2)),,$(call bad,$(1),$(2))),$(call bad,$(1),$(2))))
bad    = $(error $(1)=$($(1)): must be one of $(2))
number = $(if $($(1)),$(if $(shell echo '$($(1))' | grep -Ex '[0-9]{1,10}'),,$(error $(1)=$($(1)): must be a whole number)))
given  = $(if $(strip $($(1))),,$(error $(1) is missing: $(2)))
exists = $(if $(wildcard $($(1))),,$(error $(1)=$($(1)): no such file))

$(call one_of,SIM,verilator icarus)
$(call one_of,MODULES,4 8 16)
$(call one_of,BACKEND,int torch rtl)
$(call one_of,DATASET,cifar10 cifar100)
$(call one_of,WAVES,0 1)
$(call one_of,PIXELS,0 1)
$(call one_of,NIGHTLY,0 1)
$(call one_of,HAND,0 1)
$(call number,JOBS)
$(call number,N)
$(if $(filter random,$(SEED)),,$(call number,SEED))

RUN_USAGE := make run NET=x.clipq.npz IMAGES=x.npy BACKEND=int|torch|rtl OUT=out.npz
ifneq ($(filter run,$(MAKECMDGOALS)),)
$(call given,NET,$(RUN_USAGE))
$(call given,IMAGES,$(RUN_USAGE))
$(call given,OUT,$(RUN_USAGE))
$(call exists,NET)
$(call exists,IMAGES)
endif
ACCURACY_USAGE := make accuracy NET=x.clipq.npz DATASET=cifar10|cifar100
ifneq ($(filter accuracy,$(MAKECMDGOALS)),)
$(call given,NET,$(ACCURACY_USAGE))
$(call given,DATASET,$(ACCURACY_USAGE))
$(call exists,NET)
ifeq ($(BACKEND),rtl)
$(error BACKEND=rtl: must be one of int torch for accuracy)
endif
endif

# ------------------------------------------------------------------------------------------------------------- targets

.PHONY: help setup demo sim regress run accuracy train vectors perf lint formal mutate clean coverage

help: ## list the commands
	@echo 'Commands (the first one run sets everything up in $(VENV)):'
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1@\2/p' Makefile | awk -F@ '{printf "%-16s %s\n", $$1, $$2}'
	@echo 'Variables: SIM=verilator|icarus MODULES=4|8|16 SEED=n WAVES=1 JOBS=n; the defaults are verilator and 4.'

setup: $(VENV)/.stamp ## install everything, run nothing

$(VENV)/.stamp: requirements.txt ci/setup.sh ci/verilator-shim.sh
	@ci/setup.sh

demo: $(VENV)/.stamp ## CIFAR-10 images through the RTL, every layer compared with PyTorch
	@$(PY) -m tb.demo $(if $(MODULES),--modules $(MODULES)) $(if $(NET),--net '$(NET)') $(ARGS)

sim: $(VENV)/.stamp ## one test: TEST=name [SIM=] [SEED=n] [WAVES=1] [MODULES=]; without TEST it lists them
	@$(PY) -m tb.sim --test '$(TEST)' $(if $(SIM),--sim $(SIM)) $(if $(SEED),--seed $(SEED)) \
	    $(if $(filter 1,$(WAVES)),--waves) $(if $(MODULES),--modules $(MODULES))

regress: $(VENV)/.stamp ## all tests: [SIM=] [JOBS=n] [SEED=n|random] [NIGHTLY=1]
	@$(PY) -m tb.regress $(if $(SIM),--sim $(SIM)) $(if $(JOBS),--jobs $(JOBS)) $(if $(SEED),--seed $(SEED)) \
	    $(if $(filter 1,$(NIGHTLY)),--nightly)

run: $(VENV)/.stamp ## any network on any input: NET= IMAGES= BACKEND=int|torch|rtl OUT= [PIXELS=1] [MODULES=]
	@$(PY) -m tb.run_network --net '$(NET)' --images '$(IMAGES)' --backend $(BACKEND) --out '$(OUT)' \
	    $(if $(filter 1,$(PIXELS)),--pixels) $(if $(MODULES),--modules $(MODULES))

accuracy: $(VENV)/.stamp ## top-1 on the 10,000 test images: NET= DATASET=cifar10|cifar100 [BACKEND=int|torch]
	@$(PY) -m model.accuracy --net '$(NET)' --dataset $(DATASET) --backend $(BACKEND)

train: $(VENV)/.stamp ## CLIP-Q training: [DATASET=cifar10|cifar100] [SEED=n] [ARGS=--help lists more]
	@$(PY) -m train.train $(if $(DATASET),--dataset $(DATASET)) $(if $(SEED),--seed $(SEED)) $(ARGS)

vectors: $(VENV)/.stamp ## shipped networks and weight vectors again from the shipped checkpoints
	@$(PY) -m train.export $(ARGS)

perf: $(VENV)/.stamp ## cycles, utilization and memory accesses per layer, measured and predicted
	@$(PY) -m tb.perf $(if $(MODULES),--modules $(MODULES)) $(if $(NET),--net '$(NET)') $(ARGS)

lint: $(VENV)/.stamp ## Verilator, Icarus and Yosys over all RTL, generated files up to date
	@$(PY) -m tb.lint $(if $(JOBS),--jobs $(JOBS))

coverage: $(VENV)/.stamp ## line, branch and toggle coverage of rtl/ against the gates: [JOBS=n] [SEED=n] [ARGS=--missed]
	@$(PY) -m tb.code_coverage $(if $(JOBS),--jobs $(JOBS)) $(if $(SEED),--seed $(SEED)) $(ARGS)

mutate: $(VENV)/.stamp ## bugs planted in the RTL, and which tests find them: [N=200] [SEED=n] [MODULE=name] [HAND=1] [MUTANT=id] [ARGS=]
	@$(PY) -m tb.mutate $(if $(N),--count $(N)) $(if $(SEED),--seed $(SEED)) $(if $(MODULE),--module '$(MODULE)') \
	    $(if $(filter 1,$(HAND)),--hand) $(if $(MUTANT),--mutant '$(MUTANT)') $(ARGS)

formal: $(VENV)/.stamp ## proofs: [PROOF=name] [JOBS=n] [NIGHTLY=1]
	@$(PY) -m tb.formal $(if $(PROOF),--proof '$(PROOF)') $(if $(JOBS),--jobs $(JOBS)) $(if $(filter 1,$(NIGHTLY)),--nightly) $(ARGS)

clean: ## delete what was built (not .venv)
	rm -rf build
