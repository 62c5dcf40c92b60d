# SPDX-License-Identifier: BSD-3-Clause
# Developer and installer verbs; CI runs the same ones. `make help` lists them.

PREFIX ?= /opt/shifter
SYSCONFDIR ?= /etc/shifter
DESTDIR ?=
PYTHON ?= /usr/bin/python3
VENV ?= build/venv

.PHONY: help build install uninstall test lint docs bench demo clean

help:
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/'

build: ## compile the C programs, the plug-in and the Python extensions
	$(MAKE) -C udiroot PREFIX=$(PREFIX) SYSCONFDIR=$(SYSCONFDIR)

test: ## run the whole suite as CI does
	tests/run

clean: ## remove everything that was built
	rm -rf build
