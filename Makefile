# `make demo` and `make test` are all the set-up there is.

# Set-up messages of the package manager go to a log: a demo should show the demo.
SETUP_LOG := target/setup.log

# One line a fault: rows lost, rows doubled, which.
FAULTS := target/faults.tsv

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

.PHONY: demo test bench bench-peers torture server-programs

demo: server-programs ## Build, start a private server, load, compare the strategies
	cargo build --release
	./target/release/pgrung bench

# Most tests wait, for a server, a window or a timeout: two threads a core are busy.
test: server-programs ## Formatting, lints, and all tests on a real server
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUST_TEST_THREADS=$$((2 * $$(nproc))) cargo test
	$(call ignored-tests,)

torture: server-programs ## The fault bench with far more of each fault; ends with what it cost
	@rm -f $(FAULTS)
	PGRUNG_TORTURE=1 PGRUNG_TALLY=$(CURDIR)/$(FAULTS) cargo test --test all faults:: -- --test-threads=2 --nocapture
	$(call ignored-tests,PGRUNG_TORTURE=1 PGRUNG_TALLY=$(CURDIR)/$(FAULTS))
	@awk -F '\t' '{ lost += $$1; doubled += $$2 } END { printf "faults tried %d, rows lost %d, rows doubled %d\n", NR, lost, doubled }' $(FAULTS)

bench: server-programs ## Splitting, parsing and encoding without a server, the rungs with one
	cargo bench --bench encode --bench records --bench rungs

bench-peers: server-programs ## pgrung beside psql, server-side COPY, pgloader, pgbench (ROWS=6000000 ROUNDS=3)
	cargo build --release
	cargo bench -q --no-run --bench lineitem
	@benches/peers.sh

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
