# SPDX-License-Identifier: BSD-3-Clause
# Developer and installer verbs; CI runs the same ones. `make help` lists them.

PREFIX ?= /opt/shifter
SYSCONFDIR ?= /etc/shifter
DESTDIR ?=
# The interpreter of the installed programs: one that every user of the machine can execute.
PYTHON ?= /usr/bin/python3
# The developers' own environment, made by `make venv` (tests/run does it too).
VENV := build/venv

libdir := $(PREFIX)/lib/shifter
root := $(DESTDIR)$(PREFIX)
venv := $(DESTDIR)$(libdir)/venv
shell_scripts = $(shell git ls-files -co --exclude-standard | xargs -r awk '/^\#!.*[/ ](ba)?sh$$/ { print FILENAME } { nextfile }' 2>/dev/null)

extension_flags = -Iudiroot/src -std=c11 -O2 -D_GNU_SOURCE -Wall -Wextra -Wshadow -Wconversion -Werror -fanalyzer \
    -isystem $(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')

.PHONY: help build programs wheel venv install uninstall test lint docs bench demo clean
.DEFAULT_GOAL := help

help: ## list the verbs
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/'

build: programs wheel ## compile the C programs, the Slurm plug-in and the Python package

programs:
	$(MAKE) -C udiroot PREFIX=$(PREFIX) SYSCONFDIR=$(SYSCONFDIR)
	$(MAKE) -C slurm_spank PREFIX=$(PREFIX) SYSCONFDIR=$(SYSCONFDIR)

# setuptools keeps what it once built: a module that was removed would live on in the wheel.
wheel:
	rm -rf build/lib* build/bdist* build/wheel
	$(PYTHON) -m venv build/wheel-venv
	umask 022 && build/wheel-venv/bin/pip -q wheel --no-deps --wheel-dir build/wheel .

venv: $(VENV)/.stamp ## make or refresh the developers' environment in build/venv

$(VENV)/.stamp: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip -q install setuptools wheel
	$(VENV)/bin/pip -q install --no-build-isolation -e '.[test]'
	touch $@

# Everything below PREFIX belongs to us alone except bin/ and sbin/, so uninstall can name each file.
install: build ## install below DESTDIR/PREFIX and SYSCONFDIR; as root `shifter` becomes setuid
	umask 022 && install -d $(root)/bin $(root)/sbin $(DESTDIR)$(libdir) $(DESTDIR)$(SYSCONFDIR)
	install -m 0755 build/setupRoot build/unsetupRoot $(root)/sbin/
	install -m 0644 build/shifter_slurm.so $(DESTDIR)$(libdir)/shifter_slurm.so
	install -m 0644 udiRoot.conf.example imagemanager.json.example $(DESTDIR)$(SYSCONFDIR)/
	rm -rf $(venv)
	umask 022 && $(PYTHON) -m venv $(venv)
	umask 022 && $(venv)/bin/pip -q install build/wheel/shifter-*.whl
	printf 'PREFIX=%s\nSYSCONFDIR=%s\nSTATEDIR=%s\n' $(PREFIX) $(SYSCONFDIR) $(or $(STATEDIR),/run/shifter) > $(venv)/shifter-paths
	chmod 0644 $(venv)/shifter-paths
	grep -lIr --null '^#!$(venv)/bin/' $(venv)/bin | xargs -0 -r sed -i '1s|^#!$(venv)|#!$(libdir)/venv|'
	@# -I: neither the caller's environment nor his directory decides which modules are imported.
	printf '#!%s -I\nfrom udiroot.shifterimg.cli import main\nmain()\n' $(libdir)/venv/bin/python3 > $(root)/bin/shifterimg
	printf '#!%s -I\nfrom shifter_imagegw.cli import main\nmain()\n' $(libdir)/venv/bin/python3 > $(root)/sbin/shifter-imagegw
	printf '#!%s -I\nfrom udiroot.cli import main\nmain()\n' $(libdir)/venv/bin/python3 > $(root)/sbin/udiroot
	chmod 0755 $(root)/bin/shifterimg $(root)/sbin/shifter-imagegw $(root)/sbin/udiroot
	@# Last, so that a half-finished installation has no setuid program.
	install -m 0755 build/shifter $(root)/bin/shifter
	if [ "$$(id -u)" = 0 ]; then chown root:root $(root)/bin/shifter; fi
	chmod 4755 $(root)/bin/shifter

uninstall: ## undo install; keeps the site's own configuration
	rm -f $(root)/bin/shifter $(root)/bin/shifterimg
	rm -f $(root)/sbin/setupRoot $(root)/sbin/unsetupRoot $(root)/sbin/shifter-imagegw $(root)/sbin/udiroot
	rm -rf $(DESTDIR)$(libdir)
	rm -f $(DESTDIR)$(SYSCONFDIR)/udiRoot.conf.example $(DESTDIR)$(SYSCONFDIR)/imagemanager.json.example
	-rmdir --ignore-fail-on-non-empty $(root)/bin $(root)/sbin $(root)/lib $(root) $(DESTDIR)$(SYSCONFDIR) 2>/dev/null

test: ## run the whole suite as CI does
	tests/run

lint: $(VENV)/.stamp ## mypy strict, ruff, shellcheck, gcc -fanalyzer
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	shellcheck -x $(shell_scripts)
	$(MAKE) -C udiroot analyze
	$(MAKE) -C slurm_spank analyze
	for file in udiroot/src/python/*.c shifter_imagegw/squashfs/*/*.c; do \
	    $(CC) $(extension_flags) -c -o build/analyzed.o $$file || exit 1; \
	done

docs: $(VENV)/.stamp ## check that every option, key and link of the documentation is true
	$(VENV)/bin/python -m pytest -q tests/unit/test_documentation.py

bench: ## the quick benches as ratios against real peers (root)
	tests/bench/pull --quick
	tests/bench/start --quick

demo: ## the whole product on this machine, once, for real (root)
	extra/quickstart

clean: ## remove everything that was built
	rm -rf build *.egg-info udiroot/*.so shifter_imagegw/*/*.so
