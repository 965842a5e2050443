# Commands of the project; `make help` lists them. The first one run sets everything up in .venv.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# ----------------------------------------------------------------------------------------------------------- variables

# Paths may also stand in the environment. The others decide what a command does or tests: they count on the command
# line only, so that a variable that is there for something else changes no result.
PATHS   := NET IMAGES OUT CIFAR_ROOT MODEL CALIB FLOAT
CHOICES := SIM MODULES TARGET BLOCK BACKEND DATASET SEED WAVES PIXELS JOBS NIGHTLY TEST N MODULE HAND MUTANT PROOF ARGS
CHOICES += PLANES RECIPE DEVICE TABLE SCHEDULER BASE BOARD

define newline


endef

# A value as it was typed: make would expand its dollar signs. `$$` is one, as everywhere in make.
typed = $(subst $$$$,$$,$(value $1))
quote = '$(subst ','\'',$1)'
fails = $(shell $1 || echo yes)
# A path for a command, which runs in the folder of this file; make was perhaps called from another one.
path  = $(if $1,$(if $(filter x/%,$(first)),$1,$(if $(filter x~ x~/%,$(first)),$(home),$(CURDIR)/$1)))
first = $(firstword x$1)
home  = $(subst $(newline)~,$(or $(value HOME),$(error ~ in a path needs HOME)),$(newline)$1)

chosen := $(foreach v,$(PATHS) $(CHOICES),$(if $(filter command,$(origin $v)),$v))
$(foreach v,$(PATHS) $(CHOICES),$(if $(findstring $(newline),$(value $v)),$(error $v holds a line break)))
$(foreach v,$(PATHS),$(eval override $v := $$(call path,$$(call typed,$v))))
$(foreach v,$(CHOICES),$(eval override $v := $(if $(filter command override,$(origin $v)),$$(call typed,$v))))

# A recipe is a name, or a file, perhaps of the folder that make was called from.
ifneq ($(filter %.yaml,$(RECIPE)),)
override RECIPE := $(call path,$(RECIPE))
endif

# The folder of this file. Its path may hold blanks, at which make's own functions split.
root := $(shell f=$(call quote,$(subst $(newline) ,,$(newline)$(MAKEFILE_LIST))); \
    test -e "$$f" || f=$(call quote,$(lastword $(MAKEFILE_LIST))); \
    CDPATH= cd -- "$$(dirname -- "$$(readlink -f -- "$$f")")" && pwd)

# What would break or bend the start of Python and of the shells and tools of set-up. What the commands start in their
# turn gets the environment of host/simulation/environment.py.
unexport $(filter-out PYTHON PYTHONDONTWRITEBYTECODE PYTHONUNBUFFERED,$(filter PYTHON% PERL%,$(.VARIABLES))) \
    BASH_ENV ENV CDPATH SHELLOPTS BASHOPTS POSIXLY_CORRECT GREP_OPTIONS MPLBACKEND TORCH_LOGS
export CIFAR_ROOT

# ------------------------------------------------------------------------------------------- checks of the variables

wrong  = $(if $1,$(error $2=$($2): $3))
one_of = $(if $($1),$(call wrong,$(filter-out $2,$($1))$(filter-out 1,$(words $($1))),$1,must be one of $2))
digits = case $(call quote,$($1)) in (*[!0-9]*|???????????*) false;; esac
number = $(if $($1),$(call wrong,$(call fails,$(digits)),$1,must be a whole number))
exists = $(call wrong,$(call fails,test -e $(call quote,$($1))),$1,no such file)
given  = $(if $(strip $($1)),,$(error $1 is missing: $2))

$(call one_of,SIM,verilator icarus)
$(call one_of,MODULES,4 8 16)
$(call one_of,PLANES,2 3)
$(call one_of,TARGET,xc7 ecp5)
$(call one_of,BACKEND,int torch rtl)
$(call one_of,DATASET,cifar10 cifar100)
$(call one_of,WAVES,0 1)
$(call one_of,PIXELS,0 1)
$(call one_of,NIGHTLY,0 1)
$(call one_of,HAND,0 1)
$(call one_of,DEVICE,cpu cuda)
$(call one_of,TABLE,bits point quantizers)
$(call one_of,BOARD,ulx3s)
$(call number,JOBS)
$(call number,N)
$(if $(filter random,$(SEED)),,$(call number,SEED))
parsed := printf 'set -- %s' $(call quote,$(ARGS)) | sh -n 2>/dev/null
$(call wrong,$(call fails,$(parsed)),ARGS,must be options as a shell takes them)

# What a goal takes stands in its line of `make help`.
ifeq ($(words $(chosen))-$(words $(MAKECMDGOALS)),$(words $(chosen))-1)
taken := $(shell sed -n 's/^$(MAKECMDGOALS):.*## //p' $(call quote,$(root)/Makefile) | tr '][|:;" ' '\n')
$(foreach v,$(filter-out CIFAR_ROOT,$(chosen)),$(if $(filter $v=%,$(taken)),,$(warning $v has no effect on make $(MAKECMDGOALS))))
endif

RUN_USAGE := make run NET=x.clipq.npz IMAGES=x.npy OUT=out.npz [BACKEND=int|torch|rtl]
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

FARM_USAGE := make farm-accuracy NET=x.clipq.npz IMAGES=x.npy [PIXELS=1]|DATASET=cifar10|cifar100 [N=] [SCHEDULER=tcp://...]
ifneq ($(filter farm-accuracy,$(MAKECMDGOALS)),)
$(call given,NET,$(FARM_USAGE))
$(if $(DATASET),,$(call given,IMAGES,$(FARM_USAGE)))
$(call exists,NET)
$(if $(IMAGES),$(call exists,IMAGES))
endif

IMPORT_USAGE := make import MODEL=x.onnx [CALIB=images.npy] OUT=x.clipq.npz
ifneq ($(filter import,$(MAKECMDGOALS)),)
$(call given,MODEL,$(IMPORT_USAGE))
$(call given,OUT,$(IMPORT_USAGE))
$(call exists,MODEL)
$(if $(CALIB),$(call exists,CALIB))
endif
CHECK_USAGE := make check NET=x.onnx|x.clipq.npz [MODULES=] [PLANES=]
ifneq ($(filter check,$(MAKECMDGOALS)),)
$(call given,NET,$(CHECK_USAGE))
$(call exists,NET)
endif
DIFF_USAGE := make diff NET=x.clipq.npz IMAGES=x.npy [FLOAT=x.onnx] [BACKEND=int|rtl] [PIXELS=1]
ifneq ($(filter diff,$(MAKECMDGOALS)),)
$(call given,NET,$(DIFF_USAGE))
$(call given,IMAGES,$(DIFF_USAGE))
$(call exists,NET)
$(call exists,IMAGES)
$(if $(FLOAT),$(call exists,FLOAT))
ifeq ($(BACKEND),torch)
$(error BACKEND=torch: must be one of int rtl for diff)
endif
endif
EXPORT_USAGE := make export NET=x.clipq.npz OUT=x.onnx
ifneq ($(filter export,$(MAKECMDGOALS)),)
$(call given,NET,$(EXPORT_USAGE))
$(call given,OUT,$(EXPORT_USAGE))
$(call exists,NET)
endif

# ------------------------------------------------------------------------------------------------------------- targets

here   := cd $(call quote,$(root))
python := $(here) && bash -p ci/setup.sh && PATH="$$PWD/.venv/bin:$$PATH" exec .venv/bin/python -m
# Options of a command: `option` with the value of a variable that is given, `flag` where the variable is 1.
option = $(if $($1),--$2=$(call quote,$($1)))
flag   = $(if $(filter 1,$($1)),--$2)

.PHONY: help setup demo sim regress run accuracy train vectors perf lint formal mutate synth clean coverage import check export diff
.PHONY: docs tables report signoff speed waves farm-accuracy farm-regress farm-mutate bitstream results

##@ Start

help: ## list the commands
	@echo 'Commands (the first one run sets everything up in .venv):'
	@$(here) && sed -n 's/^##@ \(.*\)/\n\1/p; s/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' Makefile \
	    | awk -F@ '{printf $$2 ? "%-20s %s\n" : "%s\n", $$1, $$2}'
	@echo
	@echo 'Variables: SIM=verilator|icarus MODULES=4|8|16 SEED=n WAVES=1 JOBS=n. Defaults: verilator (regress: both simulators), 4 modules.'
	@echo 'They count on the command line only; NET, IMAGES, OUT, MODEL, CALIB, FLOAT and CIFAR_ROOT may stand in the environment, too.'

setup: ## install everything, run nothing
	@$(here) && bash -p ci/setup.sh

demo: ## CIFAR-10 images through the RTL, every layer compared with PyTorch: [MODULES=] [NET=] [ARGS=]
	@$(python) host demo $(call option,MODULES,modules) $(call option,NET,net) $(ARGS)

##@ Your network

import: ## an ONNX or QONNX model becomes a network file: MODEL= [CALIB=images.npy] OUT= [ARGS="--mean= --std="]
	@$(python) model import $(call option,MODEL,model) $(call option,CALIB,calib) $(call option,OUT,out) $(ARGS)

check: ## whether a model or network file runs, and what it costs: NET=x.onnx|x.clipq.npz [MODULES=] [PLANES=] [ARGS=--clock=MHz]
	@$(python) model check $(call option,NET,net) $(call option,MODULES,modules) $(call option,PLANES,planes) $(ARGS)

run: ## any network on any input: NET= IMAGES= OUT= [BACKEND=int|torch|rtl] [PIXELS=1] [MODULES=] [PLANES=]
	@$(python) host run $(call option,NET,net) $(call option,IMAGES,images) $(call option,BACKEND,backend) \
	    $(call option,OUT,out) $(call flag,PIXELS,pixels) $(call option,MODULES,modules) $(call option,PLANES,planes)

diff: ## where accuracy goes, layer by layer: NET= IMAGES= [FLOAT=x.onnx] [BACKEND=int|rtl] [PIXELS=1] [MODULES=] [OUT=x.png] [ARGS=]
	@$(python) host diff $(call option,NET,net) $(call option,IMAGES,images) $(call option,FLOAT,float) \
	    $(call option,BACKEND,backend) $(call option,OUT,out) $(call option,MODULES,modules) $(call flag,PIXELS,pixels) $(ARGS)

export: ## a network file becomes an ONNX model of the same integers: NET= OUT=
	@$(python) model export $(call option,NET,net) $(call option,OUT,out)

accuracy: ## top-1 on the 10,000 test images: NET= DATASET=cifar10|cifar100 [BACKEND=int|torch]
	@$(python) host accuracy $(call option,NET,net) $(call option,DATASET,dataset) $(call option,BACKEND,backend)

farm-accuracy: ## images through the RTL on a Dask cluster: NET= IMAGES= [PIXELS=1]|DATASET= [N=] [SCHEDULER=] [JOBS=n] [MODULES=] [OUT=]
	@$(python) host farm $(call option,NET,net) $(call option,IMAGES,images) $(call option,DATASET,dataset) \
	    $(call option,N,count) $(call option,SCHEDULER,scheduler) $(call option,JOBS,workers) \
	    $(call option,MODULES,modules) $(call option,OUT,out) $(call flag,PIXELS,pixels)

##@ Training

learning = $(call option,RECIPE,recipe) $(call option,DATASET,dataset) $(call option,SEED,seed) \
    $(call option,DEVICE,device) $(ARGS)

train: ## from data to network: [RECIPE=full|short|resnet20|smoke|paper|digits|FILE.yaml] [DATASET=] [DEVICE=cuda] [SEED=n] [ARGS=]
	@$(python) train run $(learning)

tables: ## the 2022 paper's tables, measured: [TABLE=bits|point|quantizers] [DATASET=] [RECIPE=] [DEVICE=cuda] [SEED=n] [ARGS=]
	@$(python) train tables $(TABLE) $(learning)

vectors: ## the shipped networks again from the shipped checkpoints, byte for byte: [ARGS=]
	@$(python) train export $(ARGS)

##@ Hardware

perf: ## cycles, utilization and memory accesses per layer, measured and predicted: [MODULES=] [NET=] [ARGS=]
	@$(python) host perf $(call option,MODULES,modules) $(call option,NET,net) $(ARGS)

synth: ## area and clock by open tools: [TARGET=ecp5|xc7] [MODULES=] [PLANES=] [BLOCK=quick|all|whole|name] [JOBS=] [ARGS=]
	@$(python) syn $(call option,TARGET,target) $(call option,MODULES,modules) $(call option,PLANES,planes) \
	    $(call option,BLOCK,block) \
	    $(call option,JOBS,jobs) $(ARGS)

bitstream: ## of a board, by open tools: [BOARD=ulx3s] [MODULES=] [PLANES=] [ARGS="--set NAME=NUMBER"]
	@$(python) ci bitstream $(call option,BOARD,board) $(call option,MODULES,modules) $(call option,PLANES,planes) $(ARGS)

##@ Verification

sim: ## one test: TEST=name [SIM=] [SEED=n] [WAVES=1] [MODULES=]; without TEST it lists them
	@$(python) ci sim $(call option,TEST,test) $(call option,SIM,sim) $(call option,SEED,seed) $(call flag,WAVES,waves) \
	    $(call option,MODULES,modules)

waves: ## the last waves of a test in GTKWave or Surfer: TEST=name
	@$(python) ci waves $(call option,TEST,test)

regress: ## all tests: [SIM=] [JOBS=n] [SEED=n|random] [NIGHTLY=1]
	@$(python) ci regress $(call option,SIM,sim) $(call option,JOBS,jobs) $(call option,SEED,seed) $(call flag,NIGHTLY,nightly)

farm-regress: ## the benches of the regression on a Dask cluster: [SCHEDULER=] [JOBS=n] [SIM=] [SEED=n|random] [NIGHTLY=1]
	@$(python) ci farm-regress $(call option,SIM,sim) $(call option,SEED,seed) $(call flag,NIGHTLY,nightly) \
	    $(call option,SCHEDULER,scheduler) $(call option,JOBS,workers)

coverage: ## line, branch and toggle coverage of rtl/ against the gates: [JOBS=n] [SEED=n] [ARGS=--missed]
	@$(python) ci coverage $(call option,JOBS,jobs) $(call option,SEED,seed) $(ARGS)

mutate: ## bugs planted in the RTL, and which tests find them: [N=100] [SEED=n] [MODULE=name] [HAND=1] [MUTANT=id] [ARGS=]
	@$(python) ci mutate $(call option,N,count) $(call option,SEED,seed) $(call option,MODULE,module) $(call flag,HAND,hand) \
	    $(call option,MUTANT,mutant) $(ARGS)

farm-mutate: ## the same on a Dask cluster: [SCHEDULER=] [JOBS=n] [N=100] [SEED=n] [MODULE=name] [HAND=1]
	@$(python) ci farm-mutate $(call option,N,count) $(call option,SEED,seed) $(call option,MODULE,module) $(call flag,HAND,hand) \
	    $(call option,SCHEDULER,scheduler) $(call option,JOBS,workers)

formal: ## proofs: [PROOF=name] [JOBS=n] [NIGHTLY=1] [ARGS=--planted]
	@$(python) ci formal $(call option,PROOF,proof) $(call option,JOBS,jobs) $(call flag,NIGHTLY,nightly) $(ARGS)

lint: ## Verilator, Icarus and Yosys over all RTL, style and types of Python, Markdown, generated files: [JOBS=n]
	@$(python) ci lint $(call option,JOBS,jobs)

speed: ## speed of RTL simulation against another commit's, side by side: BASE=commit [ARGS=]
	@$(call given,BASE,a commit)$(python) ci speed $(call option,BASE,base) $(ARGS)

##@ Results and pages

report: ## one site of all results of the last runs, in build/report: [ARGS=]
	@$(python) ci report $(ARGS)

signoff: ## the report; fails unless every goal of verification is met: [ARGS=]
	@$(python) ci report --check $(ARGS)

results: ## ours beside the paper's and others' figures, as a page: [OUT=build/results.md]
	@$(python) ci results $(call option,OUT,out)

docs: ## the documentation site, in build/site
	@$(python) mkdocs build

clean: ## delete build/, with the networks trained in it (not .venv)
	rm -rf -- $(call quote,$(root))/build
