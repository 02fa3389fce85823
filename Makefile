# Both kinds of command (make demo, make test) work on a machine that has only git, make, Python 3.11 or later
# and root (or sudo) on Debian or Ubuntu: everything else they install themselves.
SHELL := /bin/bash
.DEFAULT_GOAL := help
# Not said: python3, and to deploy the newest that Lambda has (local/setup.sh).
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin

# sudo clears the environment; these are what the commands are told by, and what pip and apt need on the way out.
KEEP := HOME NOD_MINUTE_SECONDS NOD_LOCAL_DIR NOD_CACHE_DIR NOD_API_PORT NOD_AWS_PORT NOD_FAULTS NOD_INSTALLER_URL NOD_INSTALLER_SHA256 \
	XDG_CACHE_HOME AWS_REGION PIP_CONFIG_FILE PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_CERT SSL_CERT_FILE \
	REQUESTS_CA_BUNDLE http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY NO_COLOR
comma := ,
empty :=
space := $(empty) $(empty)
# Without sudo the commands run as they are and say that they need root.
SUDO := $(shell [ "$$(id -u)" = 0 ] || ! command -v sudo >/dev/null || echo sudo --preserve-env=$(subst $(space),$(comma),$(strip $(KEEP))))
# An ordinary user's PATH on Debian leaves out where mount, chroot and debootstrap are.
ROOT := $(SUDO) env "PATH=$$PATH:/usr/local/sbin:/usr/sbin:/sbin"

.PHONY: another-python help demo local test test-long lint bench package deploy smoke destroy policy picture definitions clean

another-python:

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /|/' | while IFS='|' read -r name text; do \
		printf '  make %-11s %s\n' "$$name" "$$text"; done

# One stamp for each kind of set-up: what was installed for `make demo` is not enough for `make test`.
$(VENV)/.setup-demo $(VENV)/.setup-deploy: requirements.txt requirements-local.txt pyproject.toml local/setup.sh
$(VENV)/.setup-lint $(VENV)/.setup-test: requirements.txt requirements-local.txt requirements-dev.txt pyproject.toml local/setup.sh
$(VENV)/.setup-test: requirements-scan.txt package.json package-lock.json
# Another Python is asked for than that of the environment: it is set up anew.
VERSION := import sys; print(sys.version_info[:2])
ifneq ($(PYTHON),)
ifneq ($(shell "$(PYTHON)" -c '$(VERSION)' 2>/dev/null),$(shell $(BIN)/python -c '$(VERSION)' 2>/dev/null))
$(VENV)/.setup-demo $(VENV)/.setup-deploy $(VENV)/.setup-lint $(VENV)/.setup-test: another-python
endif
endif
$(VENV)/.setup-%:
	@PYTHON="$(PYTHON)" bash local/setup.sh $* $(VENV)
	@touch $@

demo: $(VENV)/.setup-demo ## local cloud up, a notebook requested over HTTP, its link printed; Ctrl-C ends it
	@$(ROOT) $(BIN)/python -m local demo

local: $(VENV)/.setup-demo ## the local cloud alone, serving until Ctrl-C
	@$(ROOT) $(BIN)/python -m local serve

test: $(VENV)/.setup-test ## the tests, those on real machines and with a browser too
	@$(ROOT) $(BIN)/python -m pytest -n 6 --dist loadfile --no-loadscope-reorder -m 'not long'

test-long: $(VENV)/.setup-test ## the tests that take minutes each on machines, and that trusting a change does not need
	@$(ROOT) $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m long

lint: $(VENV)/.setup-lint ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.setup-test ## speed and memory figures
	@$(ROOT) $(BIN)/python -m benchmarks

# What is not said is empty: python -m deploy says what is missing, before anything is created.
package: $(VENV)/.setup-deploy ## template and code for AWS into build/package: STAGE=… [CIDR=…]
	@$(BIN)/python -m deploy package --stage '$(STAGE)' --cidr '$(CIDR)' --open-to-the-world '$(OPEN_TO_THE_WORLD)'

deploy: $(VENV)/.setup-deploy ## into your AWS account, again to update: STAGE=… CIDR=… [REGION=… SUBNETS=… OPERATORS_EMAIL=… INSTANCE_TYPES=…]
	@$(BIN)/python -m deploy deploy --stage '$(STAGE)' --region '$(REGION)' --cidr '$(CIDR)' --subnets '$(SUBNETS)' \
		--open-to-the-world '$(OPEN_TO_THE_WORLD)' --operators-email '$(OPERATORS_EMAIL)' --key-name '$(KEY_NAME)' \
		--installer-url '$(INSTALLER_URL)' --installer-sha256 '$(INSTALLER_SHA256)' --slack-origin '$(SLACK_ORIGIN)' \
		--instance-types '$(INSTANCE_TYPES)'

smoke: $(VENV)/.setup-deploy ## see on AWS what only an account can show, some cents: STAGE=… [REGION=… INSTANCE_TYPE=… EMAIL=…]
	@$(BIN)/python -m deploy smoke --stage '$(STAGE)' --region '$(REGION)' --url '$(URL)' --instance-type '$(INSTANCE_TYPE)' --email '$(EMAIL)'

destroy: $(VENV)/.setup-deploy ## take it away, with all that bills: STAGE=… [REGION=… FORCE=yes-delete-notebooks]
	@$(BIN)/python -m deploy destroy --stage '$(STAGE)' --region '$(REGION)' --force '$(FORCE)'

policy: $(VENV)/.setup-deploy ## the IAM policies for who deploys and who adds users: STAGE=… ACCOUNT=… [REGION=…]
	@$(BIN)/python -m deploy policy --stage '$(STAGE)' --region '$(REGION)' --account '$(ACCOUNT)'

picture: $(VENV)/.setup-deploy ## draw docs/architecture.svg from the template
	@$(BIN)/python -m deploy picture

definitions: $(VENV)/.setup-deploy ## print the workflows as they are deployed: [NAME=launch]
	@$(BIN)/python -m deploy definitions '$(NAME)'

clean: ## remove what the commands above made in the checkout
	@$(SUDO) rm -rf $(VENV) .local build node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
