# `make demo` and `make test` are all the set-up there is.

# Set-up messages of the package manager go to a log: a demo should show the demo.
SETUP_LOG := target/setup.log

.PHONY: demo test bench bench-peers torture server-programs

demo: server-programs ## Build, start a private server, load, compare the strategies
	cargo build --release
	./target/release/pgrung bench

test: server-programs ## Formatting, lints, and all tests on a real server
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo test

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
