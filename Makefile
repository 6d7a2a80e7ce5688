# `make demo` shows the whole story, `make test` runs all tests, `make check` is what to run before pushing.
# All of them use the release profile, so that a machine compiles everything once.

CARGO ?= cargo
BUILT := $(or $(CARGO_TARGET_DIR),target)/release

# Where `make install` puts things, below DESTDIR for who makes a package.
PREFIX ?= /usr/local
DESTDIR ?=
UNITS ?= $(if $(filter /usr,$(PREFIX)),/lib/systemd/system,/etc/systemd/system)

.PHONY: help setup setup-bench build image demo test check lint unit soak goldens tck bench man install clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

setup: ## install what is missing on a fresh Debian 12 (needs root for Debian packages)
	@tests/setup

setup-bench: ## the same, with what tests and bench compare with
	@tests/setup bench

build: ## the programs, in target/release
	@$(CARGO) build --release --workspace --quiet

image: setup build
	@$(BUILT)/lab image >/dev/null

demo: image ## daemon, two guests, leases, names, a page from "the Internet", clean end
	@$(BUILT)/demo

test: setup-bench image ## all tests: pure, in namespaces, and with real guests (in the lab where KVM can't run them)
	$(CARGO) test --release --workspace --no-fail-fast

soak: ## random sequences of operations, kills and failures beside a model: 100,000 on a host of values, 500 on the kernel
	NETD_SEQUENCES=100000 $(CARGO) test --release -p netd --lib verbs::tests::random
	NETD_SEQUENCES=500 $(CARGO) test --release -p netd --test daemon random

goldens: setup-bench build ## what virsh says beside a real libvirtd, recorded anew in tests/golden/virsh
	@$(BUILT)/record-virsh

tck: build ## TCK=DIRECTORY: the network scripts of libvirt's compatibility kit, run against netd
	@tests/tck "$(TCK)" $(BUILT)

unit:
	$(CARGO) test --release --workspace --exclude tests --quiet

lint:
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings

check: lint unit ## formatting, lints, unit tests

bench: setup-bench build ## side by side with dnsmasq and libvirt: ratios in one run
	@$(BUILT)/lab image >/dev/null
	@$(BUILT)/bench

man: build ## manual pages, in target/man
	@$(BUILT)/netd --quiet man $(BUILT)/../man
	@$(BUILT)/vmm man $(BUILT)/../man
	@$(BUILT)/netd-libvirtd man $(BUILT)/../man

install: man ## programs, manual pages, completions and the systemd units, below $(DESTDIR)$(PREFIX)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(UNITS)
	install -m 755 $(BUILT)/netd $(BUILT)/netd-libvirtd $(BUILT)/vmm $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(BUILT)/../man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1
	for unit in netd.service netd-libvirtd.service netd-libvirtd.socket netd-libvirtd-ro.socket; do \
		sed 's,/usr/local/bin,$(PREFIX)/bin,' packaging/$$unit >$(DESTDIR)$(UNITS)/$$unit && \
		chmod 644 $(DESTDIR)$(UNITS)/$$unit || exit 1; \
	done
	for program in netd vmm; do \
		install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions \
			$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d && \
		$(BUILT)/$$program completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/$$program && \
		$(BUILT)/$$program completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_$$program && \
		$(BUILT)/$$program completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/$$program.fish || exit 1; \
	done

clean: ## remove what was built and cached
	rm -rf .cache
	$(CARGO) clean
